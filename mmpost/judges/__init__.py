"""Judges: score replies against references with a chat model, an encoder, or rules."""
