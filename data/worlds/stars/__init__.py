"""Synthetic stars: light curves, spectra and catalogue records."""
