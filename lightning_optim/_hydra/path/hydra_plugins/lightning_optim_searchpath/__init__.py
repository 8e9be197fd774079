"""Puts lightning-optim's config groups on the search path of every Hydra app; loads no torch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


def conf_url() -> str:
    """Where the config groups lie: in the installed package, or beside it in a checkout."""
    spec = find_spec("lightning_optim")  # finds, does not import
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    if (package / "conf").is_dir():
        return "pkg://lightning_optim.conf"
    return f"file://{(package.parent / 'conf').as_posix()}"


class LightningOptimSearchPath(SearchPathPlugin):
    """Appends, so that a user's own file of the same name wins whole."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra for each app."""
        search_path.append(provider="lightning-optim", path=conf_url())
