"""The tasks that train the built-in base models (`model=tiny`, `tiny-audio`, ...)."""
