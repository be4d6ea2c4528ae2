"""SISA (Bourtoule et al. 2021, arXiv 1912.03817) for transformers: an ensemble from which records are erased exactly."""
