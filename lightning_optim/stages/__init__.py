"""Staged unfreezing for plain torch: stages, their triggers, and an optimizer to which stages are added."""
