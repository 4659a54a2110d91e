"""Numbers computed from scored samples: means, bootstrap intervals, metrics of embeddings."""
