"""Small architectures with random weights, written by mmpost itself."""
