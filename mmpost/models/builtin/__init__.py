"""Small models with random weights that mmpost builds itself, for tests, demos and base models."""
