"""Transforms: the steps from prompts to what the loss reads. Each takes samples and returns new ones."""
