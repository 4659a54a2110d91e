"""Evaluations on named benchmarks: official files, official scores, and strict ones beside them."""
