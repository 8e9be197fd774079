"""The parts of `python -m recipes.agreement`: the models of each library, what its authors do, and the comparison."""
