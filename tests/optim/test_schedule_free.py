"""`schedule_free`: the authors' optimizers, the paper's equations around any rule, and the weights that are shown."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_optim import ConfigError, OptimizerFactory, optim, optimizer_info
from lightning_optim.catalog.ready_configs import READY_CONFIGS
from tests.support.cases import every
from tests.support.equality import equal
from tests.support.optimizer_runs import (
    MEMBERS_WITH_TWO_GRADIENTS,
    differences,
    native_class,
    new_grads,
    new_params,
    set_grads,
    trajectory,
)
from tests.support.save_and_load import save_and_load

NUM_STEPS = 60
SETTINGS = {"beta": 0.8, "warmup_steps": 12, "r": 0.5, "weight_lr_power": 1.5}
FREE = {"schedule_free": {"beta": 0.9}}
SHAPES = [(3, 4), (5,), (2, 3, 2)]

# The authors' package


def weights(optimizer: Any) -> list[Tensor]:
    return [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]


def run(build: Callable[[list[Any]], Any]) -> list[list[Tensor]]:
    """Both weights after every seventh step and the training weights after each, of two groups in float64."""
    params = new_params(torch.float64, SHAPES)
    optimizer = build([{"params": params[:2]}, {"params": params[2:], "lr": 0.02}])
    generator = torch.Generator().manual_seed(1)
    optimizer.train()
    shown = []
    for step in range(NUM_STEPS):
        for p in params:
            p.grad = torch.randn(p.shape, dtype=p.dtype, generator=generator) + 0.5 * p.detach()
        optimizer.step()
        shown.append(weights(optimizer))
        if step % 7 == 3:
            optimizer.eval()
            shown.append(weights(optimizer))
            optimizer.train()
    return shown


def options_of(name: str, theirs: dict[str, Any]) -> dict[str, Any]:
    """Our hyperparameters of a ready config, for the authors' arguments."""
    own = dict(READY_CONFIGS[name].values)
    beta = theirs.pop("momentum", None) or theirs["betas"][0]
    if "betas" in theirs:
        own["betas"] = (0.0, theirs.pop("betas")[1])
    keys = {key: theirs.pop(key) for key in ("warmup_steps", "r", "weight_lr_power") if key in theirs}
    if "silent_sgd_phase" in theirs:
        own["degenerate_to_sgd"] = not theirs.pop("silent_sgd_phase")
    return {**own, **theirs, "schedule_free": {"beta": beta, **keys}}


CASES: dict[str, list[dict[str, Any]]] = {
    "schedule_free_adamw": [
        {"betas": (0.9, 0.95), "weight_decay": 0.1, "warmup_steps": 20},
        {"betas": (0.8, 0.99), "r": 0.5, "weight_lr_power": 1.0, "eps": 1e-3},
    ],
    "schedule_free_sgd": [
        {"momentum": 0.9, "weight_decay": 0.1, "warmup_steps": 20},
        {"momentum": 0.5, "r": 1.0, "weight_lr_power": 0.0},
    ],
    "schedule_free_radam": [
        {"betas": (0.9, 0.99), "weight_decay": 0.1},
        {"betas": (0.8, 0.95), "weight_decay": 0.1, "silent_sgd_phase": False, "r": 0.5},
    ],
}
THEIRS = {
    "schedule_free_adamw": "AdamWScheduleFree",
    "schedule_free_sgd": "SGDScheduleFree",
    "schedule_free_radam": "RAdamScheduleFree",
}
EXECUTIONS: dict[str, dict[str, bool]] = {
    "loop": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}
PAIRS = [(name, options) for name, table in CASES.items() for options in table]


@pytest.mark.parametrize("execution", every(["loop", "foreach", "fused"], fast=["loop"]))
@pytest.mark.parametrize(("name", "theirs"), PAIRS, ids=lambda value: str(value).replace(" ", ""))
def test_training_and_evaluation_weights_are_those_of_the_authors(name, theirs, execution) -> None:
    library = pytest.importorskip("schedulefree")
    options = options_of(name, dict(theirs))
    cls = native_class(READY_CONFIGS[name].algorithm)
    ours = run(lambda groups: cls(groups, **{**options, "lr": 0.05}, **EXECUTIONS[execution]))
    expected = run(lambda groups: getattr(library, THEIRS[name])(groups, lr=0.05, **theirs))
    assert len(ours) == NUM_STEPS + 9
    for a, b in zip(ours, expected, strict=True):
        for p, q in zip(a, b, strict=True):
            torch.testing.assert_close(p, q, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_a_ready_config_has_the_defaults_of_the_authors(name) -> None:
    library = pytest.importorskip("schedulefree")
    defaults = getattr(library, THEIRS[name])(new_params()).defaults
    own = {**optimizer_info(READY_CONFIGS[name].algorithm).defaults, **READY_CONFIGS[name].values}
    settings = own["schedule_free"]
    for key in ("lr", "weight_decay", *(["eps"] if "eps" in defaults else [])):
        assert own[key] == defaults[key], key
    for key in ("r", "weight_lr_power", *(["warmup_steps"] if "warmup_steps" in defaults else [])):
        assert settings[key] == defaults[key], key
    assert settings["beta"] == (defaults["momentum"] if "momentum" in defaults else defaults["betas"][0])
    if "betas" in defaults:
        assert own["betas"] == [0.0, defaults["betas"][1]]


# The paper's equations around any rule


DECAY_MODES = {"lion": "decoupled", "nadam": "l2", "rmsprop": "relative", "adan": "absolute"}


@pytest.mark.parametrize("name", every(DECAY_MODES, fast=["lion", "nadam"]))
def test_equations_around_a_rule(name) -> None:
    """arXiv:2405.15682, eq. 3 to 5: z by the rule's step at y, x the weighted average of all z, y between the two."""
    cls, beta = native_class(name), SETTINGS["beta"]
    decayed = {"weight_decay": 0.1, "weight_decay_mode": DECAY_MODES[name]}
    params = new_params(torch.float64)
    optimizer = cls(params, lr=0.05, **decayed, schedule_free=SETTINGS)
    plain_params = new_params(torch.float64)
    plain = cls(plain_params, lr=0.05, **decayed)  # its parameter is moved to y before each step, which shows the step
    z, x = [p.detach().clone() for p in params], [p.detach().clone() for p in params]
    weight_sum, largest = 0.0, 0.0
    for t, given in enumerate(new_grads(torch.float64, num_steps=30), 1):
        grads = [torch.ones_like(p) if g is None else g for p, g in zip(z, given, strict=True)]
        y = [(1 - beta) * a + beta * b for a, b in zip(z, x, strict=True)]
        for p, value in zip(plain_params, y, strict=True):
            p.data.copy_(value)
        lr = 0.05 * min(t / SETTINGS["warmup_steps"], 1)
        plain.param_groups[0]["lr"] = lr
        set_grads(plain_params, grads)
        plain.step()
        largest = max(largest, lr)
        weight = t ** SETTINGS["r"] * largest ** SETTINGS["weight_lr_power"]
        weight_sum += weight
        z = [a - (b - p.detach()) for a, b, p in zip(z, y, plain_params, strict=True)]
        x = [a + weight / weight_sum * (b - a) for a, b in zip(x, z, strict=True)]
        set_grads(params, grads)
        optimizer.step()
        for p, a, b in zip(params, z, x, strict=True):
            torch.testing.assert_close(p.detach(), (1 - beta) * a + beta * b, rtol=0, atol=1e-12)
            torch.testing.assert_close(optimizer.state[p]["schedule_free_z"], a, rtol=0, atol=1e-12)
        optimizer.eval()
        for p, b in zip(params, x, strict=True):
            torch.testing.assert_close(p.detach(), b, rtol=0, atol=1e-12)
        optimizer.train()


def test_each_parameter_has_an_average_of_its_own_from_its_first_step_on() -> None:
    """One that joins late starts its average at its weight, with weights and a warm-up of its own."""
    late, grads = new_params(torch.float64)[:1], [g[:1] for g in new_grads(torch.float64)]
    grads = [[torch.ones_like(late[0]) if g is None else g for g in each] for each in grads]
    alone = optim.AdamW(late, lr=0.05, schedule_free=SETTINGS)
    others = new_params(torch.float64)[1:2]
    joined = copy.deepcopy(late)
    optimizer = optim.AdamW(others, lr=0.05, schedule_free=SETTINGS)
    for _ in range(5):
        set_grads(others, [torch.ones_like(others[0])])
        optimizer.step()
    optimizer.add_param_group({"params": joined})
    for each in grads:
        for params, own in ((late, alone), ([*others, *joined], optimizer)):
            set_grads(params, each if own is alone else [None, *each])
            own.step()
        assert torch.equal(late[0], joined[0])


def test_a_step_with_lr_0_moves_nothing() -> None:
    """Torch takes one to create a state before it loads a distributed checkpoint."""
    for settings in (FREE["schedule_free"], {"weight_lr_power": 0.0}):
        params = new_params()
        before = copy.deepcopy(params)
        optimizer = optim.AdamW(params, lr=0.0, weight_decay=0.1, schedule_free=settings)
        set_grads(params, [torch.ones_like(p) for p in params])
        optimizer.step()
        optimizer.eval()
        assert differences([params], [before]) == []


# The weights that are shown


def trained(
    dtype: torch.dtype = torch.float32, cls: Any = optim.AdamW, **options: Any
) -> tuple[Any, list[nn.Parameter]]:
    params = new_params(dtype)
    optimizer = cls(params, lr=0.05, **FREE, **options)
    for grads in new_grads(dtype, num_steps=7):
        set_grads(params, grads)
        optimizer.step()
    return optimizer, params


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.bfloat16])
def test_the_training_weights_come_back_bit_for_bit(dtype) -> None:
    optimizer, params = trained(dtype, master_weights=dtype == torch.bfloat16)
    before, state = copy.deepcopy(params), copy.deepcopy(optimizer.state_dict())
    for _ in range(2):  # a second call changes nothing
        optimizer.eval()
    shown = copy.deepcopy(params)
    assert len(differences([shown], [before])) > len(params) / 2  # an element of 16 bits may be rounded to the same
    for _ in range(2):
        optimizer.train()
    assert differences([params], [before]) == []
    assert equal(optimizer.state_dict(), state)
    optimizer.eval()
    assert differences([params], [shown]) == []


def test_16_bit_weights_show_the_average_of_their_masters() -> None:
    optimizer, params = trained(torch.bfloat16, master_weights=True)
    optimizer.eval()
    for p in params:
        state = optimizer.state[p]
        assert state["schedule_free_z"].dtype == torch.float32
        x = state["master"].lerp(state["schedule_free_z"], 1 - 1 / 0.9)
        assert torch.equal(p.detach(), x.bfloat16())


def test_a_step_with_the_evaluation_weights_is_refused_before_anything_changes() -> None:
    optimizer, params = trained()
    optimizer.eval()
    before, state = copy.deepcopy(params), copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ConfigError, match=r"^schedule_free: the parameters hold their evaluation weights"):
        optimizer.step()
    assert differences([params], [before]) == [] and equal(optimizer.state_dict(), state)


@pytest.mark.parametrize("shown", ["training", "evaluation"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_run_resumes_bitwise_from_either_weights(dtype, shown) -> None:
    masters = {"master_weights": dtype == torch.bfloat16}

    def before_step(step: int, optimizer: Any) -> Any:
        if step not in (4, 11):
            return optimizer
        params = [p for group in optimizer.param_groups for p in group["params"]]
        if shown == "evaluation":
            optimizer.eval()
        saved = save_and_load([optimizer.state_dict(), [p.detach() for p in params]])
        for p in params:
            p.data.zero_()
        resumed = optim.AdamW([{"params": group["params"]} for group in optimizer.param_groups], **FREE, **masters)
        resumed.load_state_dict(saved[0])
        for p, value in zip(params, saved[1], strict=True):
            p.data.copy_(value)
        resumed.train()
        return resumed

    given = {"dtype": dtype, "lr": 0.05, **FREE, **masters}
    assert (
        differences(trajectory(optim.AdamW, before_step=before_step, **given), trajectory(optim.AdamW, **given)) == []
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule_free_z": torch.zeros(7)}, r"schedule_free_z of parameter 0 has the shape \[7\]"),
        ({"schedule_free_z": "x"}, r"schedule_free_z of parameter 0 is a value of type str, not a tensor"),
        ({"schedule_free_y": torch.zeros(7)}, r"schedule_free_y of parameter 0 has the shape \[7\]"),
        ({"slow": torch.zeros(7)}, r"slow of parameter 0 has the shape \[7\]"),
        ({"schedule_free_weight_sum": None}, r"schedule_free_weight_sum of parameter 0 is None, not a number >= 0"),
        ({"schedule_free_weight_sum": "1"}, r"schedule_free_weight_sum of parameter 0 is '1', not a number >= 0"),
        ({"schedule_free_max_lr": -1.0}, r"schedule_free_max_lr of parameter 0 is -1\.0, not a number >= 0"),
        ({"schedule_free_max_lr": math.nan}, r"schedule_free_max_lr of parameter 0 is nan, not a number >= 0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_state_that_is_none_is_refused_before_anything_changes(changes, message) -> None:
    optimizer, _ = trained()
    saved = save_and_load(optimizer.state_dict())
    before = save_and_load(optimizer.state_dict())
    saved["state"][0] = {key: value for key, value in (saved["state"][0] | changes).items() if value is not None}
    with pytest.raises(ConfigError, match=rf"^the checkpoint's {message}"):
        optimizer.load_state_dict(saved)
    assert equal(optimizer.state_dict(), before)


def test_without_the_modifier_its_state_is_dropped() -> None:
    optimizer, params = trained()
    optimizer.eval()
    optimizer.param_groups[0]["schedule_free"] = None
    set_grads(params, [torch.ones_like(p) for p in params])
    optimizer.state[params[0]]["exp_avg"] = torch.zeros_like(params[0])
    optimizer.step()
    assert not any(key.startswith("schedule_free") for state in optimizer.state.values() for key in state)


def test_in_a_composite_the_groups_with_it_show_their_average() -> None:
    rules = {"signs": {"params": "0", "optimizer": "lion", "schedule_free": {"beta": 0.5}}}
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    optimizer = OptimizerFactory("adamw", lr=0.1, groups=rules)(model)
    for _ in range(3):
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        optimizer.step()
    before = copy.deepcopy(model)
    optimizer.eval()
    same = [torch.equal(p, q) for p, q in zip(model.parameters(), before.parameters(), strict=True)]
    assert same == [False, False, True, True]
    optimizer.train()
    assert equal(model.state_dict(), before.state_dict())


@pytest.mark.parametrize("name", ["adam", "adamw", "amsgrad", "radam"])
def test_an_average_in_place_of_the_momentum_takes_no_buffer_for_it(name) -> None:
    for betas, has_momentum in (((0.0, 0.9), False), ((0.5, 0.9), True)):
        params = new_params()
        optimizer = native_class(name)(params, betas=betas, **FREE)
        set_grads(params, [torch.ones_like(p) for p in params])
        optimizer.step()
        assert all(("exp_avg" in optimizer.state[p]) == has_momentum for p in params)
        assert ("exp_avg" in optimizer_info(name).active_buffers(optimizer.param_groups[0])) == has_momentum


# What is refused

REFUSED = {
    "lookahead": (lambda: optim.AdamW(new_params(), **FREE, lookahead={"k": 2}), r"schedule_free: lookahead averages"),
    "an average of its own": (lambda: optim.MADGRAD(new_params(), **FREE), r"schedule_free: MADGRAD's"),
    "no weight for x": (lambda: optim.AdamW(new_params(), schedule_free={"beta": 0}), r"^schedule_free\.beta: got 0"),
    "no such key": (lambda: optim.AdamW(new_params(), schedule_free={"betas": 1}), r"^schedule_free\.betas: .*'beta'"),
    "in a group": (
        lambda: optim.AdamW([{"params": new_params(), **FREE, "lookahead": {"k": 2}}]),
        r"schedule_free: lookahead averages",
    ),
    "a config": (lambda: OptimizerFactory("madgrad", **FREE), r"schedule_free: MADGRAD's"),
    "torch's class": (
        lambda: OptimizerFactory("adamw", implementation="torch", **FREE),
        r"^schedule_free: our adamw takes it, torch's does not",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_averaged_is_refused(case) -> None:
    build, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        build()


@pytest.mark.parametrize("name", MEMBERS_WITH_TWO_GRADIENTS)
def test_two_gradients_a_step_are_refused(name) -> None:
    with pytest.raises(ConfigError, match="schedule_free: .* takes 2 gradients a step"):
        native_class(name)(new_params(), **FREE)


def test_a_weight_that_overflows_is_refused_with_what_to_type() -> None:
    params = new_params()
    optimizer = optim.SGD(params, lr=1.0, schedule_free={"r": 2000.0})
    set_grads(params, [torch.ones_like(p) for p in params])
    optimizer.step()
    with pytest.raises(ConfigError, match=r"^schedule_free: the weight 2\^2000 .* Type smaller values of r"):
        optimizer.step()


def test_prodigy_weights_a_step_by_its_own_lr() -> None:
    params = new_params(torch.float64)
    optimizer = optim.Prodigy(params, schedule_free={"beta": 0.9, "weight_lr_power": 1.0}, d0=0.01)
    total = 0.0
    for _ in range(12):
        set_grads(params, [torch.ones_like(p) for p in params])
        d = optimizer.state[params[0]].get("d", 0.01)
        optimizer.step()
        total += d  # it never falls
    assert optimizer.state[params[0]]["schedule_free_weight_sum"] == pytest.approx(total)
    assert total > 0.2
