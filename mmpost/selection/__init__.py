"""Stages that generate data or measure samples, what they record, and how later stages read it."""
