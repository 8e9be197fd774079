"""Fixtures: Hydra apps that a test writes."""

from __future__ import annotations

from tests.support.apps import search_path_plugin, write_app  # noqa: F401
