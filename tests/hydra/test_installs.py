"""What pip installs: the contents of the wheel, and how Hydra 1.3 and 1.4 find the config groups without torch."""

from __future__ import annotations

import re
import shutil
import sys
import zipfile
from pathlib import Path, PurePosixPath

import hydra
import pytest

from tests.support.apps import CHECKOUT
from tests.support.documentation import README
from tests.support.user_environments import parse_last_line, run

PLUGIN = CHECKOUT / "lightning_optim/_hydra/path/hydra_plugins/lightning_optim_searchpath"
OVERRIDES = (
    "optimizer=adamw_groups",
    "optimizer.lr=3e-4",
    "optimizer.groups.no_decay.weight_decay=0",
    "+optimizer.groups.head={params: head, lr_scale: 10}",
)

# Prints what Hydra finds in an environment, from a folder without configs.
FIND_CONFIGS = """
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
    source = next(source for source in loader.get_sources() if source.provider == "lightning-optim")
loaded = [name for name in ("torch", "lightning", "numpy") if name in sys.modules]

from importlib.metadata import distribution
(entry_point,) = distribution("lightning-optim").entry_points.select(group="hydra.plugins")
plugin = entry_point.load()
print(json.dumps({
    "hydra": hydra.__version__,
    "version": lightning_optim.__version__,
    "file": lightning_optim.__file__,
    "plugins": [[f"{plugin.__module__}.{plugin.__qualname__}", inspect.getfile(plugin)] for plugin in plugins],
    "entry_point": f"{plugin.__module__}.{plugin.__qualname__}",
    "configs": source.path,
    "options": options,
    "rules": list(job.optimizer.groups),
    "loaded": loaded,
}))
"""


def option_names(group: str) -> list[str]:
    return sorted(path.stem for path in (CHECKOUT / "conf" / group).glob("*.yaml"))


# The wheel's contents.


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_has_every_module_and_every_config_and_nothing_else(names):
    modules = {
        path
        for path in CHECKOUT.glob("lightning_optim/**/*.py*")
        if path.suffix in (".py", ".pyi") and "_hydra" not in path.parts
    }
    configs = {PurePosixPath("lightning_optim", path.relative_to(CHECKOUT)) for path in CHECKOUT.glob("conf/**/*.yaml")}
    expected = {str(path.relative_to(CHECKOUT)) for path in modules} | {str(path) for path in configs}
    added = {
        "lightning_optim/py.typed",
        "lightning_optim/optim/fused/kernel_math.h",
        "lightning_optim/optim/fused/kernel_math.triton",
        "lightning_optim/optim/fused/newton_schulz.c",
        "lightning_optim/report/page.css",
        "lightning_optim/conf/__init__.py",
        # hydra_plugins: a namespace package, without __init__
        *(f"hydra_plugins/lightning_optim_searchpath/{path.name}" for path in PLUGIN.glob("*.py")),
    }
    assert {name for name in names if ".dist-info/" not in name} == expected | added


def test_the_wheel_has_the_license_and_requires_python_and_hydra(wheel, names):
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
    lines = zipfile.ZipFile(wheel).read(metadata).decode().splitlines()
    for line in ("License-Expression: Apache-2.0", "Requires-Python: >=3.10", "Requires-Dist: hydra-core<1.5,>=1.3.2"):
        assert line in lines
    versions = re.findall(r"^Classifier: Programming Language :: Python :: 3\.(\d+)$", "\n".join(lines), re.MULTILINE)
    (oldest, newest) = re.findall(r"^Python 3\.(\d+) to 3\.(\d+);", README, re.MULTILINE)[0]
    assert [int(version) for version in versions] == [*range(int(oldest), int(newest) + 1)]


@pytest.mark.slow
def test_the_sdist_builds_the_same_wheel(wheel, names, tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path)]
    run([*build, "-t", "sdist"], cwd=CHECKOUT)
    (packed,) = tmp_path.glob("*.tar.gz")
    shutil.unpack_archive(packed, tmp_path, filter="data")
    source = tmp_path / packed.name.removesuffix(".tar.gz")
    for path in (
        "README.md",
        "SECURITY.md",
        "docs/quickstart.md",
        "mkdocs.yml",
        "tests/conftest.py",
        "recipes/finetune.py",
    ):
        assert (source / path).exists(), "what the tests and the links of the README need"
    run([*build, "-t", "wheel"], cwd=source)
    assert set(zipfile.ZipFile(tmp_path / wheel.name).namelist()) == names


# What an environment finds.


@pytest.mark.parametrize(
    "how",
    [
        "wheel",
        *(
            pytest.param(how, marks=pytest.mark.slow)
            for how in ("editable", "wheel-hydra1.3.2", "wheel-hydra1.4", "editable-hydra1.4")
        ),
    ],
)
def test_hydra_finds_the_config_groups_without_loading_torch(how, installed, wheel, tmp_path):
    environment = installed(how)
    found = environment.evaluate(FIND_CONFIGS, cwd=tmp_path)
    is_wheel = how.startswith("wheel")
    location = environment.root if is_wheel else CHECKOUT
    version = how.partition("-hydra")[2]
    assert found["hydra"].startswith(version) if version else found["hydra"] == hydra.__version__
    assert found["version"] == wheel.name.split("-")[1]
    ((plugin, plugin_file),) = found["plugins"]
    assert plugin == found["entry_point"] == "hydra_plugins.lightning_optim_searchpath.LightningOptimSearchPath"
    assert all(Path(file).is_relative_to(location) for file in (found["file"], plugin_file)), "not another installation"
    package = Path(found["file"]).parent
    assert found["configs"] == str(package / "conf" if is_wheel else CHECKOUT / "conf"), "editable: read live"
    assert {group: sorted(options) for group, options in found["options"].items()} == {
        group: option_names(group) for group in found["options"]
    }
    assert found["rules"] == ["no_decay"]
    assert found["loaded"] == []


def test_the_command_line_is_installed(installed, tmp_path):
    assert "adamw" in run([str(installed("wheel").root / "bin/lightning-optim"), "list"], cwd=tmp_path).stdout


# A user's run in a folder outside the checkout.

LOAD_CHECKPOINT = """
import json
import torch
import lightning_optim
checkpoint = torch.load("model.ckpt", weights_only=True)
factory = checkpoint["hyper_parameters"]["optimizer"]
assert type(factory) is lightning_optim.OptimizerFactory
print(json.dumps({"name": factory.name, "lr": factory.hyperparameters["lr"], "groups": factory.groups}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["wheel-hydra1.4"])  # tests/hydra/test_first_run.py trains from the wheel under 1.3
def test_a_run_trains_and_its_checkpoint_loads(how, installed, copy_app):
    environment, app = installed(how), copy_app("plain")
    report = parse_last_line(environment.run("train.py", *OVERRIDES, "hydra.run.dir=outputs", cwd=app))
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
    assert environment.evaluate(LOAD_CHECKPOINT, cwd=app) == {
        "name": "adamw",
        "lr": lr,
        "groups": {
            "no_decay": {"kinds": ["bias", "norm", "no_weight_decay"], "weight_decay": 0},
            "head": {"params": "head", "lr_scale": 10},
        },
    }


# The other tests of this folder that use Hydra, under Hydra 1.4, whose own warnings are ignored.


@pytest.mark.slow
def test_the_other_tests_pass_under_hydra_1_4(installed):
    files = [path for path in Path(__file__).parent.glob("test_*.py") if path != Path(__file__)]
    others = [str(path.relative_to(CHECKOUT)) for path in files if "\nfrom hydra" in path.read_text(encoding="utf-8")]
    assert len(others) >= 4
    flags = ["-q", "--tb=short", "-o", "filterwarnings=ignore", "-k", "not sweep"]
    installed("editable-hydra1.4").run("-m", "pytest", *flags, *others, cwd=CHECKOUT)
