"""`python -m recipes.strategies`: this library under each strategy of Lightning, next to torch by hand."""
