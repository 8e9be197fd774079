"""`lightning-optim`: what optimizers there are, what one takes, and what a config would do to a model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table as RichTable

from .catalog.decay import DECAYS
from .errors import ConfigError, choices
from .hyperparameters import in_yaml
from .registry import OptimizerInfo, list_optimizers, optimizer_info

if TYPE_CHECKING:
    from omegaconf import DictConfig

_WIDTH = 120
_FACTORY = "lightning_optim.OptimizerFactory"
_UNFREEZE = "lightning_optim.StagedUnfreeze"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False)
    try:
        options.run(options, console)
    except ConfigError as error:
        Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(f"lightning-optim: {error}")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lightning-optim", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("list", help="the optimizers there are")
    command.add_argument("pattern", nargs="?", default="*", help="a glob on the name, such as 'adam*'")
    command.set_defaults(run=_list)

    command = commands.add_parser(
        "show", help="one optimizer: its equations, paper, state, weight decay and hyperparameters"
    )
    command.add_argument("name")
    command.set_defaults(run=_show)

    command = commands.add_parser(
        "explain", help="the group table and the unfreeze plan of a Hydra config; trains nothing"
    )
    command.add_argument("--config-dir", required=True, type=Path, help="the folder of your configs")
    command.add_argument("--config-name", required=True, help="the primary config, without .yaml")
    command.add_argument(
        "--module", required=True, metavar="KEY", help="where in the config the model is, such as model"
    )
    command.add_argument("overrides", nargs="*", help="Hydra overrides, such as optimizer.lr=3e-4")
    command.set_defaults(run=_explain)
    return parser


def _list(options: argparse.Namespace, console: Console) -> None:
    names = list_optimizers(options.pattern)
    if not names:
        raise ConfigError(f"no optimizer matches {options.pattern!r}.{choices(options.pattern, list_optimizers())}")
    table = RichTable("name", "what it is", "paper", "weight decay", "state", "bytes")
    for name in names:
        info = optimizer_info(name)
        size = info.state_bytes(info.defaults)
        table.add_row(
            name, info.summary, info.paper, info.decay, ", ".join(info.buffers), "" if size is None else str(size)
        )
    console.print(table)
    console.print("bytes: of state for each float32 parameter, under the defaults", markup=False)


def _show(options: argparse.Namespace, console: Console) -> None:
    info = optimizer_info(options.name)
    console.print(f"[bold]{info.name}[/bold]: {info.summary}")
    console.print("the step")
    for line in info.equations:
        console.print(f"    {line}", markup=False)
    console.print(f"paper: {info.paper}")
    console.print(f"class: {_class(info)}", markup=False)
    console.print(f"state of each parameter: {_state(info)}", markup=False)
    console.print(f"weight decay{'' if info.decay_modes else ': none'}")
    for mode in info.decay_modes:
        console.print(f"    {mode:10} {DECAYS[mode]}{' (the default)' if mode == info.decay else ''}", markup=False)
    if info.single_group:
        console.print("takes one param group only")
    if info.matrices_only:
        console.print("takes 2-D parameters only")
    table = RichTable("hyperparameter", "default", "allowed", "in a rule", "what it is")
    for name, spec in info.hyperparameters.items():
        allowed = "yes" if spec.per_group and not info.single_group else "no"
        table.add_row(name, in_yaml(spec.default), spec.describe(), allowed, spec.help)
    console.print(table, markup=False)


def _class(info: OptimizerInfo) -> str:
    path = info.path.replace(":", ".")
    if not info.own or info.is_ours:
        return path
    return f"{path}; for {', '.join(sorted(info.own_only - {'fused'}))}: {info.own.replace(':', '.')}"


def _state(info: OptimizerInfo) -> str:
    if info.single_group:
        return "the last history_size steps and gradient differences"
    if info.factored:
        return f"{', '.join(info.buffers)}; a matrix has a row and a column, all else its own size"
    parts = []
    for name, needed in info.buffers.items():
        parts.append(f"{name} (with {needed})" if needed and not info.defaults[needed] else name)
    size = info.state_bytes(info.defaults)
    most = 4 * len(info.buffers)
    least = f"{size} bytes for each float32 parameter"
    return f"{', '.join(parts) or 'none'}; {least}" + (f", at most {most}" if most != size else "")


def _explain(options: argparse.Namespace, console: Console) -> None:
    sys.path.insert(0, "")  # as `python train.py` does: the config names the user's own modules
    config = _compose(options.config_dir, options.config_name, options.overrides)
    module = _module(config, options.module)
    factories = list(_nodes(config, _FACTORY))
    if not factories:
        raise ConfigError(
            f"--config-name: {options.config_name} holds no node with _target_: {_FACTORY}. "
            "Type +optimizer=adamw_groups"
        )
    # Of several, stages belong to those nearest the top: the others are other phases' (`pretrain.optimizer`).
    nearest_top = min(key.count(".") for key, _ in factories)
    for key, node in factories:
        factory = _instantiate(node)
        console.print(f"[bold]{key}[/bold]: {factory.name}")
        console.print(factory.explain(module))
        for place, stages in _nodes(config, _UNFREEZE) if key.count(".") == nearest_top else ():
            console.print(f"[bold]{place}[/bold]")
            console.print(_instantiate(stages).explain(module, factory))


def _compose(config_dir: Path, config_name: str, overrides: Sequence[str]) -> DictConfig:
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if not config_dir.is_dir():
        raise ConfigError(f"--config-dir: there is no folder {config_dir}")
    try:
        with initialize_config_dir(str(config_dir.absolute()), version_base="1.3"):
            return compose(config_name, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(str(error)) from error


def _module(config: DictConfig, key: str) -> Any:
    from omegaconf import OmegaConf
    from torch import nn

    node = OmegaConf.select(config, key)
    if node is None or "_target_" not in node:
        keys = ", ".join(place for place, _ in _nodes(config, None))
        raise ConfigError(f"--module: {key} is no node with a _target_. Such nodes are: {keys or 'none'}")
    module = _instantiate(node)
    if not isinstance(module, nn.Module):
        raise ConfigError(f"--module: {key} makes a {type(module).__name__}, not a torch.nn.Module")
    return module


def _nodes(config: Any, target: str | None, place: str = "") -> Iterator[tuple[str, Any]]:
    """`(key, node)` of each node of a config with this `_target_`; any where it is None."""
    from omegaconf import DictConfig, ListConfig, OmegaConf

    if isinstance(config, DictConfig) and "_target_" in config and target in (None, config["_target_"]):
        yield place, config
    keys: list[Any] = list(range(len(config))) if isinstance(config, ListConfig) else []
    if isinstance(config, DictConfig):
        keys = list(config)
    for key in keys:
        if not OmegaConf.is_missing(config, key) and not OmegaConf.is_interpolation(config, key):
            yield from _nodes(config[key], target, f"{place}.{key}" if place else str(key))


def _instantiate(node: Any) -> Any:
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate
    from omegaconf.errors import OmegaConfBaseException

    try:
        return instantiate(node)
    except InstantiationException as error:
        if isinstance(error.__cause__, ConfigError):
            raise error.__cause__ from None
        raise ConfigError(str(error)) from error
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from error


if __name__ == "__main__":
    sys.exit(main())
