"""The parts of scripts/kills.py."""
