"""From files to an erasure request: reading, ids, duplicates, and the split of records."""
