"""Sources made of other sources: mixtures, subsets, curricula, tiles."""
