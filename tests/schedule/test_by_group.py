"""`schedule:` in a rule, and several algorithms under one schedule: each group as though it were alone on its curve."""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.optim import lr_scheduler

from lightning_optim import ConfigError, OptimizerFactory, SchedulerFactory, configure_optimizers
from lightning_optim.schedule.catalog import SCHEDULES
from lightning_optim.stages.staged import StagedOptimizer
from lightning_optim.stages.stages import claim, parse_stages
from tests.schedule.test_factory import STATEFUL, TORCH
from tests.support.optimizer_runs import through_a_file

STEPS = 30
PEAKS = {"stem": 0.4, "neck": 0.1, "head": 0.05}


def net() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({name: nn.Linear(3, 3, bias=False) for name in PEAKS})


# name -> each part's algorithm and its hyperparameters, beside its lr.
ALGORITHMS: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "sgd": {name: ("sgd", {"momentum": 0.9}) for name in PEAKS},
    "muon + adamw + sgd": {"stem": ("muon", {}), "neck": ("adamw", {}), "head": ("sgd", {})},
    "lion + adagrad + rmsprop": {"stem": ("lion", {}), "neck": ("adagrad", {}), "head": ("rmsprop", {})},
}


def factory_for(algorithms: str, **schedules: Any) -> OptimizerFactory:
    """A rule for each part, with the schedules given by part."""
    rules = {}
    for part, (algorithm, given) in ALGORITHMS[algorithms].items():
        said = {"schedule": schedules[part]} if part in schedules else {}
        rules[part] = {"params": part, "optimizer": algorithm, "lr": PEAKS[part], **given, **said}
    return OptimizerFactory(ALGORITHMS[algorithms]["head"][0], groups=rules)


def alone(algorithms: str, part: str) -> Any:
    """The optimizer of one part."""
    algorithm, given = ALGORITHMS[algorithms][part]
    return OptimizerFactory(algorithm, lr=PEAKS[part], **given)(net()[part])


def momentum_of(group: dict[str, Any]) -> Any:
    return group.get("momentum", group.get("betas", (None,))[0])


def step(optimizer: Any, scheduler: Any, t: int) -> None:
    """What a plateau watches falls, and then stays."""
    for number, parameter in enumerate(p for group in optimizer.param_groups for p in group["params"]):
        parameter.grad = torch.full_like(parameter, 0.1 * (t + number))
    optimizer.step()
    takes_metric = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) or hasattr(scheduler, "_views")
    if scheduler is not None:
        scheduler.step(*([max(5.0 - t, 0.0)] if takes_metric else []))


def run(optimizer: Any, scheduler: Any, first: int = 0, last: int = STEPS) -> list[dict[str, Any]]:
    """Each group's lr and momentum before each step."""
    seen = []
    for t in range(first, last):
        seen.append({group["name"]: (group["lr"], momentum_of(group)) for group in optimizer.param_groups})
        step(optimizer, scheduler, t)
    return seen


def column(seen: list[dict[str, Any]], name: str) -> list[Any]:
    return [groups[name] for groups in seen]


def curve_of(algorithms: str, part: str, scheduler: SchedulerFactory | None) -> list[Any]:
    """What a part does in an optimizer of its own, under a schedule of its own."""
    optimizer = alone(algorithms, part)
    return column(run(optimizer, scheduler and scheduler(optimizer, STEPS)), "default")


COSINE = {"name": "warmup_cosine", "warmup_steps": 4}


def through_pickle(what: Any) -> Any:
    return pickle.loads(pickle.dumps(what))


# What a rule's schedule means


@pytest.mark.parametrize("algorithms", ALGORITHMS)
def test_constant_stays_at_the_group_s_lr_while_the_others_follow_the_curve(algorithms) -> None:
    optimizer = factory_for(algorithms, head="constant")(net())
    seen = run(optimizer, SchedulerFactory(**COSINE)(optimizer, STEPS))
    assert [lr for lr, _ in column(seen, "head")] == [0.05] * STEPS
    for part in ("stem", "neck"):
        factors = [lr / PEAKS[part] for lr, _ in column(seen, part)]
        by_formula = [
            (t + 1) / 4 if t < 4 else (1 + math.cos(math.pi * (t - 4) / (STEPS - 4))) / 2 for t in range(STEPS)
        ]
        # The formula is rounded at another place than lr times a factor.
        assert factors == pytest.approx(by_formula, abs=1e-12)


@pytest.mark.parametrize("algorithms", ALGORITHMS)
@pytest.mark.parametrize(
    ("run_s", "variation", "meant"),
    [
        ({"name": "warmup_cosine", "warmup_steps": 4}, {"warmup_steps": 9}, {"warmup_steps": 9}),
        ({"name": "warmup_cosine", "warmup_steps": 4}, {"warmup_steps": 0}, {"warmup_steps": 0}),
        ({"name": "warmup_cosine", "final_scale": 0.1}, {"warmup_steps": 3}, {"final_scale": 0.1, "warmup_steps": 3}),
        ({"name": "exponential", "gamma": 0.9}, {"warmup_steps": 9}, {"gamma": 0.9, "warmup_steps": 9}),
        ({"name": "exponential", "gamma": 0.9}, {"gamma": 0.8}, {"gamma": 0.8}),
        ({"name": "cosine_annealing", "T_max": 9}, {"T_max": 7, "eta_min": 0.01}, {"T_max": 7, "eta_min": 0.01}),
        ({"name": "warmup_linear", "total_steps": 20}, {"total_steps": 10}, {"total_steps": 10}),
        ({"name": "noam", "warmup_steps": 4}, {"warmup_steps": 8}, {"warmup_steps": 8}),
    ],
    ids=str,
)
def test_without_a_name_it_is_the_run_s_schedule_with_other_arguments(algorithms, run_s, variation, meant) -> None:
    optimizer = factory_for(algorithms, neck=variation)(net())
    seen = run(optimizer, SchedulerFactory(**run_s)(optimizer, STEPS))
    assert column(seen, "neck") == curve_of(algorithms, "neck", SchedulerFactory(**{"name": run_s["name"], **meant}))
    for part in ("stem", "head"):
        assert column(seen, part) == curve_of(algorithms, part, SchedulerFactory(**run_s))
    assert column(seen, "neck") != curve_of(algorithms, "neck", SchedulerFactory(**run_s))


@pytest.mark.parametrize("algorithms", ALGORITHMS)
@pytest.mark.parametrize(
    "given",
    [g for n, g in STATEFUL.items() if not SCHEDULES[g["name"]].function and "plateau" not in n],
    ids=lambda g: g["name"],
)
def test_with_a_name_it_is_a_schedule_of_its_own(algorithms, given) -> None:
    optimizer = factory_for(algorithms, neck=given)(net())
    seen = run(optimizer, SchedulerFactory(**COSINE)(optimizer, STEPS))
    assert column(seen, "neck") == curve_of(algorithms, "neck", SchedulerFactory(**given))
    for part in ("stem", "head"):
        assert column(seen, part) == curve_of(algorithms, part, SchedulerFactory(**COSINE))


@pytest.mark.parametrize(
    ("said", "factors"),
    [
        ("constant", [1.0] * 5),
        ({"name": "constant"}, [1.0] * 5),
        ({"name": "constant", "warmup_steps": 3}, [1 / 3, 2 / 3, 1.0, 1.0, 1.0]),
        ({"name": "constant", "factor": 0.5, "total_iters": 2}, [0.5, 0.5, 1.0, 1.0, 1.0]),
    ],
    ids=str,
)
def test_constant_is_the_lr_unless_it_is_given_a_factor(said, factors) -> None:
    optimizer = factory_for("sgd", neck=said)(net())
    seen = run(optimizer, SchedulerFactory(**COSINE)(optimizer, STEPS))
    assert [lr for lr, _ in column(seen, "neck")][:5] == [0.1 * factor for factor in factors]


def test_two_groups_with_equal_schedules_share_a_curve_and_three_have_three() -> None:
    shared = factory_for("sgd", stem={"warmup_steps": 2}, neck={"warmup_steps": 2})(net())
    assert len(SchedulerFactory(**COSINE)(shared, STEPS).state_dict()["curves"]) == 2
    apart = factory_for("sgd", stem={"warmup_steps": 2}, neck="constant")(net())
    seen = run(apart, SchedulerFactory(**COSINE)(apart, STEPS))
    assert column(seen, "stem") == curve_of("sgd", "stem", SchedulerFactory("warmup_cosine", warmup_steps=2))
    assert column(seen, "neck") == curve_of("sgd", "neck", None)
    assert column(seen, "head") == curve_of("sgd", "head", SchedulerFactory(**COSINE))


def test_every_group_may_have_one_and_then_none_follows_the_run_s() -> None:
    optimizer = factory_for("sgd", **{part: {"warmup_steps": 2} for part in PEAKS})(net())
    seen = run(optimizer, SchedulerFactory(**COSINE)(optimizer, STEPS))
    for part in PEAKS:
        assert column(seen, part) == curve_of("sgd", part, SchedulerFactory("warmup_cosine", warmup_steps=2))


# Every scheduler


@pytest.mark.parametrize("algorithms", ALGORITHMS)
@pytest.mark.parametrize("given", STATEFUL.values(), ids=STATEFUL)
@pytest.mark.parametrize("still", [False, True], ids=["all on the curve", "one constant"])
def test_each_group_is_as_in_an_optimizer_of_its_own(algorithms, given, still) -> None:
    factory = SchedulerFactory(**given)
    optimizer = factory_for(algorithms, **({"head": "constant"} if still else {}))(net())
    seen = run(optimizer, factory(optimizer, STEPS))
    for part in PEAKS:
        own = None if still and part == "head" else factory
        assert column(seen, part) == curve_of(algorithms, part, own), part
    assert len(set(column(seen, "stem"))) > 1, "the schedule does something"


def test_every_scheduler_of_the_registry_was_tried() -> None:
    assert {given["name"] for given in STATEFUL.values()} == set(SCHEDULES)


@pytest.mark.parametrize("given", STATEFUL.values(), ids=STATEFUL)
@pytest.mark.parametrize("algorithms", ALGORITHMS)
@pytest.mark.parametrize("neck", [None, "constant", {"name": "exponential", "gamma": 0.9, "warmup_steps": 3}], ids=str)
def test_a_run_goes_on_from_its_state_dicts_as_though_never_interrupted(given, algorithms, neck) -> None:
    factory, make = SchedulerFactory(**given), factory_for(algorithms, **({"neck": neck} if neck else {}))
    model = net()
    optimizer = make(model)
    scheduler = factory(optimizer, STEPS)
    run(optimizer, scheduler, 0, 12)
    saved = through_a_file([model.state_dict(), optimizer.state_dict(), scheduler.state_dict()])
    again = net()
    resumed = make(again)
    other = factory(resumed, STEPS)
    for part, state in zip((again, resumed, other), saved, strict=True):
        part.load_state_dict(state)
    assert run(resumed, other, 12, 24) == run(optimizer, scheduler, 12, 24)
    assert all(map(torch.equal, model.parameters(), again.parameters()))
    assert other.get_last_lr() == scheduler.get_last_lr()
    assert other.last_epoch == scheduler.last_epoch if hasattr(scheduler, "last_epoch") else True


# Momentum

CYCLES = {
    "one_cycle": {"name": "one_cycle", "total_steps": 60},
    "cyclic": {"name": "cyclic", "base_lr": 0.01, "step_size_up": 5},
    "cyclic by exp": {"name": "cyclic", "base_lr": 0.01, "step_size_up": 5, "mode": "exp_range", "gamma": 0.9},
}


def torch_s(name: str, optimizer: Any, lr: float, *, momentum: bool) -> Any:
    """torch's own scheduler over an optimizer of its own."""
    given = {key: value for key, value in CYCLES[name].items() if key != "name"}
    cls = TORCH[CYCLES[name]["name"]][0]
    return cls(optimizer, max_lr=lr, cycle_momentum=momentum, **given)


@pytest.mark.parametrize("name", CYCLES)
@pytest.mark.parametrize("algorithms", ["muon + adamw + sgd", "lion + adagrad + rmsprop"])
def test_momentum_or_beta1_is_cycled_where_a_group_has_it(name, algorithms) -> None:
    optimizer = factory_for(algorithms)(net())
    seen = run(optimizer, SchedulerFactory(**CYCLES[name])(optimizer))
    for part, lr in PEAKS.items():
        own = alone(algorithms, part)
        has = ALGORITHMS[algorithms][part][0] != "adagrad"
        assert column(seen, part) == column(run(own, torch_s(name, own, lr, momentum=has)), "default"), part
        assert (len({momentum for _, momentum in column(seen, part)}) > 1) is has
    betas = {g["name"]: g["betas"][1] for g in optimizer.param_groups if "betas" in g}
    assert set(betas.values()) == {0.999 if "adamw" in algorithms else 0.99}, "beta2 is left alone"


@pytest.mark.parametrize("name", CYCLES)
def test_momentum_is_left_alone_on_request_in_every_group(name) -> None:
    optimizer = factory_for("muon + adamw + sgd")(net())
    seen = run(optimizer, SchedulerFactory(**CYCLES[name], cycle_momentum=False)(optimizer))
    for part, lr in PEAKS.items():
        own = alone("muon + adamw + sgd", part)
        assert column(seen, part) == column(run(own, torch_s(name, own, lr, momentum=False)), "default"), part
    assert [{m for _, m in column(seen, part)} for part in PEAKS] == [{0.95}, {0.9}, {0.0}]


@pytest.mark.parametrize("name", CYCLES)
def test_a_constant_group_keeps_its_momentum_while_the_others_cycle(name) -> None:
    optimizer = factory_for("muon + adamw + sgd", neck="constant")(net())
    seen = run(optimizer, SchedulerFactory(**CYCLES[name])(optimizer))
    assert set(column(seen, "neck")) == {(0.1, 0.9)}
    for part in ("stem", "head"):
        own = alone("muon + adamw + sgd", part)
        assert column(seen, part) == column(run(own, torch_s(name, own, PEAKS[part], momentum=True)), "default"), part


def test_a_rule_s_own_cycle_beside_the_run_s_curve() -> None:
    optimizer = factory_for("muon + adamw + sgd", stem=CYCLES["one_cycle"], neck=CYCLES["one_cycle"])(net())
    seen = run(optimizer, SchedulerFactory(**COSINE)(optimizer, STEPS))
    for part in ("stem", "neck"):
        own = alone("muon + adamw + sgd", part)
        assert column(seen, part) == column(run(own, torch_s("one_cycle", own, PEAKS[part], momentum=True)), "default")
    assert column(seen, "head") == curve_of("muon + adamw + sgd", "head", SchedulerFactory(**COSINE))


# What a scheduler by group says of itself


def test_it_speaks_of_every_group_in_the_optimizer_s_order() -> None:
    optimizer = factory_for("muon + adamw + sgd", neck="constant")(net())
    scheduler = SchedulerFactory(**COSINE)(optimizer, STEPS)
    assert isinstance(scheduler, lr_scheduler.LRScheduler)
    assert scheduler.base_lrs == [PEAKS[group["name"]] for group in optimizer.param_groups]
    assert scheduler.last_epoch == 0
    for t in range(3):
        step(optimizer, scheduler, t)
    assert scheduler.get_last_lr() == [group["lr"] for group in optimizer.param_groups]
    assert scheduler.last_epoch == 3


def test_no_warning_says_that_the_order_of_steps_is_wrong() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer = factory_for("muon + adamw + sgd", neck={"warmup_steps": 3})(net())
        run(optimizer, SchedulerFactory(**COSINE)(optimizer, STEPS))


# The length of the run

NEEDS = [
    ({"name": "exponential", "gamma": 0.9}, "constant", False),
    ({"name": "exponential", "gamma": 0.9}, {"name": "warmup_cosine"}, True),
    ({"name": "exponential", "gamma": 0.9}, {"name": "warmup_cosine", "total_steps": 20}, False),
    ({"name": "exponential", "gamma": 0.9}, {"warmup_steps": 3}, False),
    ({"name": "warmup_cosine"}, "constant", True),
    ({"name": "warmup_cosine", "total_steps": 20}, {"warmup_steps": 3}, False),
    ({"name": "cosine_annealing", "T_max": 20}, {"eta_min": 0.01}, False),
]


@pytest.mark.parametrize(("given", "variation", "needed"), NEEDS, ids=[f"{n[0]['name']} {n[1]}" for n in NEEDS])
def test_whether_the_length_is_needed_depends_on_the_rules_too(given, variation, needed) -> None:
    optimizer, factory = factory_for("sgd", neck=variation)(net()), SchedulerFactory(**given)
    assert factory.needs_total_steps_for(optimizer) is needed
    if not needed:
        factory(optimizer)
        return
    with pytest.raises(ConfigError, match=r"total_steps"):
        factory(optimizer)
    factory(optimizer, 20)


def test_if_every_group_has_its_own_the_run_s_schedule_needs_no_length() -> None:
    optimizer = factory_for("sgd", **dict.fromkeys(PEAKS, "constant"))(net())
    assert not SchedulerFactory("warmup_cosine").needs_total_steps_for(optimizer)
    seen = run(optimizer, SchedulerFactory("warmup_cosine")(optimizer))
    assert set(column(seen, "neck")) == {(0.1, 0.9)}


# Loading where the curves are others


def resumed_from(saved: Any, given: dict[str, Any], **schedules: Any) -> tuple[Any, Any]:
    """An optimizer and its scheduler, with the states of others."""
    optimizer = factory_for("sgd", **schedules)(net())
    scheduler = SchedulerFactory(**given)(optimizer, STEPS)
    optimizer.load_state_dict(saved[0])
    scheduler.load_state_dict(saved[1])
    return optimizer, scheduler


EACH_ITS_OWN = {name: {"name": "exponential", "gamma": 0.5} for name in PEAKS}


@pytest.mark.parametrize("given", [COSINE, {"name": "exponential", "gamma": 0.75}], ids=lambda given: given["name"])
@pytest.mark.parametrize(
    ("before", "after"),
    [(EACH_ITS_OWN, {}), ({}, EACH_ITS_OWN), (EACH_ITS_OWN, {"neck": "constant"})],
    ids=["none saved for the rest", "none left for the rest", "one for another"],
)
def test_a_group_is_where_its_new_curve_would_have_brought_it(given, before, after) -> None:
    optimizer = factory_for("sgd", **before)(net())
    scheduler = SchedulerFactory(**given)(optimizer, STEPS)
    run(optimizer, scheduler, last=7)
    resumed, other = resumed_from(through_a_file([optimizer.state_dict(), scheduler.state_dict()]), given, **after)
    whole = factory_for("sgd", **after)(net())
    assert run(resumed, other, 7) == run(whole, SchedulerFactory(**given)(whole, STEPS))[7:]


def test_a_chained_schedule_knows_how_far_it_is() -> None:
    """torch's ChainedScheduler counts no steps itself."""
    given = {"name": "chained", "schedulers": [{"name": "exponential", "gamma": 0.9}, {"name": "constant"}]}
    optimizer = factory_for("sgd")(net())
    scheduler = SchedulerFactory(**given)(optimizer, STEPS)
    run(optimizer, scheduler, last=7)
    saved = through_a_file([optimizer.state_dict(), scheduler.state_dict()])
    resumed, other = resumed_from(saved, given, neck={"name": "linear"})
    whole = factory_for("sgd", neck={"name": "linear"})(net())
    assert run(resumed, other, 7) == run(whole, SchedulerFactory(**given)(whole, STEPS))[7:]
    assert other.last_epoch == STEPS


@pytest.mark.parametrize(("before", "after"), [({"neck": "constant"}, {}), ({}, {"neck": {"patience": 1}})], ids=str)
def test_what_a_plateau_would_have_made_of_a_group_is_not_guessed(before, after) -> None:
    given = {"name": "reduce_on_plateau", "patience": 2}
    optimizer = factory_for("sgd", **before)(net())
    scheduler = SchedulerFactory(**given)(optimizer)
    run(optimizer, scheduler, last=7)
    with pytest.raises(ConfigError, match=r"^scheduler: neck had another schedule in the checkpoint.*saved under"):
        resumed_from(through_a_file([optimizer.state_dict(), scheduler.state_dict()]), given, **after)


@pytest.mark.parametrize("again", [copy.deepcopy, through_pickle], ids=["deepcopy", "pickle"])
def test_a_copy_goes_on_as_the_first_would(again) -> None:
    def fresh() -> Any:
        optimizer = factory_for("sgd", neck="constant")(net())
        scheduler = SchedulerFactory(**COSINE)(optimizer, STEPS)
        run(optimizer, scheduler, last=7)
        return optimizer, scheduler

    assert run(*again(fresh()), first=7) == run(*fresh(), first=7)


def test_a_group_that_somebody_adds_without_a_name_is_called_by_its_place() -> None:
    optimizer = factory_for("sgd")(net())
    scheduler = SchedulerFactory(**COSINE)(optimizer, STEPS)
    optimizer.add_param_group({"params": [("late.weight", nn.Parameter(torch.ones(3)))], "lr": 0.5})
    assert scheduler.state_dict()["group_names"] == [*PEAKS, "group3"]


# Who carries it out


def foreign(optimizer: Any) -> Any:
    return lr_scheduler.ExponentialLR(optimizer, 0.9)


@pytest.mark.parametrize("variation", ["constant", {"warmup_steps": 5}, {"name": "linear"}], ids=str)
@pytest.mark.parametrize("algorithms", ["sgd", "muon + adamw + sgd"])
def test_a_scheduler_of_somebody_else_s_is_refused_at_the_first_step(algorithms, variation) -> None:
    model = net()
    optimizer = factory_for(algorithms, neck=variation)(model)
    scheduler, before = foreign(optimizer), copy.deepcopy(model.state_dict())
    with pytest.raises(ConfigError, match=r"^schedule: .*'neck'.*SchedulerFactory"):
        step(optimizer, scheduler, 1)
    assert all(map(torch.equal, before.values(), model.state_dict().values()))


@pytest.mark.parametrize("variation", ["constant", {"warmup_steps": 5}, {"name": "linear"}], ids=str)
@pytest.mark.parametrize("algorithms", ["sgd", "muon + adamw + sgd"])
def test_without_any_scheduler_it_is_refused_at_the_first_step(algorithms, variation) -> None:
    optimizer = factory_for(algorithms, neck=variation)(net())
    with pytest.raises(ConfigError, match=r"^schedule: .*'neck'.*configure_optimizers"):
        step(optimizer, None, 1)


def test_a_scheduler_of_somebody_else_s_drives_an_optimizer_whose_rules_have_none() -> None:
    optimizer = factory_for("muon + adamw + sgd")(net())
    seen = run(optimizer, foreign(optimizer))
    for part in PEAKS:
        own = alone("muon + adamw + sgd", part)
        assert column(seen, part) == column(run(own, foreign(own)), "default")


class Module(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.parts = net()


def in_module(**schedules: Any) -> OptimizerFactory:
    rules = {
        part: {"params": f"parts.{part}", "lr": lr, **({"schedule": schedules[part]} if part in schedules else {})}
        for part, lr in PEAKS.items()
    }
    return OptimizerFactory("sgd", momentum=0.9, groups=rules)


@pytest.mark.parametrize(
    ("variation", "factors"),
    [
        ({"warmup_steps": 4}, [0.25, 0.5, 0.75, 1.0, 1.0]),
        ({"name": "exponential", "gamma": 0.5}, [1.0, 0.5, 0.25, 0.125, 0.0625]),
        ("constant", [1.0] * 5),
    ],
    ids=str,
)
def test_configure_optimizers_builds_the_rules_schedules_where_there_is_no_scheduler(variation, factors) -> None:
    built = configure_optimizers(Module(), in_module(neck=variation))
    assert built["lr_scheduler"]["interval"] == "step"
    seen = run(built["optimizer"], built["lr_scheduler"]["scheduler"])
    assert [lr for lr, _ in column(seen, "neck")][:5] == [0.1 * factor for factor in factors]
    assert [lr for lr, _ in column(seen, "head")] == [0.05] * STEPS


def test_configure_optimizers_builds_no_scheduler_that_nobody_asks_for() -> None:
    assert list(configure_optimizers(Module(), in_module())) == ["optimizer"]


# Wrong configs

WRONG = [
    ("cosin", ["name", "'cosin'", "cosine_annealing"]),
    ("", ["name", "''"]),
    (3, ["", "3", "schedule: constant"]),
    ([], ["", "[]", "schedule: constant"]),
    ({}, ["", "{}", "schedule: constant"]),
    (["constant"], ["", "['constant']", "schedule: constant"]),
    ({"name": "step"}, ["step_size", "step needs it"]),
    ({"name": "step", "step_sise": 3}, ["step_sise", "Did you mean 'step_size'?"]),
    ({"name": "step", "step_size": 0}, ["step_size", "0", "a whole number >= 1"]),
    ({"name": "one_cycle", "max_lr": 0.1}, ["max_lr", "each group's lr is its peak"]),
    ({"name": None}, ["name", "None"]),
    ({"name": "linear", "interval": "epoch"}, ["interval", "same for all groups"]),
    ({"interval": "epoch"}, ["interval", "same for all groups"]),
    ({"warmup_step": 3}, ["warmup_step", "Did you mean 'warmup_steps'?"]),
    ({"warmup_steps": -1}, ["warmup_steps", "-1", "a whole number >= 0"]),
    ({"warmup_steps": "a"}, ["warmup_steps", "'a'", "a whole number >= 0"]),
    ({"warmup_steps": None}, ["warmup_steps", "None", "a whole number >= 0"]),
    ({"name": "reduce_on_plateau"}, ["name", "reduce_on_plateau", "cannot differ by group"]),
    ("reduce_on_plateau", ["name", "reduce_on_plateau", "cannot differ by group"]),
    ({"name": "lambda", "lr_lambda": abs}, ["name", "lambda", "cannot differ by group"]),
    ("multiplicative", ["lr_lambda", "multiplicative"]),
    ({"name": "sequential", "schedulers": [{"name": "step"}], "milestones": [3]}, ["schedulers[0].step_size"]),
]


@pytest.mark.parametrize(("variation", "said"), WRONG, ids=[str(variation) for variation, _ in WRONG])
def test_a_wrong_schedule_is_refused_when_the_factory_is_made(variation, said) -> None:
    with pytest.raises(ConfigError) as caught:
        OptimizerFactory("sgd", groups={"neck": {"params": "neck", "schedule": variation}})
    key = "groups.neck.schedule" + (f".{said[0]}" if said[0] else "")
    assert str(caught.value).startswith(f"{key}: "), caught.value
    assert all(part in str(caught.value) for part in said[1:]), caught.value


WRONG_WITH_RUN = [
    ({"name": "exponential", "gamma": 0.9}, {"T_max": 5}, ["schedule.T_max", "exponential", "neck"]),
    ({"name": "one_cycle"}, {"warmup_steps": 3}, ["schedule.warmup_steps", "one_cycle", "neck"]),
    ({"name": "reduce_on_plateau"}, {"warmup_steps": 3}, ["schedule.warmup_steps", "reduce_on_plateau", "neck"]),
    ({"name": "step", "step_size": 3}, {"milestones": [3]}, ["schedule.milestones", "step", "neck"]),
    ({"name": "exponential", "gamma": 0.9}, {"total_steps": 9}, ["schedule.total_steps", "exponential", "neck"]),
    ({"name": "noam", "warmup_steps": 3}, {"warmup_steps": 0}, ["schedule.warmup_steps", "noam", "neck"]),
    ({"name": "warmup_cosine"}, {"warmup_steps": 40}, ["warmup_steps", "40", "30 steps", "neck"]),
    (
        {"name": "warmup_cosine"},
        {"name": "warmup_linear", "warmup_steps": 40},
        ["warmup_steps", "40", "30 steps", "neck"],
    ),
    ({"name": "warmup_cosine"}, {"name": "cyclic", "base_lr": 0.2}, ["base_lr", "0.2", "0.1", "neck"]),
]


@pytest.mark.parametrize(
    ("given", "variation", "said"), WRONG_WITH_RUN, ids=[f"{w[0]['name']} {w[1]}" for w in WRONG_WITH_RUN]
)
def test_a_variation_that_the_run_s_schedule_cannot_take_is_refused_with_the_group(given, variation, said) -> None:
    optimizer = factory_for("sgd", neck=variation)(net())
    with pytest.raises(ConfigError) as caught:
        SchedulerFactory(**given)(optimizer, STEPS)
    assert str(caught.value).startswith("schedule."), caught.value
    assert all(part in str(caught.value) for part in said), caught.value


def test_rules_that_say_different_schedules_of_one_group_are_refused() -> None:
    groups = {"neck": {"params": "neck", "schedule": "constant"}, "all_of_it": {"params": "*", "schedule": "linear"}}
    with pytest.raises(ConfigError, match=r"^groups\.all_of_it\.schedule: .*groups\.neck\.schedule.*priority: 1"):
        OptimizerFactory("sgd", groups=groups)(net())
    groups["neck"]["priority"] = 1
    optimizer = OptimizerFactory("sgd", groups=groups)(net())
    found = {group["name"]: group["schedule"] for group in optimizer.param_groups}
    assert found == {"all_of_it": {"name": "linear"}, "all_of_it.neck": {"name": "constant"}}


# Under stages

THAW = 7
STAGES = {
    "head": {"params": "head", "allow_unused": True},
    "backbone": {"params": ["stem", "neck"], "at": {"step": THAW}, "lr_scale": 0.25, "warmup_steps": 4},
}
STAGED = {
    "muon + adamw + sgd, cosine": ("muon + adamw + sgd", COSINE, {}),
    "muon + adamw + sgd, one_cycle": ("muon + adamw + sgd", {"name": "one_cycle"}, {}),
    "muon + adamw + sgd, one constant": ("muon + adamw + sgd", COSINE, {"neck": "constant"}),
    "muon + adamw + sgd, cyclic, one warm-up more": (
        "muon + adamw + sgd",
        CYCLES["cyclic"],
        {"stem": {"name": "warmup_cosine", "warmup_steps": 9}},
    ),
    "sgd, by group": ("sgd", COSINE, {"head": {"warmup_steps": 9}, "stem": {"name": "exponential", "gamma": 0.9}}),
    "lion + adagrad + rmsprop, plateau": (
        "lion + adagrad + rmsprop",
        {"name": "reduce_on_plateau", "patience": 2},
        {"neck": "constant"},
    ),
    "lion + adagrad + rmsprop, warmed restarts": (
        "lion + adagrad + rmsprop",
        {"name": "cosine_annealing_warm_restarts", "T_0": 5, "warmup_steps": 3},
        {"neck": {"warmup_steps": 6}},
    ),
}


class Staged:
    """An optimizer under stages, and all that goes into its checkpoint."""

    def __init__(self, algorithms: str, given: dict[str, Any], schedules: dict[str, Any], live: list[str]) -> None:
        self.model = net()
        self.optimizer = factory_for(algorithms, **schedules)(self.model)
        self.scheduler = SchedulerFactory(**given)(self.optimizer, STEPS)
        stages = claim(parse_stages(STAGES), self.model)
        self.staged = StagedOptimizer(self.optimizer, self.model, stages, [self.scheduler])
        self.staged.activate_stages(live)
        self.optimizer.register_step_pre_hook(self.staged.before_step)
        self.optimizer.register_step_post_hook(self.staged.after_step)
        self.parts = (self.model, self.optimizer, self.scheduler, self.staged)

    def run(self, first: int = 0) -> tuple[list[Any], list[Any]]:
        """`(checkpoint before each step, what each live group has in it)`."""
        saved, seen = [], []
        for t in range(first, STEPS):
            saved.append(through_a_file([part.state_dict() for part in self.parts]))
            if t == THAW:
                self.staged.thaw("backbone")
            self.staged.follow()
            groups = self.optimizer.param_groups
            seen.append({group["name"]: (group["lr"], momentum_of(group)) for group in groups})
            set_gradients(self.model, t)
            self.optimizer.step()
            advance(self.scheduler, t)
        return saved, seen


def set_gradients(model: nn.Module, t: int) -> None:
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, 0.1 * (t + number))


def advance(scheduler: Any, t: int) -> None:
    takes_metric = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) or hasattr(scheduler, "_views")
    scheduler.step(*([max(5.0 - t, 0.0)] if takes_metric else []))


@pytest.mark.parametrize(("algorithms", "given", "schedules"), STAGED.values(), ids=STAGED)
def test_a_late_group_is_on_its_curve_and_the_early_ones_stay(algorithms, given, schedules) -> None:
    late = Staged(algorithms, given, schedules, ["head"])
    whole_model = net()
    whole = factory_for(algorithms, **schedules)(whole_model)
    scheduler = SchedulerFactory(**given)(whole, STEPS)
    _, seen = late.run()
    for t, groups in enumerate(seen):
        parents = {group["name"]: group for group in whole.param_groups}
        climb = 0.25 * min(1.0, (t - THAW + 1) / 4)
        assert list(groups) == (["head"] if t < THAW else ["head", "backbone.stem", "backbone.neck"])
        for name, (lr, momentum) in groups.items():
            parent = parents[name.rpartition(".")[2]]
            assert lr == (parent["lr"] if name == "head" else parent["lr"] * climb), (t, name)
            assert momentum == momentum_of(parent), (t, name)
        set_gradients(whole_model, t)
        whole.step()
        advance(scheduler, t)
    assert torch.equal(late.model["head"].weight, whole_model["head"].weight)


@pytest.mark.parametrize(("algorithms", "given", "schedules"), STAGED.values(), ids=STAGED)
def test_under_stages_it_resumes_bitwise_from_every_step(algorithms, given, schedules) -> None:
    first = Staged(algorithms, given, schedules, ["head"])
    saved, seen = first.run()
    for t, states in enumerate(saved):
        again = Staged(algorithms, given, schedules, ["head"] if t <= THAW else ["head", "backbone"])
        for part, state in zip(again.parts, states, strict=True):
            part.load_state_dict(state)
        assert again.run(first=t)[1] == seen[t:], t
        assert all(map(torch.equal, first.model.parameters(), again.model.parameters())), t
