"""Optimizers whose step takes two gradients: which of the two it is, with gradients missing, saves and trial steps."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.utils.data import DataLoader

from lightning_optim import ConfigError, OptimizerFactory, configure_optimizers, optim
from tests.support.equality import equal
from tests.support.optimizer_runs import MEMBERS_WITH_TWO_GRADIENTS, native_class
from tests.support.save_and_load import save_and_load
from tests.support.training import Loader, Net, fit

each_member = pytest.mark.parametrize("name", MEMBERS_WITH_TWO_GRADIENTS)
loop_and_foreach = pytest.mark.parametrize("foreach", [False, True], ids=["loop", "foreach"])


def param(value: float = 1.0) -> nn.Parameter:
    return nn.Parameter(torch.full((3,), value, dtype=torch.double))


def closure_of(params: list[nn.Parameter], absent: Any = lambda call, i: False) -> Any:
    """A closure over Σ p² / 2; `absent(call, i)` says whether a parameter has no gradient in that call."""
    calls = iter(range(10**6))

    def closure() -> None:
        call = next(calls)
        for i, p in enumerate(params):
            p.grad = None if absent(call, i) else p.detach().clone()

    return closure


@each_member
@loop_and_foreach
def test_a_parameter_that_misses_a_gradient_stays_in_step_with_the_others(name, foreach) -> None:
    """The second parameter misses the second gradient of step 1, the third the first of step 2."""
    misses = {(3, 1), (4, 2)}
    params = [param() for _ in range(3)]
    optimizer = native_class(name)(params, lr=0.1, foreach=foreach)
    closure, seen = closure_of(params, lambda call, i: (call, i) in misses), []
    for _ in range(4):
        optimizer.step(closure)
        assert [optimizer.state[p]["away"] for p in params] == [0.0] * 3
        seen.append([p[0].item() for p in params])
    assert seen[1][1] == seen[0][1]  # without the second gradient there is no step
    assert (seen[2][2] == seen[1][2]) == (name == "storm")  # STORM cannot use the second gradient alone
    moved = [[a != b for a, b in zip(before, after, strict=True)] for before, after in pairwise(seen)]
    assert all(moved[0][i] for i in (0, 2)) and all(moved[2])
    assert [optimizer.state[p]["taken"] for p in params] == [4.0, 3.0, 3.0]
    alone, expected = param(), []
    other = native_class(name)([alone], lr=0.1)
    closure = closure_of([alone])
    for _ in range(4):
        other.step(closure)
        expected.append(alone[0].item())
    assert [row[0] for row in seen] == expected


@each_member
def test_saved_between_two_gradients_a_resume_with_a_closure_restarts_the_step(name) -> None:
    first, second = param(), param()
    half, complete = native_class(name)([first], lr=0.1), native_class(name)([second], lr=0.1)
    complete.step(closure_of([second]))
    half.step(closure_of([first]))
    assert torch.equal(first, second)
    first.grad = first.detach().clone()
    half.step()  # moves to where the second gradient is taken
    state = save_and_load(half.state_dict())
    resumed = nn.Parameter(first.detach().clone())
    other = native_class(name)([resumed], lr=0.1)
    other.load_state_dict(state)
    seen = []
    other.step(lambda: (seen.append(resumed.detach().clone()), closure_of([resumed])())[1])
    assert torch.equal(seen[0], second)  # not where the first gradient led
    assert not torch.equal(resumed, second)


@each_member
def test_without_a_closure_it_resumes_where_it_was_saved(name) -> None:
    weights = []
    for saves in (False, True):
        p = param()
        optimizer = native_class(name)([p], lr=0.1)
        for step in range(8):
            p.grad = p.detach().clone()
            optimizer.step()
            if saves and step == 4:
                other = native_class(name)([p], lr=0.5)
                other.load_state_dict(save_and_load(optimizer.state_dict()))
                optimizer = other
        weights.append(p.detach())
    assert torch.equal(*weights)


@each_member
@loop_and_foreach
def test_a_parameter_whose_first_gradient_is_a_second_one_takes_no_full_step(name, foreach) -> None:
    params = [param(), param()]
    optimizer = native_class(name)(params, lr=0.1, foreach=foreach)
    optimizer.step(closure_of(params, lambda call, i: (call, i) == (0, 1)))
    late = params[1].detach()
    assert torch.equal(late, param()) if name == "storm" else ((late > 0) & (late < 1)).all()
    assert [optimizer.state[p]["taken"] for p in params] == [1.0, 0.0]


@each_member
def test_the_trial_step_of_a_distributed_checkpoint_changes_nothing(name) -> None:
    """torch takes one with lr 0 and gradients 0 where there is no state yet."""
    weights = []
    for tries in (False, True):
        net = nn.Linear(1, 1, bias=False).double()
        nn.init.ones_(net.weight)
        optimizer = native_class(name)(net.parameters(), lr=0.1)
        if tries:
            get_optimizer_state_dict(net, optimizer)
        closure = closure_of(list(net.parameters()))
        optimizer.step(closure)
        weights.append(net.weight.item())
    # Adam counts gradients of 0, as torch's own does: a part of a step of 0.1.
    assert weights[0] == pytest.approx(weights[1], abs=0.02 if name == "extra_adam" else 1e-12)


@each_member
def test_a_call_without_any_gradient_does_not_count(name) -> None:
    p = param()
    optimizer = native_class(name)([p], lr=0.1)
    p.grad = p.detach().clone()
    optimizer.step()
    where, p.grad = p.detach().clone(), None
    optimizer.step()
    assert torch.equal(p, where)
    assert optimizer.state[p]["away"] == 1.0


@each_member
def test_masters_are_restored_like_their_parameters(name) -> None:
    params = [nn.Parameter(torch.ones(3, dtype=torch.bfloat16)) for _ in range(2)]
    optimizer = native_class(name)(params, lr=0.1, master_weights=True)
    closure = closure_of(params, lambda call, i: (call, i) == (3, 1))
    optimizer.step(closure)
    before = params[1].detach().clone(), optimizer.state[params[1]]["master"].clone()
    optimizer.step(closure)
    assert torch.equal(params[1], before[0])
    assert torch.equal(optimizer.state[params[1]]["master"], before[1])


@each_member
@pytest.mark.parametrize("modifier", [{"skip_nonfinite": True}, {"lookahead": {"k": 2}}], ids=["skip", "lookahead"])
def test_modifiers_that_count_steps_are_refused_when_the_factory_is_built(name, modifier) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}: {next(iter(modifier))}: {name} takes 2 gradients a step"):
        OptimizerFactory(name, **modifier)


def test_nesterov_without_momentum_is_refused() -> None:
    with pytest.raises(ConfigError, match="nesterov: true needs momentum > 0"):
        optim.ExtraSGD([param()], nesterov=True)
    with pytest.raises(ConfigError, match="nesterov: true needs momentum > 0"):
        OptimizerFactory("extra_sgd", nesterov=True)


# Under Lightning


@pytest.mark.parametrize("name", ["omd", "optimistic_adam", "ef_sgd", *MEMBERS_WITH_TWO_GRADIENTS])
def test_automatic_optimization_gives_each_step_all_its_gradients(name, tmp_path) -> None:
    """All from the step's own batch: weights and running statistics are those of a manual loop."""

    def module() -> Net:
        torch.manual_seed(0)
        return Net(lambda module: configure_optimizers(module, OptimizerFactory(name, lr=0.05)))

    fitted, by_hand = module(), module()
    fit(fitted, tmp_path, epochs=2, gradient_clip_val=0.5)
    optimizer = native_class(name)(by_hand.parameters(), lr=0.05)
    by_hand.train()
    loader = Loader()
    for epoch in range(2):
        loader.set_epoch(epoch)
        for inputs, targets in loader:

            def closure(inputs=inputs, targets=targets) -> torch.Tensor:
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(by_hand(inputs), targets)
                loss.backward()
                nn.utils.clip_grad_norm_(by_hand.parameters(), 0.5)
                return loss

            optimizer.step(closure)
    assert equal(fitted.state_dict(), by_hand.state_dict())


@each_member
def test_a_trainer_that_would_not_give_all_gradients_is_refused(name, tmp_path) -> None:
    def module() -> Net:
        return Net(lambda module: configure_optimizers(module, OptimizerFactory(name)))

    with pytest.raises(ConfigError, match=r"^trainer\.accumulate_grad_batches: \w+ takes 2 gradients a step"):
        fit(module(), tmp_path, accumulate_grad_batches=2)
    scaled = MixedPrecision("16-mixed", device="cpu", scaler=torch.amp.GradScaler("cpu"))
    with pytest.raises(ConfigError, match=r"^trainer\.precision: .* Type trainer\.precision=bf16-mixed"):
        fit(module(), tmp_path, plugins=[scaled])


# A closure that computes nothing, as Lightning passes in manual optimization


@each_member
@pytest.mark.parametrize("has_state", [False, True], ids=["first step", "later step"])
def test_a_closure_that_computes_no_gradient_is_refused_and_changes_nothing(name, has_state) -> None:
    params = [param(), param()]
    optimizer = native_class(name)(params, lr=0.1)
    if has_state:
        optimizer.step(closure_of(params))
    for p in params:
        p.grad = p.detach().clone()
    before = [p.detach().clone() for p in params], copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ConfigError, match=r"takes 2 gradients a step, .* Type opt\.step\(closure=closure\)"):
        optimizer.step(lambda: None)
    assert equal(before, ([p.detach() for p in params], optimizer.state_dict()))


@each_member
def test_a_closure_that_computes_only_the_first_gradient_is_refused(name) -> None:
    p = param()
    optimizer, closure, calls = native_class(name)([p], lr=0.1), closure_of([p]), iter([True, False])
    with pytest.raises(ConfigError, match="takes 2 gradients a step"):
        optimizer.step(lambda: closure() if next(calls) else None)
    assert torch.equal(p, param())


def accumulate(p: nn.Parameter) -> None:
    p.grad.zero_()
    p.square().sum().backward()


def write(p: nn.Parameter) -> None:
    p.grad.copy_(p.detach())


@each_member
@pytest.mark.parametrize("compute", [accumulate, write])
def test_a_closure_may_write_into_the_gradients_it_finds(name, compute) -> None:
    p = param()
    p.grad = torch.zeros_like(p)
    optimizer = native_class(name)([p], lr=0.1)
    optimizer.step(lambda: compute(p))
    assert optimizer.state[p]["taken"] == 1.0


@each_member
def test_without_any_gradient_there_is_nothing_to_compute(name) -> None:
    p = param()
    native_class(name)([p], lr=0.1).step(lambda: None)
    assert torch.equal(p, param())


class Game(LightningModule):
    """min over x, max over y of x · y: gradient descent spirals outwards, the extragradient inwards."""

    def __init__(self, name: str, *, with_closure: bool) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.factory, self.with_closure = OptimizerFactory(name, lr=0.1), with_closure
        self.x, self.y = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))

    def configure_optimizers(self) -> Any:
        return configure_optimizers(self, self.factory)

    def compute(self) -> None:
        self.x.grad, self.y.grad = self.y.detach().clone(), -self.x.detach().clone()

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.compute()
        self.optimizers().step(**({"closure": self.compute} if self.with_closure else {}))


@each_member
def test_manual_optimization_takes_the_second_gradient_from_a_closure_or_refuses(name, tmp_path) -> None:
    def play(game: Game) -> float:
        fit(game, tmp_path, epochs=1, loader=DataLoader(range(100)))
        return torch.hypot(game.x.detach(), game.y.detach()).item()

    with pytest.raises(ConfigError, match="in manual optimization Lightning passes a closure that does nothing"):
        play(Game(name, with_closure=False))
    distance, game = play(Game(name, with_closure=True)), Game(name, with_closure=False)
    optimizer = game.factory(game)
    for _ in range(100):
        optimizer.step(game.compute)
    assert distance == torch.hypot(game.x.detach(), game.y.detach()).item()
    assert distance < 2**0.5 or name != "extra_sgd"
