"""Synthetic aerial images and visual questions about them."""
