"""Scenes of handwritten digits."""
