"""What pip installs: the wheel, an editable checkout, and both found by Hydra, 1.3 and 1.4, with no torch loaded."""

from __future__ import annotations

import shutil
import sys
import zipfile
from pathlib import Path, PurePosixPath

import hydra
import pytest

from tests.support.user_environments import CHECKOUT, HERE, last_line, run

PLUGIN = "hydra_plugins.lightning_optim_searchpath.LightningOptimSearchPath"
OVERRIDES = (
    "optimizer=adamw_groups",
    "optimizer.lr=3e-4",
    "optimizer.groups.no_decay.weight_decay=0",
    "+optimizer.groups.head={params: head, lr_scale: 10}",
)

# What Hydra finds in an environment, from a folder with no config in it.
LOOK = """
import inspect, json, sys
import hydra
from hydra import compose, initialize
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
import lightning_optim

plugins = [plugin for plugin in Plugins.instance().discover(SearchPathPlugin) if "lightning_optim" in plugin.__module__]
with initialize(config_path=None, version_base="1.3"):
    loader = GlobalHydra.instance().config_loader()
    groups = ("optimizer", "optimizer/groups", "scheduler", "unfreeze", "monitor")
    options = {group: loader.get_group_options(group) for group in groups}
    job = compose(overrides=["+optimizer=adamw_groups"])
print(json.dumps({
    "hydra": hydra.__version__,
    "file": lightning_optim.__file__,
    "plugins": [[f"{plugin.__module__}.{plugin.__qualname__}", inspect.getfile(plugin)] for plugin in plugins],
    "options": options,
    "rules": list(job.optimizer.groups),
    "loaded": [name for name in ("torch", "lightning", "numpy") if name in sys.modules],
}))
"""


def shipped(group: str) -> list[str]:
    return sorted(path.stem for path in (CHECKOUT / "conf" / group).glob("*.yaml"))


# The wheel's contents.


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_holds_every_module_and_every_config(names):
    package = {
        p for p in CHECKOUT.glob("lightning_optim/**/*.py*") if p.suffix in (".py", ".pyi") and "_hydra" not in p.parts
    }
    configs = {PurePosixPath("lightning_optim", path.relative_to(CHECKOUT)) for path in CHECKOUT.glob("conf/**/*.yaml")}
    expected = {str(path.relative_to(CHECKOUT)) for path in package} | {str(path) for path in configs}
    added = {
        "lightning_optim/py.typed",
        "lightning_optim/conf/__init__.py",
        "hydra_plugins/lightning_optim_searchpath/__init__.py",
    }
    assert {name for name in names if ".dist-info/" not in name} == expected | added


def test_the_wheel_holds_no_other_package(names):
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"lightning_optim", "hydra_plugins"}
    assert "hydra_plugins/__init__.py" not in names, "a namespace package, which other plugins share"


def test_the_wheel_carries_the_licence_and_asks_for_python_and_hydra(wheel, names):
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
    lines = zipfile.ZipFile(wheel).read(metadata).decode().splitlines()
    for line in ("License-Expression: Apache-2.0", "Requires-Python: >=3.10", "Requires-Dist: hydra-core<1.5,>=1.3.2"):
        assert line in lines


def test_the_sdist_builds_the_same_wheel(wheel, names, tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path)]
    run([*build, "-t", "sdist"], cwd=CHECKOUT)
    (packed,) = tmp_path.glob("*.tar.gz")
    shutil.unpack_archive(packed, tmp_path, filter="data")
    run([*build, "-t", "wheel"], cwd=tmp_path / packed.name.removesuffix(".tar.gz"))
    assert set(zipfile.ZipFile(tmp_path / wheel.name).namelist()) == names


# What an environment finds.

WHEELS = ["wheel", pytest.param("wheel-hydra1.4", marks=pytest.mark.slow)]
EDITABLES = ["editable", pytest.param("editable-hydra1.4", marks=pytest.mark.slow)]


@pytest.mark.parametrize("how", [*WHEELS, *EDITABLES])
def test_hydra_finds_the_groups_and_loads_no_torch(how, installed, tmp_path):
    environment = installed(how)
    found = environment.ask(LOOK, cwd=tmp_path)
    home = environment.root if how.startswith("wheel") else CHECKOUT
    assert found["hydra"] == ("1.4.0rc3" if how.endswith("hydra1.4") else hydra.__version__)
    ((plugin, plugin_file),) = found["plugins"]
    assert plugin == PLUGIN
    assert all(Path(file).is_relative_to(home) for file in (found["file"], plugin_file)), "no copy, no other install"
    assert {group: sorted(options) for group, options in found["options"].items()} == {
        group: shipped(group) for group in found["options"]
    }
    assert found["rules"] == ["no_decay"]
    assert found["loaded"] == []


@pytest.mark.parametrize("how", EDITABLES)
def test_an_editable_install_reads_the_checkouts_configs_live(how, installed, tmp_path):
    code = """
import json
from hydra_plugins.lightning_optim_searchpath import conf_url
print(json.dumps(conf_url()))
"""
    assert installed(how).ask(code, cwd=tmp_path) == f"file://{CHECKOUT.as_posix()}/conf"


def test_the_entry_points_lead_to_the_plugin_and_to_the_command_line(installed, tmp_path):
    environment = installed("wheel")
    code = """
import json
from importlib.metadata import distribution
(point,) = distribution("lightning-optim").entry_points.select(group="hydra.plugins")
print(json.dumps(f"{point.load().__module__}.{point.load().__qualname__}"))
"""
    assert environment.ask(code, cwd=tmp_path) == PLUGIN
    assert "adamw" in run([str(environment.root / "bin/lightning-optim"), "list"], cwd=tmp_path).stdout


# A user's run, from a folder that has nothing to do with the checkout.

LOAD = """
import json
import torch
import lightning_optim
checkpoint = torch.load("model.ckpt", weights_only=True)
factory = checkpoint["hyper_parameters"]["optimizer"]
assert type(factory) is lightning_optim.OptimizerFactory
print(json.dumps({"name": factory.name, "lr": factory.hyperparameters["lr"], "groups": factory.groups}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["wheel", "wheel-hydra1.4"])
def test_a_run_trains_and_its_checkpoint_loads(how, installed, copy_app):
    environment, app = installed(how), copy_app("plain")
    report = last_line(environment.run("train.py", *OVERRIDES, "hydra.run.dir=outputs", cwd=app))
    lr = 3e-4
    assert report["groups"] == [
        {"name": "default", "lr": lr, "weight_decay": 0.01, "param_names": ["backbone.0.weight"]},
        {
            "name": "no_decay",
            "lr": lr,
            "weight_decay": 0.0,
            "param_names": ["backbone.0.bias", "backbone.1.weight", "backbone.1.bias"],
        },
        {"name": "head", "lr": lr * 10, "weight_decay": 0.01, "param_names": ["head.weight"]},
        {"name": "head.no_decay", "lr": lr * 10, "weight_decay": 0.0, "param_names": ["head.bias"]},
    ]
    assert report["tested"] == ["test/loss"]
    assert environment.ask(LOAD, cwd=app) == {
        "name": "adamw",
        "lr": lr,
        "groups": {
            "no_decay": {"kinds": ["bias", "norm"], "weight_decay": 0},
            "head": {"params": "head", "lr_scale": 10},
        },
    }


# The rest of this folder under the next Hydra; its own warnings are no concern here.


@pytest.mark.slow
def test_the_other_tests_hold_under_hydra_1_4(installed):
    others = [str(path.relative_to(CHECKOUT)) for path in HERE.glob("test_*.py") if path != Path(__file__)]
    flags = ["-q", "--tb=short", "-o", "filterwarnings=ignore", "-k", "not sweep"]
    installed("editable-hydra1.4").run("-m", "pytest", *flags, *others, cwd=CHECKOUT)
