"""From the user's files and rows to samples."""
