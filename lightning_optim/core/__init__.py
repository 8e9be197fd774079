"""Errors, config values and hyperparameter checks that every other package builds on; imports no torch."""
