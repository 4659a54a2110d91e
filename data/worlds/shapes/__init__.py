"""Scenes and figures of simple shapes."""
