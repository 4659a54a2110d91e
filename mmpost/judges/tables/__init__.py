"""Judges of recognised tables: questions about a picture of a table, answered from what was recognised."""
