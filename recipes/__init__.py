"""Runs on real data that show the library at work; not part of the wheel."""
