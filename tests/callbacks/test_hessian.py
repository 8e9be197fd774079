"""SophiaHessian: when Sophia-G gets an estimate, and of what."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import ModelParallelStrategy
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
from tests.support.processes import run_module
from tests.support.training import BATCHES, Net, Witness, fit, same

SOPHIA = OptimizerFactory("sophia_g", lr=0.01)


def hessians(trainer, _module) -> dict[int, torch.Tensor]:
    optimizer = trainer.optimizers[0]
    held = [p for group in optimizer.param_groups for p in group["params"]]
    return {i: optimizer.state[p]["hessian"].clone() for i, p in enumerate(held) if "hessian" in optimizer.state[p]}


def train(folder, *callbacks: Any, factory=SOPHIA, cls: type[Net] = Net, **arguments: Any) -> list[Any]:
    torch.manual_seed(0)
    module = cls(lambda module: configure_optimizers(module, factory), dropout=0.2)
    witness = Witness(hessians)
    fit(module, folder, *callbacks, witness, **arguments)
    return witness.seen


def changes(seen: list[Any]) -> list[int]:
    """The steps before which there was an estimate."""
    zeros = {i: torch.zeros_like(h) for i, h in seen[0].items()}
    return [i for i, (a, b) in enumerate(zip([zeros, *seen], seen, strict=False)) if not same(a, b)]


@pytest.mark.parametrize("every_n_steps", [1, 3, 10])
def test_an_estimate_comes_before_each_nth_step(tmp_path, every_n_steps) -> None:
    seen = train(tmp_path, SophiaHessian(every_n_steps))
    assert changes(seen) == list(range(0, 4 * BATCHES, every_n_steps))


def test_once_a_step_under_accumulation(tmp_path) -> None:
    calls: list[int] = []

    class Counts(Net):
        def training_step(self, batch, batch_idx):
            before = hessians(self.trainer, self)
            loss = super().training_step(batch, batch_idx)
            if not same(before, hessians(self.trainer, self)):
                calls.append(self.trainer.fit_loop.total_batch_idx)
            return loss

    seen = train(tmp_path, SophiaHessian(2), cls=Counts, accumulate_grad_batches=3)  # 4 batches: 3, and the last one
    assert changes(seen) == [0, 2, 4, 6]
    assert calls == [0, 4, 8, 12]


class Looks(Net):
    """Does by hand, beside the callback, what it should do."""

    def on_train_batch_start(self, batch, batch_idx):
        step = self.trainer.global_step
        if step % 2 == 0:
            kept = [b.clone() for b in self.buffers()]
            with torch.random.fork_rng(), SampledGradients(list(self.parameters()), step, 1.0, self.note):
                functional.cross_entropy(self(batch[0]), batch[1])
            for buffer, value in zip(self.buffers(), kept, strict=True):
                buffer.copy_(value)

    def note(self, num_samples, grads) -> None:
        b2 = 0.99
        self.own = getattr(self, "own", {i: torch.zeros_like(p) for i, p in enumerate(self.parameters())})
        self.own = {
            i: (h * b2).addcmul_(grads[p], grads[p], value=(1 - b2) * num_samples)
            for (i, h), p in zip(self.own.items(), self.parameters(), strict=True)
        }


def test_it_is_the_estimate_of_that_steps_loss(tmp_path) -> None:
    pairs: list[tuple[Any, Any]] = []
    look = Witness(lambda trainer, module: pairs.append((hessians(trainer, module), dict(module.own))))
    train(tmp_path, SophiaHessian(2), look, cls=Looks)
    assert len(pairs) == 4 * BATCHES
    assert all(same(ours, by_hand) for ours, by_hand in pairs)


def test_training_goes_on_as_without(tmp_path) -> None:
    """At lr 0 nothing but the Hessian may differ: losses, running statistics, gradients, generators."""

    def run(*callbacks: Any) -> list[Any]:
        torch.manual_seed(0)
        factory = OptimizerFactory("sophia_g", lr=0.0, weight_decay=0)
        module = Net(lambda module: configure_optimizers(module, factory), dropout=0.2)
        witness = Witness(
            lambda trainer, module: [
                trainer.callback_metrics["loss"].clone(),
                [b.clone() for b in module.buffers()],
                [p.grad.clone() for p in module.parameters()],
                torch.get_rng_state(),
            ]
        )
        fit(module, tmp_path, *callbacks, witness)
        return witness.seen

    assert same(run(SophiaHessian(2)), run())


def test_it_resumes_bitwise(tmp_path) -> None:
    def run(ckpt_path: Any = None) -> list[Any]:
        return train(tmp_path, SophiaHessian(3), RNGState(), save=ckpt_path is None, ckpt_path=ckpt_path)

    whole = run()
    for step in (2, 3, 4, 7):
        assert same(run(tmp_path / f"step={step}.ckpt"), whole[step:]), step


def test_beside_another_algorithm_and_in_stages(tmp_path) -> None:
    rules = {"hidden": {"params": "backbone", "kinds": ["matrix"], "optimizer": "sophia_g", "lr": 0.01}}
    stages = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"step": 5}}}
    seen = train(
        tmp_path, StagedUnfreeze(stages), SophiaHessian(2), factory=OptimizerFactory("adamw", lr=0.01, groups=rules)
    )
    assert [len(h) for h in seen] == [0] * 5 + [2] * 11
    assert changes(seen[5:]) == [1, 3, 5, 7, 9]  # steps 6, 8, ...


def test_a_scaled_loss_is_unscaled_and_one_that_overflows_is_left_out(tmp_path) -> None:
    def run(scale: float) -> list[Any]:
        plugin = MixedPrecision("16-mixed", device="cpu", scaler=torch.amp.GradScaler("cpu", init_scale=scale))
        plugin.precision = "bf16-mixed"  # its autocast on a CPU; the scaler is what this is about
        return train(tmp_path, SophiaHessian(1), plugins=[plugin], epochs=1)

    plain = run(1.0)
    for a, b in zip(plain, run(2.0**10), strict=True):
        assert same(a, b)  # of powers of two
    assert [any(h.any() for h in hessians.values()) for hessians in run(2.0**127)] == [False] * BATCHES


def test_the_module_has_its_own_training_step_back(tmp_path) -> None:
    torch.manual_seed(0)
    module = Net(lambda module: configure_optimizers(module, SOPHIA))
    fit(module, tmp_path, SophiaHessian(), epochs=1)
    assert "training_step" not in vars(module)

    class Fails(Net):
        def training_step(self, batch, batch_idx):
            raise RuntimeError("no")

    module = Fails(lambda module: configure_optimizers(module, SOPHIA))
    own = module.training_step = module.training_step
    with pytest.raises(RuntimeError):
        fit(module, tmp_path, SophiaHessian(), epochs=1)
    assert module.training_step is own


def test_who_does_not_train_with_sophia_is_told(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"no optimizer is Sophia-G. Type optimizer=sophia_g"):
        train(tmp_path, SophiaHessian(), factory=OptimizerFactory("adamw"))


def test_a_loss_that_no_labels_are_known_of_is_refused(tmp_path) -> None:
    class Other(Net):
        def training_step(self, batch, batch_idx):
            return self(batch[0]).square().mean()

    with pytest.raises(ConfigError, match=r"training_step computes none of the losses .* binary_cross_entropy_with"):
        train(tmp_path, SophiaHessian(), cls=Other)


@pytest.mark.filterwarnings("ignore:.*returned .None.")
def test_a_batch_that_lightning_skips_has_no_estimate(tmp_path) -> None:
    class Skips(Net):
        def training_step(self, batch, batch_idx):
            return None if self.trainer.fit_loop.total_batch_idx == 4 else super().training_step(batch, batch_idx)

    seen = train(tmp_path, SophiaHessian(2), cls=Skips)
    assert changes(seen) == [0, 2, *range(6, 16, 2)]


def test_sharded_parameters_are_refused() -> None:
    trainer = SimpleNamespace(strategy=ModelParallelStrategy())
    with pytest.raises(ConfigError, match=r"under ModelParallelStrategy no rank has the whole gradient"):
        SophiaHessian().setup(trainer, nn.Linear(1, 1), "fit")  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [0, -1, 2.5, "ten", True, None])
def test_wrong_intervals_are_refused(wrong) -> None:
    with pytest.raises(ConfigError, match="every_n_steps"):
        SophiaHessian(every_n_steps=wrong)


def test_gradients_may_be_given_or_at_hand() -> None:
    params = [[nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))] for _ in range(2)]
    grad = torch.tensor([1.0, 2.0, 3.0])
    given, at_hand = (optim.SophiaG(some) for some in params)
    given.update_hessian(4, {params[0][0]: grad})
    params[1][0].grad = grad
    at_hand.update_hessian(4)
    for optimizer, (first, second) in zip((given, at_hand), params, strict=True):
        torch.testing.assert_close(optimizer.state[first]["hessian"], 0.01 * 4 * grad.square())
        assert second not in optimizer.state


def test_an_estimate_that_is_not_finite_is_left_out() -> None:
    param = nn.Parameter(torch.ones(3))
    optimizer = optim.SophiaG([param])
    optimizer.update_hessian(4, {param: torch.ones(3)})
    optimizer.update_hessian(4, {param: torch.tensor([1.0, torch.nan, torch.inf])})
    torch.testing.assert_close(optimizer.state[param]["hessian"], torch.full((3,), 0.04))


@pytest.mark.slow
def test_two_processes_hold_the_estimate_of_the_global_batch(tmp_path) -> None:
    run_module("tests.support.runs.hessian", tmp_path, timeout_s=120)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    assert same(first["hessians"], second["hessians"])
    assert same(first["weights"], second["weights"])
    # By hand: (1 - β2) B times the square of the mean of the ranks' gradients, each at labels of its own.
    for name, h in first["hessians"][0].items():
        mean = (first["grads"][name] + second["grads"][name]) / 2
        torch.testing.assert_close(h, 0.01 * 8 * mean.square(), rtol=1e-5, atol=1e-12)
    assert not same(first["grads"], second["grads"])
