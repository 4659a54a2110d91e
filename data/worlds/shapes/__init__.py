"""Synthetic scenes and figures of simple shapes, with questions about them."""
