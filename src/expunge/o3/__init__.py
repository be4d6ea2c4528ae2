"""O3 (Gao et al. 2025, arXiv 2407.10223): requests that keep coming, one adapter and one detector each, no retained data."""
