"""The arms of `python -m recipes.benchmark`, one file each, and the timing they share."""
