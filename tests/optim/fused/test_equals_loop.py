"""A kernel computes what the loop computes: every member, every decay mode, every modifier.

The members of `KINDS` have structures of kernels that no other has: each meets all modifiers at once, and a few modes
and modifiers alone, in turn. The other members go through the same lines with another rule. `EVERY_COMBINATION` runs
every member with every mode and every modifier.
"""

from __future__ import annotations

import pytest
import torch

from lightning_optim import optimizer_info
from tests.support.cases import EVERY_COMBINATION, every
from tests.support.fused_runs import count_skipped, relative_error, train
from tests.support.modifier_cases import MODIFIER_VALUES, TRACED_PAIRS
from tests.support.optimizer_runs import MEMBERS_WITH_SUMS, TRACED_MEMBERS, TRACED_SETTINGS

# The loop itself rounds each operation to 6e-8; its vector code takes roots with an error of one unit.
TOLERANCE = 2e-7
MAGNIFYING, MAGNIFIED = ("prodigy", "storm"), 2e-6
"""Rules whose step depends on small differences: the loop itself is up to 1e-5 from the run in float64."""


def case_id(case):
    return "-".join(map(str, case))


KINDS = ("adamw", "lion", "madgrad", "storm", "prodigy", "lamb", "adamp", "adam_mini", "adai", "ef_sgd")
"""Without sums; by signs; from the start; of two gradients; with sums over all, over tensors and over rows."""


def decay_modes(name):
    """Each mode of a member, masked where it can be."""
    for mode in optimizer_info(name).decay_modes:
        yield mode, False
        if mode not in ("l1", "l2", "update"):
            yield mode, True


def in_turn(index, values, *, always=()):
    """Two of the values, others for each index, and those that are always among them."""
    if EVERY_COMBINATION:
        return values
    return [value for i, value in enumerate(values) if (i - 2 * index) % len(values) < 2 or value in always]


DECAYS = [
    (name, mode, cautious)
    for index, name in enumerate(TRACED_MEMBERS if EVERY_COMBINATION else (*KINDS, "lars"))
    for mode, cautious in in_turn(index, list(decay_modes(name)), always=[("update", False), ("corrected", True)])
]
PAIRS = [
    pair
    for index, name in enumerate(TRACED_MEMBERS if EVERY_COMBINATION else KINDS)
    for pair in in_turn(index, [pair for pair in TRACED_PAIRS if pair[0] == name], always=[(name, "all")])
]


@pytest.fixture(autouse=True)
def all_fused(monkeypatch):
    counts = count_skipped(monkeypatch)
    yield
    assert counts and not any(counts), "some tensors were left to the loop"


def assert_equal_runs(name, **options):
    num_steps = 50
    fused, loop = (train(name, num_steps, fused=fused, **options) for fused in (True, False))
    assert relative_error(fused, loop) <= (MAGNIFIED if name in MAGNIFYING else TOLERANCE)


FAST_SETTINGS = ("lamb-0", "adam_mini-1")


@pytest.mark.parametrize(
    ("name", "options"),
    every(
        TRACED_SETTINGS,
        fast=FAST_SETTINGS,
        id=lambda case: f"{case[0]}-{[options for name, options in TRACED_SETTINGS if name == case[0]].index(case[1])}",
    ),
)
def test_each_variant_of_a_member(name, options):
    assert_equal_runs(name, **options)


@pytest.mark.parametrize(
    ("name", "mode", "cautious"),
    every(
        DECAYS,
        fast=("lion-corrected-True", "lars-update-False"),
        id=case_id,
    ),
)
def test_each_decay_mode(name, mode, cautious):
    assert_equal_runs(name, weight_decay=0.05, weight_decay_mode=mode, cautious_decay=cautious)


@pytest.mark.parametrize(
    ("name", "modifier"),
    every(PAIRS, fast=("adamw-all",), id=case_id),
)
def test_each_modifier(name, modifier):
    assert_equal_runs(name, **MODIFIER_VALUES[modifier])


@pytest.mark.parametrize("name", every([*KINDS, "yogi"], fast=["yogi"]))
def test_maximize(name):
    assert_equal_runs(name, maximize=True)


@pytest.mark.parametrize("name", every([*KINDS, "stable_adamw"], fast=["stable_adamw"]))
def test_float64(name):
    fused, loop = (train(name, 20, fused=fused, dtype=torch.float64) for fused in (True, False))
    assert relative_error(fused, loop) <= 1e-14


# The two 16-bit dtypes differ only in how a kernel loads and stores.
IN_16_BITS = [
    (dtype, name) for dtype in (torch.bfloat16, torch.float16) for name in (*KINDS, "mars", "yogi")
    if name in KINDS[::3] or dtype == torch.bfloat16 or name == "lamb"
]  # fmt: skip


@pytest.mark.parametrize(
    ("dtype", "name"),
    every(
        [case for case in IN_16_BITS if case[1] != "yogi"],
        fast=["torch.bfloat16-adamw"],
        id=case_id,
    ),
)
def test_master_weights_of_16_bit_parameters(name, dtype):
    fused, loop = (train(name, 10, fused=fused, dtype=dtype, master_weights=True) for fused in (True, False))
    # Where the masters differ by 1e-7, a few of them round to another 16-bit number.
    assert relative_error(fused, loop) <= 1e-4


# Adai's first kernel stores the second moment, whose mean the other one needs; Prodigy is refused in float16.
@pytest.mark.parametrize(
    ("dtype", "name"),
    every([case for case in IN_16_BITS if case[1] not in ("adai", "prodigy")], fast=["torch.float16-lamb"], id=case_id),
)
def test_16_bit_parameters_are_computed_in_float32_and_rounded_once(name, dtype):
    options = {"initial_accumulator_value": 2.0**-10} if name == "yogi" else {}  # the default is no 16-bit number
    if dtype == torch.float16 and "eps" in optimizer_info(name).hyperparameters:
        options["eps"] = 2.0**-13  # the default is 0 in float16, which the loop would divide by
    step = train(name, 1, fused=True, dtype=dtype, **options)
    exact = train(name, 1, fused=True, through=dtype, **options)
    # Vector code adds the elements of a block in an order that depends on the dtype and the processor: a sum of floats
    # may differ in its last bits, and what it makes of an element may lie on the other side of a middle.
    slack = 1e-6 if name in MEMBERS_WITH_SUMS else 0.0
    for x, y in zip(step, exact, strict=True):
        nearest = [(y * factor).to(dtype) for factor in (1 - slack, 1, 1 + slack)]
        assert torch.stack([x == value for value in nearest]).any(0).all()


def test_complex_parameters():
    fused, loop = (train("adamw", 20, fused=fused, dtype=torch.complex64, weight_decay=0.1) for fused in (True, False))
    pairs = zip(fused, loop, strict=True)
    fused, loop = zip(*((torch.view_as_real(x), torch.view_as_real(y)) for x, y in pairs), strict=True)
    assert relative_error(fused, loop) <= TOLERANCE
