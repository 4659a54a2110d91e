"""Composition of sources: base classes, mixtures, subsets, curricula, tiled images."""
