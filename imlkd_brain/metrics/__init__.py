"""Exact error measures of speaker verification: tensors in, numbers out."""
