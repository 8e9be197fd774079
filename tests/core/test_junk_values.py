"""Values that no config should hold are refused by their key, in a message that any terminal can print."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from lightning_optim import (
    ConfigError,
    OptimizerFactory,
    OptimizerMonitor,
    OptimizerOverride,
    RNGState,
    SchedulerFactory,
    SophiaHessian,
    StagedUnfreeze,
)
from lightning_optim.core.config_values import to_plain
from tests.support.junk_values import OddMapping, OddObject, OddText


def recursive(num_references: int) -> list[Any]:
    value: list[Any] = []
    value.extend([value] * num_references)
    return value


def anchors(levels: int) -> list[Any]:
    value: Any = 1
    for _ in range(levels):
        value = [value] * 10
    return value


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (Fraction(10**400, 3), "a Fraction that is no number of a computer"),
        (OddMapping(a=1), "a OddMapping of which the values cannot be read: RuntimeError"),
        (OddObject(), "a OddObject that cannot be printed: RuntimeError"),
        (frozenset({10**5000}), "cannot be printed: ValueError"),
        (np.array([10**5000], dtype=object), "an integer of 5,000 digits"),
        ({1: 2, "1": 3}, "given twice"),
        (recursive(1), "more than 50 mappings and lists"),
        (recursive(2), "more than 50 mappings and lists"),
        (anchors(10), "more than 100,000 values"),
        (np.zeros(10**6), "more than 100,000 values"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_values_that_no_message_or_memory_holds_are_refused(value: Any, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        to_plain(value, "lr")
    assert str(caught.value).startswith("lr") and part in str(caught.value)


def test_subclasses_of_text_become_text() -> None:
    plain = to_plain([OddText("adamw"), np.str_("sgd")])
    assert plain == ["adamw", "sgd"] and {type(text) for text in plain} == {str}


@pytest.mark.parametrize("text", ["a\x1b[31m", "\u202eadamw", "\ud800", "a\rb", "\x9b"], ids=ascii)
def test_control_characters_are_escaped_in_messages(text: str) -> None:
    for run in (
        lambda: OptimizerFactory("adamw", groups={"a": {"params": "*", text: 1}}),
        lambda: StagedUnfreeze({"a": {"params": "*", text: 1}}),
        lambda: SchedulerFactory("linear", **{text: 1}),
    ):
        with pytest.raises(ConfigError) as caught:
            run()
        assert str(caught.value).isprintable() and ascii(text)[1:-1] in str(caught.value)


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(ConfigError, match=r"^lr: got 'xxx") as caught:
        OptimizerFactory("adamw", lr="x" * 10_000)
    assert len(str(caught.value)) <= 4000 and str(caught.value).endswith("Type for example lr: 0.001")
    assert "characters)" in str(caught.value)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: OptimizerMonitor(every_n_step=5),
            "every_n_step: OptimizerMonitor has no .*Did you mean 'every_n_steps'",
        ),
        (lambda: OptimizerMonitor(5, True), "OptimizerMonitor: too many positional"),
        (lambda: SophiaHessian(every=1), "every: SophiaHessian has no argument"),
        (lambda: RNGState(seed=1), "seed: RNGState has no argument 'seed'. Available: verify_checkpoints"),
        (lambda: StagedUnfreeze(), "StagedUnfreeze: missing a required argument: 'stages'"),
        (lambda: StagedUnfreeze({}, frozen=True), "frozen: StagedUnfreeze has no argument"),
        (lambda: OptimizerOverride(optimiser=1), "optimiser: OptimizerOverride .*Did you mean 'optimizer'"),
        (lambda: OptimizerOverride("adamw"), "optimizer: got a str, not a OptimizerFactory"),
        (
            lambda: OptimizerFactory("adamw", 0.1),
            "OptimizerFactory: takes one value without a key, the name, and got 2",
        ),
        (lambda: SchedulerFactory("linear", interval=np.array(["a", "b"])), r"interval: there is no interval \['a'"),
        (lambda: StagedUnfreeze({"a": {"params": "*"}}, frozen_norm=np.array([1, 2])), "frozen_norm: there is no mode"),
        (lambda: OptimizerFactory("adamw", lr=torch.tensor(0.5, device="meta")), "lr: got"),
        (lambda: SchedulerFactory("warmup_cosine", total_steps=2**63), f"total_steps: .*Type at most {2**63 - 1}"),
        (lambda: OptimizerFactory("adamw", groups=3, **{"groups.a.lr": 1}), "groups: got 3, which has no keys"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_wrong_arguments_are_refused_by_their_key(build: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        build()
