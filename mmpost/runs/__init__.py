"""One run: its session (task, model, context), its folder, its checkpoints, resuming, and the built-in base models."""
