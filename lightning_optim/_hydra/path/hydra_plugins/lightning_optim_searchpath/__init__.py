"""Adds lightning-optim's config groups to the search path of every Hydra app, without loading torch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


def conf_url() -> str:
    """The URL of the config groups: in the installed package, or next to it in a checkout."""
    spec = find_spec("lightning_optim")  # does not import it
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    if (package / "conf").is_dir():
        return "pkg://lightning_optim.conf"
    return f"file://{(package.parent / 'conf').as_posix()}"


class LightningOptimSearchPath(SearchPathPlugin):
    """Appends the config groups, so that a user's own file of the same name replaces ours completely."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append to the search path; Hydra calls this for each app."""
        search_path.append(provider="lightning-optim", path=conf_url())
