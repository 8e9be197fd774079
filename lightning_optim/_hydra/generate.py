"""Writes `conf/optimizer/<name>.yaml`, `conf/scheduler/<name>.yaml` and `optim/__init__.pyi` from the registries.

`python -m lightning_optim._hydra.generate` writes the files; a test holds them equal to what it would write.
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

READY = {
    "adamw_groups": (
        "adamw",
        "Adam with decoupled weight decay, and rules for param groups.",
        ("no_decay",),
        {},
    ),
    "adamw_llrd": (
        "adamw",
        "AdamW with layer-wise lr decay: the nearer a layer is to the input, the smaller its lr (arXiv:1801.06146).",
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
"""Ready configs: the algorithm, what it is, presets out of `optimizer/groups`, and values of its own."""

# With this default, a schedule is of use by epochs only.
_BY_EPOCH = ("reduce_on_plateau",)
# What a schedule cannot do without has no default: these are starting points.
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


def configs() -> Iterator[tuple[Path, str]]:
    """`(path below conf/, content)` of each generated file."""
    for info in BUILT_IN.values():
        yield Path("optimizer", f"{info.name}.yaml"), _optimizer(info)
    for name, (algorithm, summary, presets, values) in READY.items():
        yield Path("optimizer", f"{name}.yaml"), _ready(BUILT_IN[algorithm], summary, presets, values)
    for name, schedule in SCHEDULES.items():
        if not schedule.function:
            yield Path("scheduler", f"{name}.yaml"), _scheduler(schedule)


def _optimizer(info: OptimizerInfo) -> str:
    return _text(info.summary, [*_optimizer_lines(info, {}), "groups: {}"])


def _ready(info: OptimizerInfo, summary: str, presets: Sequence[str], values: Mapping[str, object]) -> str:
    if not presets:
        return _text(summary, [*_optimizer_lines(info, values), "groups: {}"])
    defaults = ["defaults:", f"  - groups: [{', '.join(presets)}]", "  - _self_", ""]
    return _text(summary, [*defaults, *_optimizer_lines(info, values)])


def _optimizer_lines(info: OptimizerInfo, values: Mapping[str, object]) -> list[str]:
    head = ["_target_: lightning_optim.OptimizerFactory", _NO_PARTIAL, f"name: {info.name}"]
    whose = "implementation: auto  # auto: torch's class where it can do what is asked, else ours; or: torch, own"
    return [*head, whose, *_lines(info.hyperparameters, values)]


def _scheduler(info: ScheduleInfo) -> str:
    lists = _STARTING_LISTS.get(info.name, {})
    head = [
        "_target_: lightning_optim.SchedulerFactory",
        _NO_PARTIAL,
        f"name: {info.name}",
        f"interval: {'epoch' if info.name in _BY_EPOCH else 'step'}",
        f"warmup_steps: {_STARTING_POINTS['warmup_steps'] if info.needs_warmup else 0}",
        "total_steps: null  # null: the trainer's",
    ]
    rest = [f"{key}: {value}" for key, value in lists.items()]
    others = {key: spec for key, spec in info.hyperparameters.items() if key not in lists and key != "total_steps"}
    return _text(info.summary, [*head, *rest, *_lines(others, _STARTING_POINTS)])


def _lines(hyperparameters: Mapping[str, Hyperparameter], starting_points: Mapping[str, object]) -> list[str]:
    lines = []
    for key, spec in hyperparameters.items():
        value = starting_points[key] if key in starting_points and _open(spec) else spec.default
        lines.append(f"{key}: {to_yaml(value)}" + (f"  # {spec.help}" if spec.help else ""))
    return lines


def _open(spec: Hyperparameter) -> bool:
    return spec.required or (spec.optional and spec.default is None)


_NO_PARTIAL = "_partial_: false  # explicit: a block merged over must not leave it true"


def _text(summary: str, lines: list[str]) -> str:
    head = [f"# {summary}", "# Written by `python -m lightning_optim._hydra.generate`: edit the registry instead."]
    return "\n".join([*head, *lines]) + "\n"


def main() -> None:
    """Write them all."""
    for path, content in configs():
        (CONF / path).parent.mkdir(parents=True, exist_ok=True)
        (CONF / path).write_text(content, encoding="utf-8")
    STUB.write_text(stub(), encoding="utf-8")


if __name__ == "__main__":
    main()
