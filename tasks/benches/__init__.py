"""Benchmarks: `mmpost score bench=NAME predictions=FILE`."""
