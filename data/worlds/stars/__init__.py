"""Synthetic variable stars: light curves, spectra and catalog records."""
