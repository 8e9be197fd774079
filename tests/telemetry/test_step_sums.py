"""Sums from within a fused step next to reading the tensors once more."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import chain
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory, OptimizerMonitor, configure_optimizers, optim
from lightning_optim.callbacks.step_recorder import StepRecorder
from lightning_optim.groups.plan import Plan
from lightning_optim.optim.base import AdaptiveOptimizer
from lightning_optim.optim.composite import Composite
from lightning_optim.optim.fused.requested_sums import RequestedSums
from lightning_optim.telemetry.inventory import Inventory
from lightning_optim.telemetry.reductions import Reductions
from lightning_optim.telemetry.snapshot import Snapshot
from tests.support.cases import every
from tests.support.optimizer_changes import CHANGES, narrow_a_buffer
from tests.support.tensorboard_events import Curves, fit_with_events
from tests.support.training import BATCHES, Net

CASES: dict[str, dict[str, Any]] = {
    "adamw": {"name": "adamw", "fused": True},
    "loop": {"name": "adamw", "fused": False},
    "decay cautious": {"name": "lion", "fused": True, "weight_decay": 0.1, "cautious_decay": True},
    "rows": {"name": "adam_mini", "fused": True},
    "sums over tensors": {"name": "lamb", "fused": True},
    "two gradients": {"name": "storm", "fused": True},
    "lookahead": {"name": "adamw", "fused": True, "lookahead": {"k": 2, "alpha": 0.5}},
    "skipped": {"name": "adamw", "fused": True, "skip_nonfinite": True},
    "several algorithms": {"name": "adamw", "fused": True, "groups": {"lion": {"params": "2.*", "optimizer": "lion"}}},
    "several kernels": {
        "name": "adamw",
        "fused": True,
        "groups": {"lion": {"params": "2.*", "optimizer": "lion", "fused": True}},
    },
    "with torch's": {
        "name": "lion",
        "implementation": "auto",
        "groups": {"sgd": {"params": "2.*", "optimizer": "sgd"}},
    },
    "bfloat16": {"name": "adamw", "fused": True},
    "masters": {"name": "adamw", "fused": True, "master_weights": True},
    "complex": {"name": "adamw", "fused": True},
}
ACCEPTED_CHANGES = [change for change in CHANGES if change is not narrow_a_buffer]  # such a one has no kernel
FIT_LOOP = SimpleNamespace(epoch_loop=SimpleNamespace(_batches_that_stepped=0))
DTYPES = {"bfloat16": torch.bfloat16, "masters": torch.bfloat16, "complex": torch.complex64}


def build(case: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    dtype = DTYPES.get(case, torch.float32)
    module = nn.Sequential(nn.Linear(300, 7), nn.ReLU(), nn.Linear(7, 40), nn.Linear(40, 1))
    for layer in (module[0], module[2], module[3]):
        for name, param in list(layer.named_parameters()):
            setattr(layer, name, nn.Parameter(param.detach().to(dtype)))
    return module, OptimizerFactory(**({"lr": 0.01, "implementation": "own"} | CASES[case]))(module)


def measure(case: str, monkeypatch: pytest.MonkeyPatch, *, from_kernels: bool) -> list[dict[tuple[str, str], float]]:
    module, optimizer = build(case)
    if not from_kernels:
        for cls in (AdaptiveOptimizer, Composite):
            monkeypatch.setattr(cls, "measure_step", lambda self, requested: ())
    inventory = Inventory(optimizer, Plan.from_optimizer(optimizer, module))
    found = []
    for step in range(4):
        for index, param in enumerate(module.parameters()):
            param.grad = None if index == step else torch.randn_like(param)
        if case == "skipped" and step == 2:
            module[0].bias.grad[0] = torch.nan
        snapshot = Snapshot(inventory, step, update=True)
        snapshot.before_step()
        optimizer.step()
        snapshot.after_step()
        found.append(snapshot.read().values)
    return found


@pytest.mark.parametrize("case", every(CASES, fast=["rows", "lookahead", "with torch's", "masters"]))
def test_they_are_what_reading_the_tensors_gives(case, monkeypatch):
    fused = measure(case, monkeypatch, from_kernels=True)
    read = measure(case, monkeypatch, from_kernels=False)
    # What is read is the less accurate of the two: a difference rounded to bfloat16, a longer sum in float32.
    tolerance = {torch.bfloat16: 1e-3, torch.complex64: 2e-6}.get(DTYPES.get(case), 1e-6)
    for step, expected in zip(fused, read, strict=True):
        assert step == pytest.approx(expected, rel=tolerance, nan_ok=True)


@pytest.fixture
def sizes_read(monkeypatch) -> list[int]:
    """How many elements of each batch are read."""
    sizes = []
    add_all = Reductions.add_all

    def counting(self, requests):
        for batch, _, known in requests:
            left = batch.without([sums.indices for sums in known])[0] if known else batch
            sizes.append(sum(left.sizes))
        add_all(self, requests)

    monkeypatch.setattr(Reductions, "add_all", counting)
    return sizes


def test_nothing_is_read_again(sizes_read):
    module, optimizer = build("adamw")
    inventory = Inventory(optimizer, Plan.from_optimizer(optimizer, module))
    for param in module.parameters():
        param.grad = torch.randn_like(param)
    snapshot = Snapshot(inventory, 0, update=True)
    snapshot.before_step()
    optimizer.step()
    snapshot.after_step()
    assert sizes_read == [0] * len(sizes_read) != []


@pytest.mark.parametrize(
    "change", every(ACCEPTED_CHANGES, fast=["replace_the_step_counts", "add_a_buffer"], id=lambda c: c.__name__)
)
def test_a_change_between_two_steps_is_measured(change, monkeypatch):
    """Once kernels have summed everything, the tensors are not looked at again as long as they are the same."""
    module, optimizer = build("several kernels")
    inventory = Inventory(optimizer, Plan.from_optimizer(optimizer, module))
    for param in module[0].parameters():
        param.grad = torch.ones_like(param)
    optimizer.step()  # so the groups have different step counts

    def take_step(inventory: Inventory, **options: Any) -> dict[tuple[str, str], float]:
        for param in chain.from_iterable(group["params"] for group in optimizer.param_groups):
            param.grad = torch.ones_like(param)
        snapshot = Snapshot(inventory, 0, **options)
        snapshot.before_step()
        optimizer.step()
        snapshot.after_step()
        return snapshot.read().values

    with monkeypatch.context() as patch:
        take_step(inventory)
        patch.delattr(Inventory, "contents")  # is not needed any more
        take_step(inventory)
    change(optimizer)
    values = take_step(inventory)
    snapshot = Snapshot(Inventory(optimizer, inventory.plan), 0, from_kernels=False)
    snapshot.after_step()
    assert values == pytest.approx(snapshot.read().values, rel=1e-5)  # which sums in float32


@pytest.mark.parametrize("module_of_hook", [__name__, "lightning_optim_extras.hooks"])
@pytest.mark.parametrize("is_registered_first", [True, False])
def test_what_a_hook_changes_after_the_step_is_seen(is_registered_first, module_of_hook):
    """A hook that runs before the monitor's may change a parameter: then the kernel's sums do not hold."""
    module, optimizer = build("adamw")
    lightning_module = LightningModule()
    lightning_module.net = module
    trainer = SimpleNamespace(loggers=[], gradient_clip_val=None, fit_loop=FIT_LOOP, is_global_zero=True)
    clears = lambda *_: module[0].weight.data.zero_()  # noqa: E731
    clears.__module__ = module_of_hook
    if is_registered_first:
        optimizer.register_step_post_hook(clears)
    recorder = StepRecorder(
        trainer, lightning_module, optimizer, "optim", is_logged=lambda: True,
        update_norm=False, cosine=False, per_parameter=True, histograms=False,
    )  # fmt: skip
    if not is_registered_first:
        optimizer.register_step_post_hook(clears)
    for param in module.parameters():
        param.grad = torch.randn_like(param)
    optimizer.step()
    values = recorder.read_values(recorder.pop_finished())
    assert (values["optim_param/norm/param/net.0.weight"] == 0) == is_registered_first


def clamp(optimizer: torch.optim.Optimizer) -> None:
    with torch.no_grad():
        for param in optimizer.param_groups[0]["params"]:
            param.clamp_(-0.01, 0.01)


class ClampInStep(optim.AdaBelief):
    def step(self, closure=None):
        loss = super().step(closure)
        clamp(self)
        return loss


class ClampInStepGroups(optim.AdaBelief):
    def step_groups(self):
        super().step_groups()
        clamp(self)


class ClampInStepScope(optim.AdaBelief):
    @contextmanager
    def step_scope(self, groups):
        yield
        clamp(self)


class OnlyARule(optim.AdaBelief):
    def coefficients(self, t, group):
        return super().coefficients(t + 1, group)


@pytest.mark.parametrize("cls", [ClampInStep, ClampInStepGroups, ClampInStepScope])
def test_what_a_subclass_changes_after_the_kernel_is_seen(cls):
    module = nn.Linear(64, 64)
    optimizer = cls(module.parameters(), lr=0.01, fused=True)
    before = [param.detach().clone() for param in module.parameters()]
    for param in module.parameters():
        param.grad = torch.ones_like(param)
    snapshot = Snapshot(Inventory(optimizer, Plan.from_optimizer(optimizer, module)), 0, update=True)
    snapshot.before_step()
    optimizer.step()
    snapshot.after_step()
    values = snapshot.read().values
    changes = [param - old for param, old in zip(module.parameters(), before, strict=True)]
    for signal, tensors in (("norm/param", module.parameters()), ("norm/update", changes)):
        exact = sum(float(tensor.detach().double().square().sum()) for tensor in tensors) ** 0.5
        assert values[signal, "all"] == pytest.approx(exact, rel=1e-5), signal  # what `Reductions` promises


@pytest.mark.parametrize("cls", [optim.AdaBelief, OnlyARule, optim.Adai, optim.Prodigy, optim.SophiaG])
def test_what_only_this_package_does_around_a_kernel_leaves_its_sums_known(cls):
    params = [nn.Parameter(torch.ones(3))]
    optimizer = cls(params)
    torch.optim.lr_scheduler.ConstantLR(optimizer)  # which puts a function of its own around `step`
    assert optimizer.measure_step(RequestedSums(update=True, summed_buffers=())) == params


def fail_in_closure(optimizer: torch.optim.Optimizer) -> None:
    def closure() -> None:
        raise RuntimeError("in the closure")

    with pytest.raises(RuntimeError, match="in the closure"):
        optimizer.step(closure)


def fail_at_a_sparse_gradient(optimizer: torch.optim.Optimizer) -> None:
    param = optimizer.param_groups[0]["params"][0]
    param.grad = torch.zeros_like(param).to_sparse()
    with pytest.raises(ConfigError, match="sparse"):
        optimizer.step()


def step_without_the_groups_of_a_child(optimizer: torch.optim.Optimizer) -> None:
    del optimizer.param_groups[1:]
    optimizer.step()


@pytest.mark.parametrize("case", ["adamw", "several algorithms"])
@pytest.mark.parametrize("step", [fail_in_closure, fail_at_a_sparse_gradient, step_without_the_groups_of_a_child])
def test_after_any_step_no_sums_are_asked_for(case, step):
    _, optimizer = build(case)
    optimizer.measure_step(RequestedSums(update=True, summed_buffers=()))
    asked = list(optimizer.children.values()) if case == "several algorithms" else [optimizer]
    assert all(one._requested for one in asked)
    step(optimizer)
    assert not any(one._requested for one in asked)


def test_clipping_within_the_step_leaves_the_sums_right(tmp_path, sizes_read):
    """Lightning computes and clips the gradients in the closure, after the optimizer was asked for its sums."""

    def curves(fused: bool) -> Curves:
        torch.manual_seed(0)
        # The gradient of the bias before BatchNorm is rounding errors, which a small eps would blow up.
        factory = OptimizerFactory("adamw", lr=0.01, eps=1e-3, implementation="own", fused=fused)
        module = Net(lambda module: configure_optimizers(module, factory))
        monitor = OptimizerMonitor(update_norm=True)
        return fit_with_events(tmp_path / str(fused), module, monitor, epochs=1, gradient_clip_val=0.01)

    found = curves(fused=True)
    assert sorted(set(sizes_read)) == [0, sum(param.numel() for param in Net(None).parameters())]
    assert sizes_read[0] and sum(map(bool, sizes_read)) == BATCHES, "only the unclipped gradients are read"
    for tag, points in curves(fused=False).items():
        if "/norm/" in tag:
            assert [v for _, v in found[tag]] == pytest.approx([v for _, v in points], rel=1e-6), tag
