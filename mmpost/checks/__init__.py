"""`mmpost check`: validates data, rewards, model and gradients of a configuration before a run."""
