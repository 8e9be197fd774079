"""The arms of `python -m recipes.benchmark`, a file each, and what times them."""
