"""Steps, loads, copies, joins, frozen parameters, NaN and new lrs in any order: each parameter moves as if alone."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_optim import OptimizerFactory, optim
from lightning_optim.core.param_group_keys import ALGORITHM
from tests.support.cases import every
from tests.support.lone_parameters import BuildAlone, LoneParameters, build_alone
from tests.support.optimizer_runs import native_class
from tests.support.save_and_load import save_and_load

MEMBERS = ("adamw", "lion", "radam", "adabelief", "madgrad", "adan")
SKIP = {"skip_nonfinite": True}
MODIFIERS: list[dict[str, Any]] = [{}, {"cautious_update": True}, {"lookahead": {"k": 2}}, {"weight_decay": 0.1}]
# By name: the factory of two algorithms, and for each what builds it over one parameter.
COMPOSITES: dict[str, tuple[OptimizerFactory, dict[str, BuildAlone]]] = {
    "two of ours": (
        OptimizerFactory(
            "adamw",
            lr=0.01,
            **SKIP,
            groups={"hidden": {"kinds": ["matrix"], "optimizer": "lion", "lr": 0.02, **SKIP}},
        ),
        {"adamw": build_alone(optim.AdamW, foreach=False), "lion": build_alone(optim.Lion, foreach=False)},
    ),
    "torch's and ours": (
        OptimizerFactory(
            "sgd",
            lr=0.01,
            momentum=0.9,
            foreach=False,
            groups={"hidden": {"kinds": ["matrix"], "optimizer": "adabelief", "lr": 0.02, **SKIP}},
        ),
        {
            "sgd": build_alone(torch.optim.SGD, momentum=0.9, foreach=False),
            "adabelief": build_alone(optim.AdaBelief, foreach=False),
        },
    ),
}
LRS = st.sampled_from([0.003, 0.01, 0.05])
MAX_PARAMS = 8
SEEDS = st.integers(0, 10**6)


def random_tensor(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class OptimizerMachine(RuleBasedStateMachine):
    """An optimizer, whose parameters must stay equal to those of the reference.

    A subclass builds it over `self.model`; the groups that have joined are recorded, to be joined again at a load.
    """

    def start(self, model: nn.Module) -> None:
        self.model, self.params = model, list(model.parameters())
        self.joined: list[dict[str, Any]] = []
        self.optimizer, self.reference = self.build(), LoneParameters()
        self.add_to_reference(self.params)

    def build(self) -> Optimizer:
        raise NotImplementedError

    def algorithm_alone(self, group: dict[str, Any]) -> BuildAlone:
        """What builds the reference of the parameters of a group."""
        raise NotImplementedError

    def group_of(self, param: Tensor) -> dict[str, Any]:
        return next(g for g in self.optimizer.param_groups if any(p is param for p in g["params"]))

    def add_to_reference(self, params: list[nn.Parameter]) -> None:
        for param in params:
            group = self.group_of(param)
            self.reference.add(param, self.algorithm_alone(group), group["lr"])

    @rule(seed=SEEDS, absent=st.sets(st.integers(0, MAX_PARAMS - 1)), zero=st.booleans())
    def step(self, seed: int, absent: set[int], zero: bool) -> None:
        """Some parameters have no gradient, some are frozen, and the gradients may be zero."""
        self.step_with(
            [
                None if i in absent or not p.requires_grad else random_tensor(seed + i, *p.shape) * (not zero)
                for i, p in enumerate(self.params)
            ]
        )

    @rule(seed=SEEDS, place=st.integers(0, MAX_PARAMS - 1), value=st.sampled_from([torch.nan, torch.inf]))
    def step_with_nonfinite_gradient(self, seed: int, place: int, value: float) -> None:
        grads = [random_tensor(seed + i, *p.shape) for i, p in enumerate(self.params)]
        grads[place % len(grads)].view(-1)[-1] = value
        self.step_with(grads)

    def step_with(self, grads: list[Tensor | None]) -> None:
        for param, grad in zip(self.params, grads, strict=True):
            param.grad = None if grad is None else grad.clone()
        self.optimizer.step()
        self.reference.step(grads)

    @rule(place=st.integers(0, MAX_PARAMS - 1))
    def freeze_or_thaw(self, place: int) -> None:
        param = self.params[place % len(self.params)]
        param.requires_grad_(not param.requires_grad)
        param.grad = None

    @rule(place=st.integers(0, MAX_PARAMS - 1), lr=LRS)
    def set_lr(self, place: int, lr: float) -> None:
        group = self.group_of(self.params[place % len(self.params)])
        group["lr"] = lr
        self.reference.set_lr([i for i, p in enumerate(self.params) if any(p is q for q in group["params"])], lr)

    @precondition(lambda self: len(self.params) < MAX_PARAMS)
    @rule(seed=SEEDS, named=st.booleans(), lr=LRS, algorithm=st.integers(0, 1))
    def join(self, seed: int, named: bool, lr: float, algorithm: int) -> None:
        param = nn.Parameter(random_tensor(seed, 3))
        number = len(self.params)
        group = {"params": [(f"late.{number}", param)] if named else [param], "lr": lr, **self.joins_with(algorithm)}
        keys = [set(g) for g in self.optimizer.param_groups]
        self.optimizer.add_param_group(dict(group))
        assert [set(g) - {"param_names"} for g in self.optimizer.param_groups[:-1]] == [
            k - {"param_names"} for k in keys
        ]
        self.joined.append(group)
        self.params.append(param)
        self.add_to_reference([param])

    def joins_with(self, algorithm: int) -> dict[str, Any]:
        del algorithm
        return {}

    @rule()
    def load(self) -> None:
        """Into a new optimizer over the same parameters."""
        saved = save_and_load(self.optimizer.state_dict())
        frozen = [param for param in self.params if not param.requires_grad]
        for param in frozen:  # a rule that matches frozen parameters only warns
            param.requires_grad_(True)
        self.optimizer = self.build()
        for param in frozen:
            param.requires_grad_(False)
        for group in self.joined:
            self.optimizer.add_param_group(dict(group))
        self.optimizer.load_state_dict(saved)

    @rule(through_pickle=st.booleans())
    def copy(self, through_pickle: bool) -> None:
        everything = self.model, self.params, self.optimizer, self.joined
        copied = pickle.loads(pickle.dumps(everything)) if through_pickle else copy.deepcopy(everything)
        self.model, self.params, self.optimizer, self.joined = copied

    @invariant()
    def parameters_are_those_of_the_reference(self) -> None:
        for index, (param, alone) in enumerate(zip(self.params, self.reference.params, strict=True)):
            assert torch.equal(param, alone), index

    @invariant()
    def late_groups_have_the_keys_of_each_other(self) -> None:
        late = [g for g in self.optimizer.param_groups if g["params"][0].shape == (3,)]
        for algorithm in {g.get(ALGORITHM) for g in late}:
            keys = [set(g) for g in late if g.get(ALGORITHM) == algorithm]
            assert all(k == keys[0] for k in keys), keys


def machine_of_member(name: str) -> type[OptimizerMachine]:
    class MemberMachine(OptimizerMachine):
        @initialize(named=st.booleans(), foreach=st.booleans(), modifier=st.sampled_from(MODIFIERS))
        def begin(self, named: bool, foreach: bool, modifier: dict[str, Any]) -> None:
            self.named, self.options = named, {**modifier, "foreach": foreach}
            torch.manual_seed(0)
            self.start(nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2)))

        def build(self) -> Optimizer:
            first, second = (
                layer.named_parameters(prefix=str(i)) if self.named else layer.parameters()
                for i, layer in enumerate(self.model)
            )
            groups = [{"params": list(first)}, {"params": list(second), "lr": 0.02}]
            return native_class(name)(groups, lr=0.01, **SKIP, **self.options)

        def algorithm_alone(self, group: dict[str, Any]) -> BuildAlone:
            del group
            return build_alone(native_class(name), **{**self.options, "foreach": False})

    return MemberMachine


def machine_of_composite(name: str) -> type[OptimizerMachine]:
    factory, alone = COMPOSITES[name]

    class CompositeMachine(OptimizerMachine):
        @initialize()
        def begin(self) -> None:
            torch.manual_seed(0)
            self.start(nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2)))

        def build(self) -> Optimizer:
            return factory(self.model)

        def joins_with(self, algorithm: int) -> dict[str, Any]:
            name = list(alone)[algorithm]
            options = {"momentum": 0.9} if name == "sgd" else SKIP
            return {ALGORITHM: name, **options}

        def algorithm_alone(self, group: dict[str, Any]) -> BuildAlone:
            return alone[group[ALGORITHM]]

    return CompositeMachine


MACHINES = {
    **{name: machine_of_member(name) for name in MEMBERS},
    **{name: machine_of_composite(name) for name in COMPOSITES},
}


def run(name: str, max_examples: int) -> None:
    run_state_machine_as_test(
        MACHINES[name],
        settings=settings(
            max_examples=max_examples,
            stateful_step_count=20,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


OFTEN = ("adamw", "torch's and ours")
"""What is tried in a few runs by the fast tests and in 60 by the slow ones, which try the others in 30."""


@pytest.mark.parametrize("name", every(MACHINES, fast=OFTEN))
def test_each_parameter_moves_as_it_would_alone(name: str) -> None:
    run(name, max_examples=10 if name in OFTEN else 30)


@pytest.mark.slow
@pytest.mark.parametrize("name", OFTEN)
def test_each_parameter_moves_as_it_would_alone_in_60_runs(name: str) -> None:
    run(name, max_examples=60)
