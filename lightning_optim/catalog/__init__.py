"""The optimizers there are, as data, by whose code runs them; `registry.py` reads it."""
