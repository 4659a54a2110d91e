"""The nouns that everything else is made of: samples, batches, stages, plug-in base classes, model protocols."""
