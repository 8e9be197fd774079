"""With lightning-optim installed, an app's own configs compose to the same bytes as without, however they are found."""

from __future__ import annotations

import pytest

from tests.support.apps import APPS
from tests.support.cases import every
from tests.support.user_environments import parse_last_line

HYDRAS = ["", "-hydra1.3.2", "-hydra1.4"]


@pytest.mark.slow
@pytest.mark.parametrize("hydra", ["", "-hydra1.4"])
def test_an_apps_own_configs_compose_as_without_us(hydra, installed, tmp_path):
    printed = {}
    for what in ("nothing", "wheel"):
        folder = tmp_path / what
        folder.mkdir()
        # The same paths in both: they are part of what is printed.
        workspace = tmp_path / "workspace"
        workspace.mkdir()
        completed = installed(what + hydra).run(str(APPS / "own_configs.py"), cwd=workspace)
        printed[what] = parse_last_line(completed)
        workspace.rename(folder / "workspace")
    assert printed["wheel"] == printed["nothing"]
    assert len(printed["nothing"]) >= 40
    for way, text in printed["nothing"].items():
        assert "Traceback" not in text and text.strip(), f"{way}\n{text}"


@pytest.mark.parametrize("hydra", every(HYDRAS, fast=[""]))
def test_a_search_path_names_us_after_the_app(hydra, installed, copy_app):
    printed = installed("wheel" + hydra).run("show.py", "--info", "searchpath", cwd=copy_app("plain")).stdout
    providers = [line.split("|")[1].strip() for line in printed.splitlines() if line.startswith("| ")]
    assert providers == ["Provider", "hydra", "main", "lightning-optim", "schema"]
