"""The training loop: rollout batches, gradients, reference weights, evaluation. No modality, method or task."""
