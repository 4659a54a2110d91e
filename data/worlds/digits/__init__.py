"""Synthetic scenes of handwritten digits, with referring expressions."""
