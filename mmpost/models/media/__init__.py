"""How media enter a model: one processor per modality, and the cache of what they return."""
