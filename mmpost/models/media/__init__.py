"""How media enter a model: one `MediaProcessor` per modality, and a cache of what they return; see README.md."""
