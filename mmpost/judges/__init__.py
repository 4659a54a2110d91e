"""Judges: what a reply is worth, asked of a model or of rules."""
