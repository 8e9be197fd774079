"""From config to optimizer: the factory, whose class runs each algorithm, and loading by name."""
