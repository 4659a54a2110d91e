"""From YAML files and `key=value` arguments to typed settings, and from names to plug-ins. No torch here."""
