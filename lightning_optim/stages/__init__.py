"""Staged unfreezing for plain torch: stages, their triggers, and an optimizer that follows them."""
