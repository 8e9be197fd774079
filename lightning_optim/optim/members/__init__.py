"""The family's members: a rule each."""
