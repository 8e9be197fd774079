"""`list` and `show`: the available optimizers, and the details of one; without torch."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table as RichTable

from ..catalog.decay import DECAY_MODES
from ..catalog.info import OptimizerInfo
from ..catalog.registry import list_optimizers, optimizer_info
from ..core.config_values import to_yaml
from ..core.errors import ConfigError, format_choices


def print_list(console: Console, pattern: str) -> None:
    """Print a table with a row for each optimizer.

    Args:
        console: to print to.
        pattern: a glob on the name.

    Raises:
        ConfigError: no optimizer matches.
    """
    names = list_optimizers(pattern)
    if not names:
        raise ConfigError(f"no optimizer matches {pattern!r}.{format_choices(pattern, list_optimizers())}")
    table = RichTable("name", "summary", "paper", "weight decay", "state", "bytes")
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
    console.print("bytes: of state per float32 parameter, with the defaults", markup=False)


def print_optimizer(console: Console, name: str) -> None:
    """Print an optimizer's equations, paper, class, state, weight decay modes and hyperparameters.

    Args:
        console: to print to.
        name: its name in the registry.

    Raises:
        ConfigError: there is no such optimizer.
    """
    info = optimizer_info(name)
    console.print(f"[bold]{info.name}[/bold]: {info.summary}")
    console.print("update rule")
    for line in info.equations:
        console.print(f"    {line}", markup=False)
    console.print(f"paper: {info.paper}")
    console.print(f"class: {_format_class(info)}", markup=False)
    console.print(f"state per parameter: {_format_state(info)}", markup=False)
    console.print(f"weight decay{'' if info.decay_modes else ': none'}")
    for mode in info.decay_modes:
        default = " (the default)" if mode == info.decay else ""
        console.print(f"    {mode:10} {DECAY_MODES[mode]}{default}", markup=False)
    if info.evaluations > 1:
        console.print(
            f"a step evaluates the model {info.evaluations} times, so it cannot be used with other optimizers"
        )
    if info.single_group:
        console.print("takes one param group only")
    if info.matrices_only:
        console.print("takes 2-D parameters only")
    table = RichTable("hyperparameter", "default", "allowed", "in a rule", "description")
    for name, spec in info.hyperparameters.items():
        allowed = "yes" if spec.per_group and not info.single_group else "no"
        table.add_row(name, to_yaml(spec.default), spec.describe(), allowed, spec.help)
    console.print(table, markup=False)


def _format_class(info: OptimizerInfo) -> str:
    path = info.path.replace(":", ".")
    if not info.own or info.is_native_only:
        return path
    return f"{path}; for {', '.join(sorted(info.own_only - {'fused'}))}: {info.own.replace(':', '.')}"


def _format_state(info: OptimizerInfo) -> str:
    if info.single_group:
        return "the last history_size steps and gradient differences"
    if info.factored:
        return f"{', '.join(info.buffers)}; one row and one column for a matrix, the full size for other shapes"
    buffers = []
    for name, option in info.buffers.items():
        size = " (a number for each tensor or block)" if name in info.reduced else ""
        buffers.append(f"{name} (with {option})" if option and not info.defaults[option] else name + size)
    num_bytes = info.state_bytes(info.defaults)
    max_bytes = 4 * len(info.buffers.keys() - info.reduced)
    limit = f", at most {max_bytes}" if max_bytes != num_bytes else ""
    return f"{', '.join(buffers) or 'none'}; {num_bytes} bytes per float32 parameter{limit}"
