"""Judges and metrics for radiology reports."""
