"""`list` and `show`: the optimizers there are, and all there is to know of one; without torch."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table as RichTable

from ..catalog.decay import DECAYS
from ..catalog.info import OptimizerInfo
from ..catalog.registry import list_optimizers, optimizer_info
from ..core.config_values import to_yaml
from ..core.errors import ConfigError, choices


def print_list(console: Console, pattern: str) -> None:
    """A line for each optimizer.

    Args:
        console: where to.
        pattern: a glob on the name.

    Raises:
        ConfigError: it matches none.
    """
    names = list_optimizers(pattern)
    if not names:
        raise ConfigError(f"no optimizer matches {pattern!r}.{choices(pattern, list_optimizers())}")
    table = RichTable("name", "what it is", "paper", "weight decay", "state", "bytes")
    for name in names:
        try:
            info = optimizer_info(name)
        except ConfigError as error:  # registered by a package that cannot be imported
            table.add_row(name, str(error), "", "", "", "")
            continue
        size = info.state_bytes(info.defaults)
        table.add_row(
            name, info.summary, info.paper, info.decay, ", ".join(info.buffers), "" if size is None else str(size)
        )
    console.print(table)
    console.print("bytes: of state for each float32 parameter, under the defaults", markup=False)


def print_optimizer(console: Console, name: str) -> None:
    """One optimizer: its equations, paper, state, weight decay and hyperparameters.

    Args:
        console: where to.
        name: in the registry.

    Raises:
        ConfigError: there is none of that name.
    """
    info = optimizer_info(name)
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
    if info.evaluations > 1:
        console.print(f"a step evaluates the model {info.evaluations} times: no other optimizer can stand beside it")
    if info.single_group:
        console.print("takes one param group only")
    if info.matrices_only:
        console.print("takes 2-D parameters only")
    table = RichTable("hyperparameter", "default", "allowed", "in a rule", "what it is")
    for name, spec in info.hyperparameters.items():
        allowed = "yes" if spec.per_group and not info.single_group else "no"
        table.add_row(name, to_yaml(spec.default), spec.describe(), allowed, spec.help)
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
        smaller = " (a number for each tensor or block)" if name in info.reduced else ""
        parts.append(f"{name} (with {needed})" if needed and not info.defaults[needed] else name + smaller)
    size = info.state_bytes(info.defaults)
    most = 4 * len(info.buffers.keys() - info.reduced)
    least = f"{size} bytes for each float32 parameter"
    return f"{', '.join(parts) or 'none'}; {least}" + (f", at most {most}" if most != size else "")
