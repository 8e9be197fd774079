"""SophiaHessian: in which steps Sophia-G gets an estimate, and of which loss. On several ranks: `test_ddp.py`."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import ModelParallelStrategy, SingleDeviceStrategy
from torch import nn
from torch.nn import functional

from lightning_optim import (
    ConfigError,
    OptimizerFactory,
    RNGState,
    SophiaHessian,
    StagedUnfreeze,
    configure_optimizers,
    optim,
)
from lightning_optim.optim.gauss_newton import SampledGradients
from tests.support.equality import equal
from tests.support.training import BATCHES, Net, StepTrace, fit

SOPHIA = OptimizerFactory("sophia_g", lr=0.01)


def read_hessians(trainer, _module) -> dict[int, torch.Tensor]:
    optimizer = trainer.optimizers[0]
    params = [p for group in optimizer.param_groups for p in group["params"]]
    return {i: optimizer.state[p]["hessian"].clone() for i, p in enumerate(params) if "hessian" in optimizer.state[p]}


def train(folder, *callbacks: Any, factory=SOPHIA, cls: type[Net] = Net, **arguments: Any) -> list[Any]:
    """The Hessians after each step."""
    torch.manual_seed(0)
    module = cls(lambda module: configure_optimizers(module, factory), dropout=0.2)
    trace = StepTrace(read_hessians)
    fit(module, folder, *callbacks, trace, **arguments)
    return trace.steps


def steps_with_estimate(hessians: list[Any]) -> list[int]:
    zeros = {i: torch.zeros_like(h) for i, h in hessians[0].items()}
    pairs = zip([zeros, *hessians], hessians, strict=False)
    return [step for step, (before, after) in enumerate(pairs) if not equal(before, after)]


@pytest.mark.parametrize("every_n_steps", [1, 3])
def test_an_estimate_comes_before_every_nth_step(tmp_path, every_n_steps) -> None:
    hessians = train(tmp_path, SophiaHessian(every_n_steps))
    assert steps_with_estimate(hessians) == list(range(0, 4 * BATCHES, every_n_steps))


def test_under_accumulation_there_is_one_estimate_per_step(tmp_path) -> None:
    batches: list[int] = []

    class Counting(Net):
        def training_step(self, batch, batch_idx):
            before = read_hessians(self.trainer, self)
            loss = super().training_step(batch, batch_idx)
            if not equal(before, read_hessians(self.trainer, self)):
                batches.append(self.trainer.fit_loop.total_batch_idx)
            return loss

    hessians = train(
        tmp_path, SophiaHessian(2), cls=Counting, accumulate_grad_batches=3
    )  # of 4 batches: 3, then the last
    assert steps_with_estimate(hessians) == [0, 2, 4, 6]
    assert batches == [0, 4, 8, 12]


class ReferenceNet(Net):
    """Computes by hand what the callback should compute."""

    def on_train_batch_start(self, batch, batch_idx):
        step = self.trainer.global_step
        if step % 2 == 0:
            buffers = [b.clone() for b in self.buffers()]
            with torch.random.fork_rng(), SampledGradients(list(self.parameters()), step, 1.0, self.store):
                functional.cross_entropy(self(batch[0]), batch[1])
            for buffer, value in zip(self.buffers(), buffers, strict=True):
                buffer.copy_(value)

    def store(self, num_samples, grads) -> None:
        b2 = 0.99
        self.reference = getattr(self, "reference", {i: torch.zeros_like(p) for i, p in enumerate(self.parameters())})
        self.reference = {
            i: (h * b2).addcmul_(grads[p], grads[p], value=(1 - b2) * num_samples)
            for (i, h), p in zip(self.reference.items(), self.parameters(), strict=True)
        }


def test_the_estimate_is_of_the_loss_of_the_step(tmp_path) -> None:
    pairs = StepTrace(lambda trainer, module: (read_hessians(trainer, module), dict(module.reference)))
    train(tmp_path, SophiaHessian(2), pairs, cls=ReferenceNet)
    assert len(pairs.steps) == 4 * BATCHES
    assert all(equal(hessians, reference) for hessians, reference in pairs.steps)


def test_nothing_but_the_hessian_changes(tmp_path) -> None:
    """At lr 0: losses, running statistics, gradients and generators are as without the callback."""

    def run(*callbacks: Any) -> list[Any]:
        torch.manual_seed(0)
        factory = OptimizerFactory("sophia_g", lr=0.0, weight_decay=0)
        module = Net(lambda module: configure_optimizers(module, factory), dropout=0.2)
        trace = StepTrace(
            lambda trainer, module: [
                trainer.callback_metrics["loss"].clone(),
                [b.clone() for b in module.buffers()],
                [p.grad.clone() for p in module.parameters()],
                torch.get_rng_state(),
            ]
        )
        fit(module, tmp_path, *callbacks, trace)
        return trace.steps

    assert equal(run(SophiaHessian(2)), run())


def test_resumes_bitwise(tmp_path) -> None:
    def run(ckpt_path: Any = None) -> list[Any]:
        return train(tmp_path, SophiaHessian(3), RNGState(), save=ckpt_path is None, ckpt_path=ckpt_path)

    full = run()
    for step in (2, 3, 4):
        assert equal(run(tmp_path / f"step={step}.ckpt"), full[step:]), step


def test_with_another_algorithm_and_stages(tmp_path) -> None:
    rules = {"hidden": {"params": "backbone", "kinds": ["matrix"], "optimizer": "sophia_g", "lr": 0.01}}
    stages = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"step": 5}}}
    hessians = train(
        tmp_path, StagedUnfreeze(stages), SophiaHessian(2), factory=OptimizerFactory("adamw", lr=0.01, groups=rules)
    )
    assert [len(h) for h in hessians] == [0] * 5 + [2] * 11
    assert steps_with_estimate(hessians[5:]) == [1, 3, 5, 7, 9]  # steps 6, 8, ...


def test_a_scaled_loss_is_unscaled_and_an_overflow_is_dropped(tmp_path) -> None:
    def run(scale: float) -> list[Any]:
        plugin = MixedPrecision("16-mixed", device="cpu", scaler=torch.amp.GradScaler("cpu", init_scale=scale))
        plugin.precision = "bf16-mixed"  # the autocast that a CPU has; this test is about the scaler
        return train(tmp_path, SophiaHessian(1), plugins=[plugin], epochs=1)

    plain = run(1.0)
    for a, b in zip(plain, run(2.0**10), strict=True):
        assert equal(a, b)  # the scale is a power of two
    assert [any(h.any() for h in hessians.values()) for hessians in run(2.0**127)] == [False] * BATCHES


class Failing(Net):
    def training_step(self, batch, batch_idx):
        raise RuntimeError("no")


@pytest.mark.parametrize("cls", [Net, Failing])
@pytest.mark.parametrize("is_wrapped", [False, True], ids=["the strategy's", "wrapped by another callback"])
def test_the_strategy_s_training_step_is_restored(tmp_path, cls, is_wrapped) -> None:
    strategy = SingleDeviceStrategy("cpu", accelerator=CPUAccelerator())
    original = strategy.training_step
    if is_wrapped:
        strategy.training_step = lambda *args: original(*args)
    before = dict(vars(strategy)).get("training_step")
    module = cls(lambda module: configure_optimizers(module, SOPHIA))
    with nullcontext() if cls is Net else pytest.raises(RuntimeError, match="no"):
        fit(module, tmp_path, SophiaHessian(), epochs=1, strategy=strategy, accelerator="auto")
    assert "training_step" not in vars(module)
    assert vars(strategy).get("training_step") is before


def test_another_optimizer_is_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"no optimizer is Sophia-G. Type optimizer=sophia_g"):
        train(tmp_path, SophiaHessian(), factory=OptimizerFactory("adamw"))


def test_a_loss_that_has_no_labels_to_sample_is_refused(tmp_path) -> None:
    class OtherLoss(Net):
        def training_step(self, batch, batch_idx):
            return self(batch[0]).square().mean()

    with pytest.raises(ConfigError, match=r"training_step computes none of the losses .* binary_cross_entropy_with"):
        train(tmp_path, SophiaHessian(), cls=OtherLoss)


@pytest.mark.filterwarnings("ignore:.*returned .None.")
def test_a_batch_that_lightning_skips_has_no_estimate(tmp_path) -> None:
    class Skipping(Net):
        def training_step(self, batch, batch_idx):
            return None if self.trainer.fit_loop.total_batch_idx == 4 else super().training_step(batch, batch_idx)

    hessians = train(tmp_path, SophiaHessian(2), cls=Skipping)
    assert steps_with_estimate(hessians) == [0, 2, *range(6, 16, 2)]


def test_a_strategy_that_shards_parameters_is_refused() -> None:
    trainer = SimpleNamespace(strategy=ModelParallelStrategy())
    with pytest.raises(ConfigError, match=r"under ModelParallelStrategy no rank has the full gradient"):
        SophiaHessian().setup(trainer, nn.Linear(1, 1), "fit")  # type: ignore[arg-type]


@pytest.mark.parametrize("interval", [0, -1, 2.5, "ten", True, None])
def test_a_wrong_interval_is_refused(interval) -> None:
    with pytest.raises(ConfigError, match="^every_n_steps: got"):
        SophiaHessian(every_n_steps=interval)


def test_update_hessian_takes_given_gradients_or_those_of_the_parameters() -> None:
    params = [[nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))] for _ in range(2)]
    grad = torch.tensor([1.0, 2.0, 3.0])
    given, accumulated = (optim.SophiaG(some) for some in params)
    given.update_hessian(4, {params[0][0]: grad})
    params[1][0].grad = grad
    accumulated.update_hessian(4)
    for optimizer, (first, second) in zip((given, accumulated), params, strict=True):
        torch.testing.assert_close(optimizer.state[first]["hessian"], 0.01 * 4 * grad.square())
        assert second not in optimizer.state


def test_a_nonfinite_estimate_is_dropped() -> None:
    param = nn.Parameter(torch.ones(3))
    optimizer = optim.SophiaG([param])
    optimizer.update_hessian(4, {param: torch.ones(3)})
    optimizer.update_hessian(4, {param: torch.tensor([1.0, torch.nan, torch.inf])})
    torch.testing.assert_close(optimizer.state[param]["hessian"], torch.full((3,), 0.04))


# Without an estimate


def take_steps(optimizer: Any, num_steps: int) -> None:
    for _ in range(num_steps):
        for group in optimizer.param_groups:
            for param in group["params"]:
                param.grad = torch.ones_like(param)
        optimizer.step()


def check_stops(optimizer: Any) -> None:
    before = [param.detach().clone() for group in optimizer.param_groups for param in group["params"]]
    with pytest.raises(ConfigError, match=r"taken 10 steps without an estimate of the Hessian.*callback SophiaHessian"):
        take_steps(optimizer, 1)
    assert equal(before, [param.detach() for group in optimizer.param_groups for param in group["params"]])


def test_without_an_estimate_the_eleventh_step_is_refused() -> None:
    optimizer = optim.SophiaG([nn.Parameter(torch.ones(3))])
    take_steps(optimizer, 10)
    check_stops(optimizer)
    optimizer.update_hessian(1, {optimizer.param_groups[0]["params"][0]: torch.ones(3)})
    take_steps(optimizer, 20)


def test_steps_without_an_estimate_are_counted_through_a_resume_and_in_a_composite() -> None:
    factory = OptimizerFactory("adamw", groups={"matrix": {"kinds": ["matrix"], "optimizer": "sophia_g"}})
    first = factory(nn.Linear(3, 2))
    take_steps(first, 6)
    resumed = factory(nn.Linear(3, 2))
    resumed.load_state_dict(first.state_dict())
    take_steps(resumed, 4)
    with pytest.raises(ConfigError, match="taken 10 steps without an estimate"):
        take_steps(resumed, 1)


def test_an_estimate_of_zeros_is_one() -> None:
    param = nn.Parameter(torch.ones(3))
    optimizer = optim.SophiaG([param])
    optimizer.update_hessian(1, {param: torch.zeros(3)})
    take_steps(optimizer, 20)
    assert optimizer.state[param]["step"] == 20 and bool((param < 1).all())


@pytest.mark.parametrize("nonfinite", [False, True])
def test_a_resumed_run_knows_its_estimate_by_the_state(nonfinite) -> None:
    first, resumed = (optim.SophiaG([nn.Parameter(torch.ones(3))]) for _ in range(2))
    first.update_hessian(1, {first.param_groups[0]["params"][0]: torch.ones(3) * (torch.nan if nonfinite else 1)})
    take_steps(first, 10)
    resumed.load_state_dict(first.state_dict())
    if nonfinite:
        check_stops(resumed)
    else:
        take_steps(resumed, 20)


def test_a_stage_that_thaws_between_two_estimates_is_not_refused() -> None:
    early, late = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = optim.SophiaG([early])
    optimizer.update_hessian(1, {early: torch.ones(3)})
    take_steps(optimizer, 5)
    optimizer.add_param_group({"params": late})
    take_steps(optimizer, 30)
    assert [optimizer.state[param]["step"] for param in (early, late)] == [35, 30]


class Manual(Net):
    """Manual optimization, with a loss that has labels to sample or another one."""

    own_loss = False

    def training_step(self, batch, batch_idx):
        output = self(batch[0])
        loss = output.square().mean() if self.own_loss else functional.cross_entropy(output, batch[1])
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()


@pytest.mark.parametrize("own_loss", [False, True])
def test_manual_optimization_gets_its_estimates_or_is_refused(own_loss, tmp_path) -> None:
    class Here(Manual):
        def __init__(self, *args: Any, **given: Any) -> None:
            super().__init__(*args, **given)
            self.automatic_optimization, self.own_loss = False, own_loss

    if own_loss:
        with pytest.raises(ConfigError, match="training_step computes none of the losses that labels can be sampled"):
            train(tmp_path, SophiaHessian(3), cls=Here)
    else:
        assert steps_with_estimate(train(tmp_path, SophiaHessian(3), cls=Here)) == list(range(0, 4 * BATCHES, 3))


def test_training_without_the_callback_stops(tmp_path) -> None:
    with pytest.raises(ConfigError, match="add the callback SophiaHessian"):
        train(tmp_path, epochs=6)
