"""Prefix sharing: one computation of a prompt for all of its replies, in training and in decoding; see README.md."""
