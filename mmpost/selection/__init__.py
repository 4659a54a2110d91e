"""Data generation and data selection: stages that record samples, selectors that choose among them, and manifests."""
