"""A matrix of data sets, erasure requests, methods and seeds, each cell beside models retrained without the records."""
