"""Adds lightning-optim's config groups to every Hydra app, behind everything that the app has; loads no torch."""

from __future__ import annotations

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from ._fallback_source import FallbackSource, SearchPathURL


class LightningOptimSearchPath(SearchPathPlugin):
    """Appends the config groups, as a source that yields to every other one."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append to the search path; Hydra calls this for each app."""
        Plugins.instance().register(FallbackSource)  # an entry point names one class only: this one
        search_path.append(provider="lightning-optim", path=SearchPathURL.on(search_path))
