"""The parts of `python -m recipes.callback_matrix`: the runs, the same runs by hand, the rows and their comparison."""
