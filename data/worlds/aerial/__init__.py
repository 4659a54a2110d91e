"""Synthetic aerial images and questions about them."""
