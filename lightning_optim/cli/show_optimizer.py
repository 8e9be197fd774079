"""`show` of an optimizer: its equations, paper, state, weight decay and hyperparameters; without torch."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from ..catalog.decay import DECAY_MODES
from ..catalog.info import OptimizerInfo
from ..catalog.registry import optimizer_info
from ..core.column_widths import Column
from ..core.config_values import to_yaml
from ..core.hyperparameters import Hyperparameter
from ..core.text_table import TextTable

_HYPERPARAMETER_COLUMNS = (
    Column("hyperparameter", "exact"),
    *(Column(name, "text") for name in ("default", "allowed", "in a rule", "description")),
)


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
        of_torch = "; torch's class: of exactly two" if info.has_torch_class else ""
        console.print(f"takes matrices only: parameters of two or more dimensions{of_torch}")
        console.print("has no kernel: it multiplies matrices, in stacks of one shape; fused: true is refused")
    rows = []
    for name, spec in info.hyperparameters.items():
        allowed = "yes" if spec.per_group and not info.single_group else "no"
        rows.append((name, to_yaml(spec.default), spec.describe(), allowed, spec.help))
    console.print(TextTable(columns=_HYPERPARAMETER_COLUMNS, rows=tuple(rows)), crop=False)


def describe_optimizer(name: str) -> dict[str, Any]:
    """What `show --json` prints of an optimizer.

    Args:
        name: its name in the registry.

    Raises:
        ConfigError: there is no such optimizer.
    """
    info = optimizer_info(name)
    per_group = {key: spec.per_group and not info.single_group for key, spec in info.hyperparameters.items()}
    return {
        "kind": "optimizer",
        "name": info.name,
        "summary": info.summary,
        "equations": info.equations,
        "paper": info.paper,
        "class": info.path.replace(":", "."),
        "own_class": info.own.replace(":", ".") or None,
        "state": list(info.buffers),
        "bytes_per_parameter": info.state_bytes(info.defaults),
        "weight_decay": info.decay,
        "weight_decay_modes": info.decay_modes,
        "evaluations_per_step": info.evaluations,
        "single_group": info.single_group,
        "matrices_only": info.matrices_only,
        "hyperparameters": [
            {**describe_hyperparameter(key, spec), "in_a_rule": per_group[key]}
            for key, spec in info.hyperparameters.items()
        ],
    }


def describe_hyperparameter(name: str, spec: Hyperparameter) -> dict[str, Any]:
    """A hyperparameter of an optimizer or a schedule; a required one has no default, and so null."""
    return {
        "name": name,
        "required": spec.required,
        "default": None if spec.required else spec.default,
        "allowed": spec.describe(),
        "description": spec.help,
    }


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
        size = " (a number for each tensor or block)" if name in info.reduced - info.factors else ""
        buffers.append(f"{name} (with {option})" if option and not info.defaults[option] else name + size)
    if info.factors:
        return f"{', '.join(buffers)}; of these {', '.join(sorted(info.factors))} are square, of the size of a side"
    num_bytes = info.state_bytes(info.defaults)
    max_bytes = 4 * len(info.buffers.keys() - info.reduced)
    limit = f", at most {max_bytes}" if max_bytes != num_bytes else ""
    return f"{', '.join(buffers) or 'none'}; {num_bytes} bytes per float32 parameter{limit}"
