"""Measured signals: time series, spectra and records of named numbers."""
