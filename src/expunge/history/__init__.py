"""The history of a model: one record an erasure request, chained by hash, and how later requests and readers use it."""
