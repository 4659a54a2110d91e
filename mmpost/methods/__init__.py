"""Base classes that tasks share: policy gradients over groups of rollouts, preferences, user-supplied rewards."""
