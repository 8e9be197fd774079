"""From config to optimizer: the factory, the choice of the class that runs each algorithm, and loading by name."""
