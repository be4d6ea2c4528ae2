"""Offset unlearning (Huang et al., arXiv 2404.11045): a frozen model, and a small pair that corrects what it says."""
