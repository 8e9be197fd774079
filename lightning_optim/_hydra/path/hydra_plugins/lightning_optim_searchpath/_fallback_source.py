"""`FallbackSource`: the config source of lightning-optim's groups, which yields to every other source of an app.

Hydra takes a config from the first source that has it. Behind the sources of all plugins it puts `--config-dir`,
`hydra.searchpath` and the app's ConfigStore, so a source that wants to be last cannot be placed last. It asks the
others instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigSource

from ._override_keys import chooses_config

SCHEME = "lightning-optim"


class SearchPathURL(str):
    """The URL of the source, and the search path that it is part of.

    Hydra gives a source nothing but its URL, and copies and pickles search paths. A copy of the search path holds a
    copy of this URL, which leads to that copy.
    """

    search_path: ConfigSearchPath

    @classmethod
    def on(cls, search_path: ConfigSearchPath) -> SearchPathURL:
        """The URL for `search_path`."""
        url = cls(f"{SCHEME}://{conf_folder().as_posix()}")
        url.search_path = search_path
        return url


def conf_folder() -> Path:
    """The folder of the config groups: in the installed package, or next to it in a checkout."""
    spec = find_spec("lightning_optim")  # does not import it
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    return next(folder for folder in (package / "conf", package.parent / "conf") if folder.is_dir())


class FallbackSource(FileConfigSource):
    """Has a config where no other source on the search path has one of that name.

    In a group in which the app itself has configs, ours can be chosen but are not listed: `glob(*)`, tab completion,
    `--help` and error messages show there what they show without us.
    """

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider=provider, path=path)
        self._search_path: ConfigSearchPath | None = getattr(path, "search_path", None)

    @staticmethod
    def scheme() -> str:
        """The scheme of the URLs that Hydra opens with this class."""
        return SCHEME

    def is_config(self, config_path: str) -> bool:
        """Whether we have this config and nobody else has."""
        return super().is_config(config_path) and not any(
            source.is_config(config_path) for source in self._other_sources()
        )

    def is_group(self, config_path: str) -> bool:
        """Whether we have this group and, if Hydra is reading an override, the override means it."""
        return super().is_group(config_path) and chooses_config(config_path, self.is_config)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Our configs and groups in a group; none if both the app and we have configs in it."""
        if super().list(config_path, ObjectType.CONFIG):
            for source in self._other_sources():
                if source.is_group(config_path) and source.list(config_path, ObjectType.CONFIG):
                    return []
        return super().list(config_path, results_filter)

    def _other_sources(self) -> Sequence[ConfigSource]:
        # Not kept: the search path still grows after Hydra has created this source.
        path = [] if self._search_path is None else self._search_path.get_path()
        sources = []
        for element in path:
            scheme, separator, _ = element.path.partition("://")
            if scheme != SCHEME:
                source = SourcesRegistry.instance().resolve(scheme if separator else "file")
                sources.append(source(element.provider, element.path))
        return sources
