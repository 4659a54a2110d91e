"""Synthetic datasets that need no download; for tests, examples and the tiny models."""
