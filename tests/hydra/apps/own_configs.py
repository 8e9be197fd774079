"""Composes an app's own config, which reaches Hydra by each of the ways that there are, in the current folder.

Prints one JSON object: by way and name, what the app printed. Each app runs in a fork of this process.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize, initialize_config_dir, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

HERE = Path.cwd()
OWN = {"lr": 0.42, "mine": True}
YAML = "lr: 0.42\nmine: true\n"
QUIET = ("hydra/hydra_logging=disabled", "hydra/job_logging=disabled", "hydra.output_subdir=null")
# One name that lightning-optim has in the group `optimizer` too, and one that it has not.
NAMES = ("adam", "house")


@dataclass
class Adam:
    lr: float = 0.42
    mine: bool = True


def write(files: dict[str, str]) -> None:
    for name, text in files.items():
        path = HERE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def primary(name: str, *others: str) -> str:
    return "\n".join([f"defaults: [{{optimizer: {name}}}, _self_]", "width: 3", *others, ""])


def main(config_path: str | None, *arguments: str) -> None:
    """What `python app.py ARGUMENTS` prints."""

    @hydra.main(version_base=None, config_path=config_path, config_name="config")
    def app(config: Any) -> None:
        print(OmegaConf.to_yaml(config))

    sys.argv = ["app.py", *arguments]
    app()


def show(config_path: str | None, *arguments: str) -> None:
    main(config_path, "--cfg", "job", *arguments)


# The ways. The docstring of each is the row of the table.


def folder(name: str) -> None:
    """a file in the app's config folder"""
    write({"conf/config.yaml": primary(name), f"conf/optimizer/{name}.yaml": YAML})
    show(str(HERE / "conf"))


def package(name: str) -> None:
    """a file in the app's package"""
    package = {"shop/__init__.py": "", "shop/conf/__init__.py": ""}
    write({**package, "shop/conf/config.yaml": primary(name), f"shop/conf/optimizer/{name}.yaml": YAML})
    sys.path.insert(0, str(HERE))
    show("pkg://shop.conf")


def config_store(name: str) -> None:
    """a dataclass in the ConfigStore"""
    write({"conf/config.yaml": primary(name)})
    ConfigStore.instance().store(group="optimizer", name=name, node=Adam)
    show(str(HERE / "conf"))


def config_store_only(name: str) -> None:
    """everything in the ConfigStore"""
    ConfigStore.instance().store(group="optimizer", name=name, node=OWN)
    ConfigStore.instance().store(name="config", node={"defaults": [{"optimizer": name}, "_self_"], "width": 3})
    show(None)


def config_store_and_file(name: str) -> None:
    """a file, and a dataclass of the same name in the ConfigStore"""
    ConfigStore.instance().store(group="optimizer", name="base", node=Adam)
    write({"conf/config.yaml": primary(name), f"conf/optimizer/{name}.yaml": "defaults: [base, _self_]\nlr: 0.1\n"})
    show(str(HERE / "conf"))


def config_dir(name: str) -> None:
    """`--config-dir`"""
    write({"conf/config.yaml": primary(name), f"shared/optimizer/{name}.yaml": YAML})
    show(str(HERE / "conf"), "--config-dir", str(HERE / "shared"))


def search_path_on_the_command_line(name: str) -> None:
    """`hydra.searchpath` on the command line"""
    write({"conf/config.yaml": primary(name), f"shared/optimizer/{name}.yaml": YAML})
    show(str(HERE / "conf"), f"hydra.searchpath=[file://{HERE}/shared]")


def search_path_in_the_config(name: str) -> None:
    """`hydra.searchpath` in the primary config"""
    write({"shop/__init__.py": "", "shop/extra/__init__.py": "", f"shop/extra/optimizer/{name}.yaml": YAML})
    write({"conf/config.yaml": primary(name, "hydra: {searchpath: [pkg://shop.extra]}")})
    sys.path.insert(0, str(HERE))
    show(str(HERE / "conf"))


def _plugin(name: str, method: str, position: int) -> None:
    plugin = f"""
from hydra.plugins.search_path_plugin import SearchPathPlugin
class Shop(SearchPathPlugin):
    def manipulate_search_path(self, search_path):
        search_path.{method}("shop", "file://{HERE}/shared")
"""
    write({f"plugins/hydra_plugins/shop_{method}/__init__.py": plugin, f"shared/optimizer/{name}.yaml": YAML})
    write({"conf/config.yaml": primary(name)})
    sys.path.insert(position, str(HERE / "plugins"))
    show(str(HERE / "conf"))


def plugin_appends(name: str) -> None:
    """another plugin, which appends to the search path"""
    _plugin(name, "append", len(sys.path))


def plugin_prepends(name: str) -> None:
    """another plugin, which prepends to the search path"""
    _plugin(name, "prepend", 0)


def experiment(name: str) -> None:
    """an experiment file that overrides the group"""
    chosen = f"# @package _global_\ndefaults: [{{override /optimizer: {name}}}]\n"
    write({"conf/config.yaml": primary("base"), "conf/optimizer/base.yaml": "lr: 1\n"})
    write({"conf/experiment/one.yaml": chosen, f"conf/optimizer/{name}.yaml": YAML})
    show(str(HERE / "conf"), "+experiment=one")


def presets(name: str) -> None:
    """files of `optimizer/groups`"""
    preset = {"adam": "no_decay", "house": "mine"}[name]
    write({f"conf/optimizer/groups/{preset}.yaml": "mine: {lr: 0.1}\n", f"conf/optimizer/{name}.yaml": YAML})
    write({"conf/config.yaml": f"defaults: [optimizer: {name}, optimizer/groups: [{preset}]]\n"})
    show(str(HERE / "conf"))


def compose_in_a_folder(name: str) -> None:
    """`compose` with `initialize_config_dir`"""
    write({"conf/config.yaml": primary("base"), "conf/optimizer/base.yaml": "lr: 1\n"})
    write({f"conf/optimizer/{name}.yaml": YAML})
    with initialize_config_dir(str(HERE / "conf"), version_base=None):
        print(OmegaConf.to_yaml(compose("config", [f"optimizer={name}"])))


def compose_in_a_package(name: str) -> None:
    """`compose` with `initialize_config_module`"""
    write({"shop/__init__.py": "", "shop/conf/__init__.py": "", f"shop/conf/optimizer/{name}.yaml": YAML})
    write({"shop/conf/config.yaml": primary(name)})
    sys.path.insert(0, str(HERE))
    with initialize_config_module("shop.conf", version_base=None):
        print(OmegaConf.to_yaml(compose("config")))


def compose_from_the_config_store(name: str) -> None:
    """`compose` with the ConfigStore alone"""
    ConfigStore.instance().store(group="optimizer", name=name, node=Adam)
    with initialize(config_path=None, version_base=None):
        print(OmegaConf.to_yaml(compose(overrides=[f"+optimizer={name}"])))


def sweep(name: str) -> None:
    """a sweep"""
    write({"conf/config.yaml": primary("base"), f"conf/optimizer/{name}.yaml": YAML})
    write({"conf/optimizer/base.yaml": "lr: 1\n"})
    main(str(HERE / "conf"), "-m", f"optimizer=base,{name}", *QUIET, f"hydra.sweep.dir={HERE}/o")


def glob(name: str) -> None:
    """a sweep over `glob(*)`, which runs the app's own configs only"""
    write({"conf/config.yaml": primary("base"), "conf/optimizer/base.yaml": "lr: 1\n"})
    ConfigStore.instance().store(group="optimizer", name=name, node=Adam)
    main(str(HERE / "conf"), "-m", "optimizer=glob(*)", *QUIET, f"hydra.sweep.dir={HERE}/o")


def launched_elsewhere(name: str) -> None:
    """a sweep whose launcher pickles the config loader for another process"""
    write({"conf/config.yaml": primary(name), f"shared/optimizer/{name}.yaml": YAML})
    with initialize_config_dir(str(HERE / "conf"), version_base=None):
        Path("loader").write_bytes(pickle.dumps(GlobalHydra.instance().config_loader()))
    load = """
import pickle
import hydra.version
from hydra.core.plugins import Plugins
from hydra.core.utils import setup_globals
from hydra.types import RunMode
from omegaconf import OmegaConf
hydra.version.setbase(None)
setup_globals()
Plugins.instance()
loader = pickle.load(open("loader", "rb"))
config = loader.load_configuration("config", ["hydra.searchpath=[file://shared]"], RunMode.RUN)
print(OmegaConf.to_yaml(config.optimizer))
"""
    subprocess.run([sys.executable, "-c", load], check=True)


def completion(name: str) -> None:
    """tab completion"""
    write({"conf/config.yaml": primary(name), f"conf/optimizer/{name}.yaml": YAML})
    os.environ.update(COMP_LINE="python app.py optimizer=", COMP_POINT="24")
    main(str(HERE / "conf"), "--shell-completion", "query=bash")


def key(name: str) -> None:
    """a key of the name of a group, set by an override"""
    write({"conf/config.yaml": "optimizer: sgd\nscheduler: null\nmonitor: val_loss\n"})
    show(str(HERE / "conf"), f"optimizer={name}", "++scheduler=step", "monitor=val_acc")


def removed_key(name: str) -> None:
    """a key of the name of a group, deleted, replaced by null or added by an override"""
    write({"conf/config.yaml": f"optimizer: {name}\nscheduler: step\n"})
    show(str(HERE / "conf"), "~optimizer", "scheduler=null", "+monitor=val_loss")


WAYS: tuple[Callable[[str], None], ...] = (
    *(folder, package, config_store, config_store_only, config_store_and_file, config_dir),
    *(search_path_on_the_command_line, search_path_in_the_config),
    *(plugin_appends, plugin_prepends, experiment, presets),
    *(compose_in_a_folder, compose_in_a_package, compose_from_the_config_store),
    *(sweep, glob, launched_elsewhere, completion, key, removed_key),
)


def run_in_fork(way: Callable[[str], None], name: str, folder: Path) -> str:
    """What `way` prints, and the traceback if it fails."""
    global HERE
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        HERE = folder
        HERE.mkdir(parents=True)
        os.chdir(HERE)
        os.dup2(writing, sys.stdout.fileno())
        try:
            way(name)
        except BaseException:
            traceback.print_exc(file=sys.stdout)
        sys.stdout.flush()
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        printed = pipe.read()
    os.waitpid(child, 0)
    return printed


if __name__ == "__main__":
    root = HERE
    printed = {
        f"{way.__doc__}: {name}": run_in_fork(way, name, root / way.__name__ / name) for way in WAYS for name in NAMES
    }
    print(json.dumps(printed))
