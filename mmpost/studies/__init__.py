"""Several runs held against each other: `mmpost compare` and `mmpost continual`."""
