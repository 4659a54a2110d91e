"""Pictures of tables with numbers from real data sets."""
