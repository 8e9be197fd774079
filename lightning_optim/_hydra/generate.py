"""Generates `conf/optimizer/<name>.yaml`, `conf/scheduler/<name>.yaml` and `optim/__init__.pyi` from the catalogs.

`python -m lightning_optim._hydra.generate` writes the files; a test compares them with what it would write.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..catalog.built_in import BUILT_IN
from ..catalog.info import OptimizerInfo
from ..core.config_values import to_yaml
from ..core.hyperparameters import Hyperparameter
from ..schedule.catalog import SCHEDULES, ScheduleInfo
from .stub import stub

CONF = Path(__file__).parents[2] / "conf"
STUB = Path(__file__).parents[1] / "optim" / "__init__.pyi"

READY_CONFIGS = {
    "adamw_groups": (
        "adamw",
        "Adam with decoupled weight decay, and rules for param groups.",
        ("no_decay",),
        {},
    ),
    "adamw_llrd": (
        "adamw",
        "AdamW with layer-wise lr decay: the closer a layer is to the input, the smaller its lr (arXiv:1801.06146).",
        ("no_decay", "layer_decay"),
        {},
    ),
    "muon_adamw": (
        "adamw",
        "Muon for the backbone's matrices, AdamW for the rest.",
        ("no_decay", "muon_hidden"),
        {},
    ),
    "ranger": (
        "radam",
        "RAdam with lookahead, known as Ranger.",
        (),
        {"lookahead": {"k": 6, "alpha": 0.5}},
    ),
}
"""By name: the algorithm, a summary, presets from `optimizer/groups`, and values that differ from the defaults."""

# Schedules that step once an epoch by default.
_BY_EPOCH = ("reduce_on_plateau",)
# Values for required arguments, which have no default.
_STARTING_POINTS = {
    "base_lr": 0.0,
    "gamma": 0.999,
    "step_size": 1000,
    "T_0": 1000,
    "monitor": "val/loss",
    "warmup_steps": 4000,
}
_STARTING_LISTS = {
    "multi_step": {"milestones": "[1000, 2000]"},
    "sequential": {
        "schedulers": "[{name: linear, total_iters: 100}, {name: cosine_annealing}]",
        "milestones": "[100]",
    },
    "chained": {"schedulers": "[{name: linear, total_iters: 100}, {name: cosine_annealing}]"},
}


def generate_configs() -> Iterator[tuple[Path, str]]:
    """`(path below conf/, content)` for each generated file."""
    for info in BUILT_IN.values():
        yield Path("optimizer", f"{info.name}.yaml"), _format_optimizer(info)
    for name, (algorithm, summary, presets, values) in READY_CONFIGS.items():
        yield Path("optimizer", f"{name}.yaml"), _format_ready_config(BUILT_IN[algorithm], summary, presets, values)
    for name, schedule in SCHEDULES.items():
        if not schedule.takes_function:
            yield Path("scheduler", f"{name}.yaml"), _format_scheduler(schedule)


def _format_optimizer(info: OptimizerInfo) -> str:
    return _format_file(info.summary, [*_optimizer_lines(info, {}), "groups: {}"])


def _format_ready_config(
    info: OptimizerInfo, summary: str, presets: Sequence[str], values: Mapping[str, object]
) -> str:
    if not presets:
        return _format_file(summary, [*_optimizer_lines(info, values), "groups: {}"])
    defaults = ["defaults:", f"  - groups: [{', '.join(presets)}]", "  - _self_", ""]
    return _format_file(summary, [*defaults, *_optimizer_lines(info, values)])


def _optimizer_lines(info: OptimizerInfo, values: Mapping[str, object]) -> list[str]:
    return [
        "_target_: lightning_optim.OptimizerFactory",
        _NOT_PARTIAL,
        f"name: {info.name}",
        "implementation: auto  # auto: torch's class if it supports the settings, else ours; or: torch, own",
        *_hyperparameter_lines(info.hyperparameters, values),
    ]


def _format_scheduler(info: ScheduleInfo) -> str:
    lists = _STARTING_LISTS.get(info.name, {})
    hyperparameters = {
        key: spec for key, spec in info.hyperparameters.items() if key not in lists and key != "total_steps"
    }
    lines = [
        "_target_: lightning_optim.SchedulerFactory",
        _NOT_PARTIAL,
        f"name: {info.name}",
        f"interval: {'epoch' if info.name in _BY_EPOCH else 'step'}",
        f"warmup_steps: {_STARTING_POINTS['warmup_steps'] if info.needs_warmup else 0}",
        "total_steps: null  # null: the length of the run",
        *(f"{key}: {value}" for key, value in lists.items()),
        *_hyperparameter_lines(hyperparameters, _STARTING_POINTS),
    ]
    return _format_file(info.summary, lines)


def _hyperparameter_lines(
    hyperparameters: Mapping[str, Hyperparameter], starting_points: Mapping[str, object]
) -> list[str]:
    lines = []
    for key, spec in hyperparameters.items():
        has_no_default = spec.required or (spec.optional and spec.default is None)
        value = starting_points[key] if key in starting_points and has_no_default else spec.default
        lines.append(f"{key}: {to_yaml(value)}" + (f"  # {spec.help}" if spec.help else ""))
    return lines


_NOT_PARTIAL = "_partial_: false  # explicit: overrides a true in a config that this one is merged over"


def _format_file(summary: str, lines: list[str]) -> str:
    head = [f"# {summary}", "# Generated by `python -m lightning_optim._hydra.generate`: edit the catalog instead."]
    return "\n".join([*head, *lines]) + "\n"


def main() -> None:
    """Write all generated files."""
    for path, content in generate_configs():
        (CONF / path).parent.mkdir(parents=True, exist_ok=True)
        (CONF / path).write_text(content, encoding="utf-8")
    STUB.write_text(stub(), encoding="utf-8")


if __name__ == "__main__":
    main()
