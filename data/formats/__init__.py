"""Readers of published datasets, as released."""
