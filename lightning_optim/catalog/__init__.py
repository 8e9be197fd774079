"""The optimizers there are, as data: `torch_only`, `both`, and ours by family; `registry.py` reads it."""
