"""Several algorithms in one optimizer under Lightning: bitwise as two optimizers, resumed, monitored and staged.

On several ranks: `test_ddp.py` and `test_sharded.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn

from lightning_optim import (
    ConfigError,
    OptimizerFactory,
    OptimizerMonitor,
    RNGState,
    SchedulerFactory,
    StagedUnfreeze,
    configure_optimizers,
)
from lightning_optim.optim.composite import Composite
from tests.support.cases import every
from tests.support.equality import equal
from tests.support.training import BATCHES, Loader, Net, StepTrace, fit

HIDDEN = {"params": "backbone", "kinds": ["matrix"], "optimizer": "muon", "lr": 0.02}
NORMS = {"params": "backbone.1", "weight_decay": 0.0}
SAVED = {"hidden": HIDDEN, "norms": NORMS}
RULES: dict[str, dict[str, Any]] = {
    "added": {**SAVED, "head": {"params": "head", "lr_scale": 2.0}},
    "renamed": {"matrices": HIDDEN, "a_norm": NORMS},
    "split": {**SAVED, "biases": {"kinds": ["bias"], "lr_scale": 1.0}},
}
SCHEDULERS: dict[str, SchedulerFactory | None] = {
    "constant": None,
    "warmup_cosine": SchedulerFactory("warmup_cosine", warmup_steps=2),
    "one_cycle": SchedulerFactory("one_cycle"),
    "exponential by epoch": SchedulerFactory("exponential", interval="epoch", gamma=0.5),
}


def module_for(rules: dict[str, Any] = SAVED, scheduler: SchedulerFactory | None = None, **options: Any) -> Net:
    factory = OptimizerFactory("adamw", lr=0.01, groups=rules)
    torch.manual_seed(0)
    return Net(lambda module: configure_optimizers(module, factory, scheduler), **options)


def read_weights(module: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def read_states(optimizer: Any, module: nn.Module) -> dict[str, Any]:
    return {name: {k: v.clone() for k, v in optimizer.state[p].items()} for name, p in module.named_parameters()}


def read_lrs(optimizer: Any, module: nn.Module) -> dict[str, float]:
    lrs = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    return {name: lrs[id(p)] for name, p in module.named_parameters()}


class FullTrace(StepTrace):
    """After each step, and in `start` before the first: the weights, and states and lrs by parameter."""

    def __init__(self) -> None:
        super().__init__(
            lambda trainer, module: (
                read_weights(module),
                read_states(trainer.optimizers[0], module),
                read_lrs(trainer.optimizers[0], module),
            )
        )
        self.start: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        assert type(trainer.optimizers[0]) is Composite
        self.start = self.read(trainer, pl_module)

    @property
    def lrs(self) -> list[dict[str, float]]:
        return [lrs for *_, lrs in self.steps]


# As two optimizers


@pytest.mark.parametrize(
    ("accumulate", "clip", "batches"),
    every(
        product([1, 4], [None, 0.05], [8, 10]),
        fast=["accumulate 4, clip 0.05, batches 10", "accumulate 1, clip None, batches 8"],
        id=lambda case: "accumulate {}, clip {}, batches {}".format(*case),
    ),
)
def test_a_fit_is_bitwise_a_plain_loop_over_two_optimizers(tmp_path, accumulate, clip, batches) -> None:
    """With 10 batches, the last accumulation of an epoch is shorter than the others."""
    trace = FullTrace()
    fit(
        module_for(), tmp_path, trace, epochs=2, loader=Loader(batches), accumulate_grad_batches=accumulate,
        gradient_clip_val=clip,
    )  # fmt: skip
    other, expected = module_for(), []
    named = list(other.named_parameters())
    hidden = [p for name, p in named if name.startswith("backbone") and p.ndim == 2]
    norms = list(other.backbone[1].parameters())
    rest = [p for _, p in named if not any(p is taken for taken in (*hidden, *norms))]
    optimizers = [
        torch.optim.Muon(hidden, lr=0.02),
        torch.optim.AdamW([{"params": rest}, {"params": norms, "weight_decay": 0.0}], lr=0.01, fused=True),
    ]
    loader, num_clipped = Loader(batches), 0
    for _ in range(2):
        for index, (inputs, targets) in enumerate(loader):
            (nn.functional.cross_entropy(other(inputs), targets) / accumulate).backward()
            if (index + 1) % accumulate and index + 1 < batches:
                continue
            if clip:
                # In the order of the groups, as Lightning clips: the norm is a sum.
                num_clipped += nn.utils.clip_grad_norm_([*hidden, *rest, *norms], clip) > clip
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            expected.append(read_weights(other))
    weights = [weights for weights, *_ in trace.steps]
    assert len(weights) == 2 * math.ceil(batches / accumulate)
    assert [equal(a, b) for a, b in zip(weights, expected, strict=True)] == [True] * len(expected)
    assert bool(num_clipped) is bool(clip)


# Resumed


class SameOrder(Loader):
    """The same order in every epoch: after an epoch's end, Lightning asks a resumed loader once more than before."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.batch %= len(self)
        while self.batch < len(self):
            self.batch += 1
            yield self.inputs[self.batch - 1], self.targets[self.batch - 1]


CHECKPOINTS = {
    "mid-epoch": ("step=3.ckpt", 3, Loader),
    "last step of an epoch": ("step=4.ckpt", 4, Loader),
    "late": ("step=7.ckpt", 7, Loader),
    "end of an epoch": ("epoch=1.ckpt", 4, SameOrder),
}
"""By kind: the file, the optimizer steps before it, and the loader of both fits."""

FullRun = tuple[Path, FullTrace]
RunFull = Callable[[str, type[Loader]], FullRun]


@pytest.fixture(scope="module")
def run_full(tmp_path_factory: pytest.TempPathFactory) -> RunFull:
    """Runs 8 steps under a scheduler; writes `step=<n>.ckpt` after each and `epoch=<n>.ckpt` after each epoch."""

    @cache
    def run(scheduler: str, loader: type[Loader]) -> FullRun:
        folder, trace = tmp_path_factory.mktemp("full"), FullTrace()
        by_epoch = ModelCheckpoint(folder, "{epoch}", every_n_epochs=1, save_top_k=-1, save_on_train_epoch_end=True)
        module = module_for(SAVED, SCHEDULERS[scheduler], dropout=0.3)
        callbacks = (trace, RNGState(), by_epoch)
        fit(module, folder, *callbacks, save=True, accumulate_grad_batches=2, loader=loader())
        assert len(trace.steps) == 8
        return folder, trace

    return run


def resume(folder: Path, checkpoint: Path, rules: dict[str, Any], scheduler: str, loader: type[Loader]) -> FullTrace:
    trace, module = FullTrace(), module_for(rules, SCHEDULERS[scheduler], dropout=0.3)
    # Another seed: what is not restored shows.
    arguments = {"accumulate_grad_batches": 2, "ckpt_path": checkpoint, "seed": 2, "loader": loader()}
    fit(module, folder, trace, RNGState(), **arguments)
    return trace


@pytest.mark.parametrize("scheduler", every(SCHEDULERS, fast=["warmup_cosine"]))
def test_resumes_bitwise(tmp_path, scheduler, run_full) -> None:
    for name, (file, step, loader) in CHECKPOINTS.items():
        folder, full = run_full(scheduler, loader)
        resumed = resume(tmp_path, folder / file, SAVED, scheduler, loader)
        assert len(resumed.steps) == 8 - step
        assert equal(resumed.steps, full.steps[step:]), name


@pytest.mark.parametrize(
    ("rules", "scheduler", "checkpoint"),
    every(
        product(RULES, SCHEDULERS, CHECKPOINTS),
        fast=[f"{rules}, warmup_cosine, mid-epoch" for rules in RULES] + ["split, warmup_cosine, end of an epoch"],
        id=", ".join,
    ),
)
def test_under_edited_rules_every_state_follows_its_parameter(tmp_path, rules, scheduler, checkpoint, run_full) -> None:
    file, step, loader = CHECKPOINTS[checkpoint]
    folder, full = run_full(scheduler, loader)
    resumed = resume(tmp_path, folder / file, RULES[rules], scheduler, loader)
    assert equal(resumed.start[:2], full.steps[step - 1][:2])
    if rules != "added":
        assert equal(resumed.steps, full.steps[step:])
        return
    for lrs, others in zip(resumed.lrs, full.lrs[step:], strict=True):
        for parameter, lr in others.items():
            # The factor is rounded once.
            expected = 2 * lr if parameter.startswith("head") else lr
            assert lrs[parameter] == pytest.approx(expected, rel=1e-14), parameter


def test_rules_that_change_a_parameter_s_algorithm_are_refused_by_its_name(tmp_path, run_full) -> None:
    folder, _ = run_full("warmup_cosine", Loader)
    lion = {"hidden": {**HIDDEN, "optimizer": "lion", "lr": 0.01}, "norms": NORMS}
    with pytest.raises(ConfigError, match=r"backbone\.0\.weight"):
        resume(tmp_path, folder / "step=3.ckpt", lion, "warmup_cosine", Loader)


def test_the_schedule_of_a_rule_replaces_the_scheduler_and_resumes(tmp_path) -> None:
    rules = {**SAVED, "head": {"params": "head", "schedule": "constant"}}
    scheduler = SCHEDULERS["warmup_cosine"]
    trace = FullTrace()
    fit(module_for(rules, scheduler), tmp_path, trace, save=True)
    assert {lrs["head.bias"] for lrs in trace.lrs} == {0.01}
    assert len({lrs["backbone.0.bias"] for lrs in trace.lrs}) > 10
    resumed = FullTrace()
    fit(module_for(rules, scheduler), tmp_path / "resumed", resumed, ckpt_path=tmp_path / "step=6.ckpt", seed=2)
    assert equal(resumed.steps, trace.steps[6:])


def test_the_schedule_of_a_rule_needs_no_scheduler(tmp_path) -> None:
    rules = {**SAVED, "head": {"params": "head", "schedule": {"name": "warmup_cosine"}}}
    trace = FullTrace()
    fit(module_for(rules), tmp_path, trace)
    cosine = [0.01 * (0.5 + 0.5 * math.cos(math.pi * t / 16)) for t in range(16)]
    assert [lrs["head.bias"] for lrs in trace.lrs] == pytest.approx(cosine, rel=1e-12)  # rounded in another order
    assert {lrs["backbone.0.weight"] for lrs in trace.lrs} == {0.02}


# With the callbacks


def test_the_monitor_reads_each_group_by_its_own_algorithm(tmp_path) -> None:
    def read(trainer: Trainer, module: Any) -> dict[str, float]:
        optimizer, values = trainer.optimizers[0], {}
        for group in optimizer.param_groups:
            values[f"optim/lr/{group['name']}"] = group["lr"]
            for key in ("momentum_buffer", "exp_avg", "exp_avg_sq"):
                buffers = [optimizer.state[p][key] for p in group["params"] if key in optimizer.state[p]]
                if buffers:
                    squares = sum(float(buffer.double().square().sum()) for buffer in buffers)
                    values[f"optim/norm/{key}/{group['name']}"] = math.sqrt(squares)
        return values

    trace, monitor = StepTrace(read), OptimizerMonitor(1, to_callback_metrics=True, update_norm=True, cosine=True)
    trainer = fit(module_for(scheduler=SCHEDULERS["one_cycle"]), tmp_path, monitor, trace)
    logged = {key: float(value) for key, value in trainer.callback_metrics.items()}
    expected = trace.steps[-1]
    assert expected.keys() <= logged.keys()
    assert "optim/norm/momentum_buffer/hidden" in expected and "optim/norm/exp_avg/hidden" not in expected
    # float32 sums, and float32 metrics.
    assert {key: logged[key] for key in expected} == pytest.approx(expected, rel=1e-5)
    assert {"optim/momentum/hidden", "optim/beta1/default", "optim/norm/update/hidden"} <= set(logged)
    assert "optim/beta1/hidden" not in logged and "optim/momentum/default" not in logged


@pytest.mark.parametrize(
    ("rules", "scheduler"),
    [
        pytest.param(SAVED, SCHEDULERS["one_cycle"], id="one_cycle"),
        pytest.param(
            {**SAVED, "head": {"params": "head", "schedule": "constant"}},
            SCHEDULERS["warmup_cosine"],
            id="schedule of a rule",
        ),
    ],
)
def test_learning_rate_monitor_logs_every_group(tmp_path, rules, scheduler) -> None:
    monitor, logger = LearningRateMonitor(), CSVLogger(tmp_path)
    fit(module_for(rules, scheduler), tmp_path, monitor, logger=logger, log_every_n_steps=1)
    assert {key.rpartition("/")[2] for key in monitor.lrs} == {"hidden", "default", *set(rules) - {"hidden"}}
    assert all(len(values) == 4 * BATCHES for values in monitor.lrs.values())


# Staged

PLAN: dict[str, Any] = {
    "head": {"params": "head"},
    "norms": {"params": ["backbone.1", "*.bias"], "at": {"step": 2}},
    "backbone": {"params": "backbone", "at": {"epoch": 1}, "lr_scale": 0.5, "warmup_steps": 3},
}
STAGED = {
    "constant": (SAVED, None),
    "warmup_cosine": (SAVED, SCHEDULERS["warmup_cosine"]),
    "one_cycle": (SAVED, SCHEDULERS["one_cycle"]),
    "schedule of a rule": (
        {**SAVED, "head": {"params": "head", "schedule": "constant"}},
        SCHEDULERS["warmup_cosine"],
    ),
}
# Before, at and after each thaw; in the warm-up; late.
RESUMED_STEPS = (1, 2, 3, 4, 5, 9)

StagedRun = tuple[Trainer, Net, StepTrace]


def run_staged(folder: Path, rules: Any, scheduler: Any, ckpt_path: Path | None = None) -> StagedRun:
    module = module_for(rules, scheduler, dropout=0.3)
    trace = StepTrace(
        lambda trainer, module: (
            {group["name"]: (group["algorithm"], group["lr"]) for group in trainer.optimizers[0].param_groups},
            read_weights(module),
        )
    )
    callbacks = (StagedUnfreeze(PLAN), OptimizerMonitor(1, to_callback_metrics=True), RNGState(), trace)
    arguments = {"ckpt_path": ckpt_path, "save": ckpt_path is None, "seed": 1 if ckpt_path is None else 2}
    return fit(module, folder, *callbacks, epochs=3, **arguments), module, trace


@pytest.fixture(scope="module")
def run_staged_full(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, StagedRun]]:
    @cache
    def run(name: str) -> tuple[Path, StagedRun]:
        folder = tmp_path_factory.mktemp("staged")
        return folder, run_staged(folder, *STAGED[name])

    return run


def test_adamw_trains_the_head_first_and_muon_the_backbone_later(run_staged_full) -> None:
    _, (trainer, _, trace) = run_staged_full("constant")
    algorithms = [{name: algorithm for name, (algorithm, _) in groups.items()} for groups, _ in trace.steps]
    head = {"head": "adamw"}
    norms = {name: algorithm for name, algorithm in algorithms[2].items() if name != "head"}
    late = {name: algorithm for name, algorithm in algorithms[-1].items() if name not in algorithms[2]}
    assert algorithms[:2] == [head] * 2
    assert algorithms[2:BATCHES] == [{**head, **norms}] * (BATCHES - 2)
    assert algorithms[BATCHES:] == [{**head, **norms, **late}] * 2 * BATCHES
    assert set(norms.values()) == {"adamw"}
    assert set(late.values()) == {"muon"} and all(name.startswith("backbone") for name in late)
    late_lrs = [{lr for name, (_, lr) in groups.items() if name in late} for groups, _ in trace.steps[BATCHES:]]
    assert late_lrs[:4] == [{0.02 * (0.5 * factor)} for factor in (1 / 3, 2 / 3, 1.0, 1.0)]
    matrices = [weights[0] for _, weights in trace.steps[:BATCHES]]
    assert all(torch.equal(matrix, matrices[0]) for matrix in matrices), "Muon's matrix was trained too early"
    assert {f"optim/norm/momentum_buffer/{name}" for name in late} <= set(trainer.callback_metrics)


@pytest.mark.slow
@pytest.mark.parametrize("name", every(STAGED, fast=["schedule of a rule"]))
def test_stages_resume_bitwise(tmp_path, name, run_staged_full) -> None:
    folder, (trainer, module, trace) = run_staged_full(name)
    for step in RESUMED_STEPS:
        other, resumed, rest = run_staged(tmp_path, *STAGED[name], folder / f"step={step}.ckpt")
        assert equal(rest.steps, trace.steps[step:]), step
        assert equal(module.state_dict(), resumed.state_dict()), step
        assert equal(*(_comparable(each.optimizers[0].state_dict()) for each in (trainer, other))), step


def _comparable(state_dict: dict[str, Any]) -> dict[str, Any]:
    """Without the default that torch gives only to groups that join after a load."""
    groups = [{k: v for k, v in group.items() if k != "differentiable"} for group in state_dict["param_groups"]]
    return {**state_dict, "param_groups": groups}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rules", "name"),
    every(
        product(["renamed", "split"], ["constant", "warmup_cosine", "one_cycle"]), fast=["split, constant"],
        id=", ".join,
    ),
)  # fmt: skip
def test_stages_resume_bitwise_under_renamed_and_split_rules(tmp_path, rules, name, run_staged_full) -> None:
    folder, (_, module, trace) = run_staged_full(name)
    for step in (1, 3, 5, 9):
        _, resumed, rest = run_staged(tmp_path, RULES[rules], STAGED[name][1], folder / f"step={step}.ckpt")
        assert equal([weights for _, weights in rest.steps], [weights for _, weights in trace.steps[step:]]), step
        assert equal(module.state_dict(), resumed.state_dict()), step
