"""Synthetic datasets, generated on demand from a seed."""
