"""Readers of user data: files and folders, rows in common formats, conversations with media."""
