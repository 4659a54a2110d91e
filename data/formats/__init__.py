"""Adapters from rows of published datasets, in their released form, to samples with a prompt and a truth."""
