"""Measured signals as modalities: time series, spectra and records of named numbers."""
