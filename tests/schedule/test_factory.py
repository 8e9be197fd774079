"""SchedulerFactory: torch's schedulers, with each group's lr as its peak."""

import copy
import inspect
import io
from importlib import import_module

import pytest
import torch
from torch.optim import lr_scheduler

from lightning_optim import ConfigError, SchedulerFactory
from lightning_optim.schedule.catalog import SCHEDULES
from lightning_optim.schedule.curves import InverseSqrt, Noam, WarmupCosine, WarmupLinear, WarmupStableDecay
from tests.support.messages import check_message

PEAKS = [0.4, 0.05]
NUM_STEPS = 30


def optimizer_for(cls=torch.optim.SGD, peaks=PEAKS, **given):
    given = {"momentum": 0.9, **given} if cls is torch.optim.SGD else given
    return cls([{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in peaks], **given)


def step(scheduler, t):
    """One step of the optimizer, then of the schedule; what a plateau watches falls, and then stays."""
    scheduler.optimizer.step()
    scheduler.step(*([max(5 - t, 0.0)] if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) else []))


def run(scheduler, start=0, num_steps=NUM_STEPS):
    """Each group's lr and momentum at each step."""
    seen = []
    for t in range(start, start + num_steps):
        groups = scheduler.optimizer.param_groups
        seen.append([(g["lr"], g.get("momentum", g.get("betas", (None,))[0])) for g in groups])
        step(scheduler, t)
    return seen


def lrs(scheduler, num_steps=NUM_STEPS):
    return [[lr for lr, _ in groups] for groups in run(scheduler, num_steps=num_steps)]


def lr_lambda(t):
    return 0.9**t


# name -> torch's class, the arguments for both, and what either gets beside them.
TORCH = {
    "constant": (lr_scheduler.ConstantLR, {"factor": 0.3, "total_iters": 7}),
    "linear": (lr_scheduler.LinearLR, {"start_factor": 0.1, "end_factor": 0.7, "total_iters": 7}),
    "exponential": (lr_scheduler.ExponentialLR, {"gamma": 0.93}),
    "step": (lr_scheduler.StepLR, {"step_size": 7, "gamma": 0.3}),
    "multi_step": (lr_scheduler.MultiStepLR, {"milestones": [3, 11, 12], "gamma": 0.3}),
    "polynomial": (lr_scheduler.PolynomialLR, {"total_iters": 20, "power": 1.7}),
    "cosine_annealing": (lr_scheduler.CosineAnnealingLR, {"T_max": 11, "eta_min": 0.01}),
    "cosine_annealing_warm_restarts": (
        lr_scheduler.CosineAnnealingWarmRestarts,
        {"T_0": 5, "T_mult": 2, "eta_min": 0.01},
    ),
    "cyclic": (lr_scheduler.CyclicLR, {"base_lr": 0.01, "step_size_up": 3, "step_size_down": 4, "mode": "triangular2"}),
    "one_cycle": (lr_scheduler.OneCycleLR, {"total_steps": 60, "pct_start": 0.4, "three_phase": True}),
    "reduce_on_plateau": (lr_scheduler.ReduceLROnPlateau, {"patience": 2, "factor": 0.5, "min_lr": 0.02}),
    "lambda": (lr_scheduler.LambdaLR, {"lr_lambda": lr_lambda}),
    "multiplicative": (lr_scheduler.MultiplicativeLR, {"lr_lambda": lr_lambda}),
}
BY_PEAK = ("cyclic", "one_cycle")
WRAPPABLE = [name for name in TORCH if name not in (*BY_PEAK, "reduce_on_plateau")]


def by_hand(name, optimizer, **given):
    cls, arguments = TORCH[name]
    return cls(optimizer, **{**arguments, **({"max_lr": list(PEAKS)} if name in BY_PEAK else {}), **given})


@pytest.mark.parametrize("name", TORCH)
def test_a_torch_schedule_is_torch_s_own_built_by_hand(name):
    cls, arguments = TORCH[name]
    scheduler = SchedulerFactory(name, **arguments)(optimizer_for())
    assert type(scheduler) is cls
    assert run(scheduler) == run(by_hand(name, optimizer_for()))


REQUIRED = {
    "exponential": {"gamma": 0.9},
    "step": {"step_size": 4},
    "multi_step": {"milestones": [4]},
    "cosine_annealing": {"T_max": 20},
    "cosine_annealing_warm_restarts": {"T_0": 4},
    "cyclic": {"base_lr": 0.01},
    "one_cycle": {"total_steps": 30},
    "lambda": {"lr_lambda": lr_lambda},
    "multiplicative": {"lr_lambda": lr_lambda},
}


@pytest.mark.parametrize("name", TORCH)
def test_the_defaults_are_those_of_torch_s_own(name):
    cls, required = TORCH[name][0], REQUIRED.get(name, {})
    peaks = {"max_lr": list(PEAKS)} if name in BY_PEAK else {}
    ours = SchedulerFactory(name, **required)(optimizer_for())
    assert run(ours) == run(cls(optimizer_for(), **required, **peaks))


NOT_TAKEN = {"optimizer", "last_epoch", "max_lr", "epochs", "steps_per_epoch", "scale_fn", "schedulers", "lr_lambda"}


@pytest.mark.parametrize("name", [name for name, info in SCHEDULES.items() if info.path.startswith("torch.")])
def test_the_arguments_are_those_of_the_signature(name):
    module, _, cls = SCHEDULES[name].path.partition(":")
    signature = set(inspect.signature(getattr(import_module(module), cls)).parameters) - NOT_TAKEN
    ours = set(SCHEDULES[name].hyperparameters) - {"monitor"}
    # The factory's own argument stands for torch's of that name.
    assert ours | {"total_steps"} == signature | {"total_steps"}


def test_every_schedule_of_torch_is_there():
    known = {info.path.partition(":")[2] for info in SCHEDULES.values()}
    assert {name for name in lr_scheduler.__all__ if name != "LRScheduler"} <= known


@pytest.mark.parametrize("name", ["sequential", "chained"])
def test_blocks_are_torch_s_own_built_by_hand(name):
    milestones = {"milestones": [4, 9]} if name == "sequential" else {}
    blocks = [{"name": n, **TORCH[n][1]} for n in ("linear", "cosine_annealing", "exponential")]
    ours = SchedulerFactory(name, schedulers=blocks, **milestones)(optimizer_for())
    optimizer = optimizer_for()
    children = [by_hand(block["name"], optimizer) for block in blocks]
    if name == "sequential":
        theirs = lr_scheduler.SequentialLR(optimizer, children, **milestones)
    else:
        theirs = lr_scheduler.ChainedScheduler(children, optimizer)
    assert type(ours) is type(theirs)
    assert run(ours) == run(theirs)


CURVES = {
    "warmup_cosine": ({"final_scale": 0.1}, WarmupCosine(5, 25, 0.1)),
    "warmup_linear": ({"final_scale": 0.1}, WarmupLinear(5, 25, 0.1)),
    "warmup_stable_decay": (
        {"decay_steps": 8, "decay_shape": "sqrt", "final_scale": 0.1},
        WarmupStableDecay(5, 25, 8, "sqrt", 0.1),
    ),
    "noam": ({}, Noam(5)),
    "inverse_sqrt": ({"timescale": 7}, InverseSqrt(5, 7)),
}
ENDED = [name for name in CURVES if SCHEDULES[name].length]


@pytest.mark.parametrize("name", CURVES)
def test_a_curve_is_a_factor_on_each_group_s_peak(name):
    given, curve = CURVES[name]
    total = {"total_steps": 25} if name in ENDED else {}
    scheduler = SchedulerFactory(name, warmup_steps=5, **total, **given)(optimizer_for())
    assert type(scheduler) is lr_scheduler.LambdaLR
    assert lrs(scheduler) == [[peak * curve(t) for peak in PEAKS] for t in range(NUM_STEPS)]


@pytest.mark.parametrize(
    ("name", "given", "curve"),
    [
        pytest.param("warmup_cosine", {}, WarmupCosine(0, 25, 0.0), id="warmup_cosine"),
        pytest.param("warmup_stable_decay", {}, WarmupStableDecay(0, 25, 2, "linear", 0.0), id="a_tenth_decays"),
        pytest.param("inverse_sqrt", {}, InverseSqrt(0, 10_000), id="inverse_sqrt"),
        pytest.param("inverse_sqrt", {"warmup_steps": 6}, InverseSqrt(6, 6), id="inverse_sqrt_of_its_warmup"),
    ],
)
def test_the_defaults_of_the_curves(name, given, curve):
    scheduler = SchedulerFactory(name, **given)(optimizer_for(), 25)
    assert lrs(scheduler) == [[peak * curve(t) for peak in PEAKS] for t in range(NUM_STEPS)]


# A group's lr is its peak


@pytest.mark.parametrize("name", BY_PEAK)
def test_each_group_climbs_to_its_own_lr(name):
    arguments = {**TORCH[name][1], **({"mode": "triangular"} if name == "cyclic" else {})}
    seen = lrs(SchedulerFactory(name, **arguments)(optimizer_for()))
    assert [max(column) for column in zip(*seen, strict=True)] == PEAKS
    assert all(first < peak for first, peak in zip(seen[0], PEAKS, strict=True))


@pytest.mark.parametrize("name", BY_PEAK)
@pytest.mark.parametrize(
    ("cls", "cycled"),
    [(torch.optim.SGD, True), (torch.optim.AdamW, True), (torch.optim.RMSprop, True), (torch.optim.Adagrad, False)],
)
def test_momentum_is_cycled_where_there_is_one(name, cls, cycled):
    scheduler = SchedulerFactory(name, **TORCH[name][1])(optimizer_for(cls))
    assert run(scheduler) == run(by_hand(name, optimizer_for(cls), cycle_momentum=cycled))
    momenta = {momentum for groups in run(scheduler, num_steps=1) for _, momentum in groups}
    assert (momenta == {None}) is not cycled


@pytest.mark.parametrize("name", BY_PEAK)
def test_momentum_is_left_alone_on_request(name):
    seen = run(SchedulerFactory(name, cycle_momentum=False, **TORCH[name][1])(optimizer_for()))
    assert {momentum for groups in seen for _, momentum in groups} == {0.9}


@pytest.mark.parametrize("name", BY_PEAK)
def test_momentum_that_is_not_there_cannot_be_cycled(name):
    with pytest.raises(ConfigError, match=r"^cycle_momentum: Adagrad .* cycle_momentum: false"):
        SchedulerFactory(name, cycle_momentum=True, **TORCH[name][1])(optimizer_for(torch.optim.Adagrad))


# Warm-up


@pytest.mark.parametrize("name", WRAPPABLE)
def test_a_warmup_is_torch_s_sequence_of_the_two(name):
    scheduler = SchedulerFactory(name, warmup_steps=4, **TORCH[name][1])(optimizer_for())
    optimizer = optimizer_for()
    climb = lr_scheduler.LambdaLR(optimizer, lambda t: min(1.0, (t + 1) / 4))
    theirs = lr_scheduler.SequentialLR(optimizer, [climb, by_hand(name, optimizer)], milestones=[4])
    assert run(scheduler) == run(theirs)


SEQUENCE = {"schedulers": [{"name": "linear"}, {"name": "exponential", "gamma": 0.9}], "milestones": [6]}


@pytest.mark.parametrize("name", [*WRAPPABLE, "sequential"])
def test_after_its_warmup_a_schedule_is_as_without(name):
    given = SEQUENCE if name == "sequential" else TORCH[name][1]
    seen = lrs(SchedulerFactory(name, warmup_steps=4, **given)(optimizer_for()))
    assert seen[:4] == [[peak * factor for peak in PEAKS] for factor in (0.25, 0.5, 0.75, 1.0)]
    assert seen[4:] == lrs(SchedulerFactory(name, **given)(optimizer_for()))[:-4]


@pytest.mark.parametrize("place", [0, 1], ids=["first", "last"])
@pytest.mark.parametrize(
    "block",
    [{"name": "step", "step_size": 2, "warmup_steps": 3}, {"name": "sequential", **SEQUENCE}],
    ids=["warmup", "sequential"],
)
def test_a_sequence_may_stand_in_a_sequence(block, place):
    alone = lrs(SchedulerFactory(**block)(optimizer_for()))
    other = {"name": "exponential", "gamma": 0.9}
    blocks = [block, other] if place == 0 else [other, block]
    seen = lrs(SchedulerFactory("sequential", schedulers=blocks, milestones=[9])(optimizer_for()))
    assert (seen[:9] if place == 0 else seen[9:]) == (alone[:9] if place == 0 else alone[:-9])


MULTIPLIED = ["constant", "linear", "exponential", "step", "multi_step", "polynomial", "multiplicative"]


@pytest.mark.parametrize("first", MULTIPLIED)
@pytest.mark.parametrize("second", MULTIPLIED)
def test_the_factors_of_a_chain_multiply(first, second):
    blocks = [{"name": name, **TORCH[name][1]} for name in (first, second)]
    chained = lrs(SchedulerFactory("chained", schedulers=blocks)(optimizer_for(peaks=[1.0])))
    alone = [lrs(SchedulerFactory(**block)(optimizer_for(peaks=[1.0]))) for block in blocks]
    # Each product is rounded at another place: a few units in the last one, over thirty steps.
    assert [lr for (lr,) in chained] == pytest.approx([a * b for (a,), (b,) in zip(*alone, strict=True)], rel=1e-13)


@pytest.mark.parametrize(
    "block",
    [
        {"name": "inverse_sqrt", "warmup_steps": 3},
        {"name": "step", "step_size": 3, "warmup_steps": 3},
        {"name": "cosine_annealing_warm_restarts", "T_0": 4},
        {"name": "lambda", "lr_lambda": lr_lambda},
        {"name": "sequential", **SEQUENCE},
    ],
    ids=lambda block: block["name"],
)
@pytest.mark.parametrize("place", [0, 1], ids=["first", "last"])
def test_what_sets_the_lr_anew_cannot_stand_in_a_chain(block, place):
    other = {"name": "exponential", "gamma": 0.9}
    with pytest.raises(ConfigError, match=rf"^schedulers\[{place}\]\..* chained"):
        SchedulerFactory("chained", schedulers=[block, other] if place == 0 else [other, block])


# The length of the run


LENGTHS = {
    "config": lambda name, **given: SchedulerFactory(name, total_steps=20, **given)(optimizer_for()),
    "call": lambda name, **given: SchedulerFactory(name, **given)(optimizer_for(), 20),
    "config_before_call": lambda name, **given: SchedulerFactory(name, total_steps=20, **given)(optimizer_for(), 50),
}


@pytest.mark.parametrize("build", LENGTHS.values(), ids=LENGTHS)
def test_the_length_comes_from_the_config_else_from_the_call(build):
    cosine = {"name": "cosine_annealing"}
    assert build("cosine_annealing").T_max == 20
    assert build("cosine_annealing", warmup_steps=5)._schedulers[1].T_max == 15
    assert build("one_cycle").total_steps == 20
    assert build("warmup_cosine").lr_lambdas[0] == WarmupCosine(0, 20, 0.0)
    assert build("chained", schedulers=[cosine])._schedulers[0].T_max == 20
    assert [s.T_max for s in build("sequential", schedulers=[cosine, cosine], milestones=[8])._schedulers] == [8, 12]


def test_milestones_give_the_length_of_the_blocks_before_them():
    blocks = [{"name": "warmup_linear"}, {"name": "cosine_annealing"}, {"name": "warmup_cosine", "warmup_steps": 2}]
    factory = SchedulerFactory("sequential", schedulers=blocks, milestones=[4, 10])
    first, second, third = factory(optimizer_for(), 30)._schedulers
    assert (first.lr_lambdas[0].total_steps, second.T_max, third.lr_lambdas[0].total_steps) == (4, 6, 20)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        *((name, {}) for name in ("cosine_annealing", "one_cycle", *ENDED)),
        ("sequential", {"schedulers": [{"name": "linear"}, {"name": "warmup_cosine"}], "milestones": [5]}),
        ("chained", {"schedulers": [{"name": "linear"}, {"name": "cosine_annealing"}]}),
    ],
)
def test_a_missing_length_is_named_with_who_knows_it(name, given):
    factory = SchedulerFactory(name, **given)
    assert factory.needs_total_steps
    with pytest.raises(ConfigError) as caught:
        factory(optimizer_for())
    said = ["scheduler.total_steps", name, "scheduler.total_steps: 1000", "lightning_optim.configure_optimizers"]
    check_message(caught, *said)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("noam", {"warmup_steps": 3}),
        ("cosine_annealing", {"T_max": 5}),
        ("one_cycle", {"total_steps": 5}),
        ("sequential", {"schedulers": [{"name": "cosine_annealing"}, {"name": "linear"}], "milestones": [5]}),
        ("chained", {"schedulers": [{"name": "cosine_annealing", "T_max": 3}]}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-",
)
def test_others_need_no_length(name, given):
    factory = SchedulerFactory(name, **given)
    assert not factory.needs_total_steps
    factory(optimizer_for())


# Lightning's dict


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_config_is_lightning_s_dict(interval):
    config = SchedulerFactory("warmup_cosine", interval=interval).config(optimizer_for(), 10)
    scheduler = config.pop("scheduler")
    assert type(scheduler) is lr_scheduler.LambdaLR
    assert config == {"interval": interval, "frequency": 1}


def test_config_of_a_plateau_has_its_monitor():
    config = SchedulerFactory("reduce_on_plateau", interval="epoch", monitor="val/loss").config(optimizer_for())
    assert type(config.pop("scheduler")) is lr_scheduler.ReduceLROnPlateau
    assert config == {"interval": "epoch", "frequency": 1, "monitor": "val/loss", "reduce_on_plateau": True}


def test_a_plateau_without_a_monitor_is_refused():
    with pytest.raises(ConfigError, match=r"^monitor: reduce_on_plateau .* monitor: val/loss"):
        SchedulerFactory("reduce_on_plateau").config(optimizer_for())


# Saving and loading

STATEFUL = {
    **{name: {**arguments, "name": name} for name, (_, arguments) in TORCH.items()},
    **{
        name: {"name": name, "warmup_steps": 5, **given, **({"total_steps": 25} if name in ENDED else {})}
        for name, (given, _) in CURVES.items()
    },
    **{f"warmup+{name}": {**TORCH[name][1], "name": name, "warmup_steps": 15} for name in WRAPPABLE},
    "sequential": {"name": "sequential", **SEQUENCE},
    "warmup+sequential": {"name": "sequential", "warmup_steps": 3, **SEQUENCE},
    "chained": {"name": "chained", "schedulers": SEQUENCE["schedulers"]},
}


@pytest.mark.parametrize("given", STATEFUL.values(), ids=STATEFUL)
def test_a_run_goes_on_from_its_state_dicts_as_though_never_interrupted(given):
    factory = SchedulerFactory(**given)
    scheduler = factory(optimizer_for())
    run(scheduler, num_steps=12)
    file = io.BytesIO()
    torch.save([scheduler.optimizer.state_dict(), scheduler.state_dict()], file)
    file.seek(0)
    resumed = factory(optimizer_for())
    for part, state in zip((resumed.optimizer, resumed), torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    assert run(resumed, 12, 12) == run(scheduler, 12, 12)


@pytest.mark.parametrize("given", STATEFUL.values(), ids=STATEFUL)
def test_calling_changes_neither_the_factory_nor_what_it_was_made_of(given):
    before, factory = copy.deepcopy(given), SchedulerFactory(**given)
    made = copy.deepcopy(vars(factory))
    run(factory(optimizer_for()), num_steps=8)
    assert vars(factory) == made
    assert given == before


# Wrong configs

BLOCK = {"name": "exponential", "gamma": 0.9}


WRONG = [
    ("warmup_cosin", {}, ["name", "'warmup_cosin'", "Did you mean 'warmup_cosine'?", "chained, constant, "]),
    (None, {}, ["name", "None"]),
    ("step", {"step_sise": 3}, ["step_sise", "Did you mean 'step_size'?", "step_size, gamma, interval, warmup_steps"]),
    ("step", {"optimizer": None}, ["optimizer", "_partial_: true", "Type _partial_: false"]),
    ("one_cycle", {"max_lr": 0.1}, ["max_lr", "each group's lr is its peak", "optimizer.lr"]),
    ("cyclic", {"max_lr": [0.1]}, ["max_lr", "each group's lr is its peak", "optimizer.lr"]),
    ("one_cycle", {"epochs": 3}, ["epochs", "total_steps"]),
    ("one_cycle", {"steps_per_epoch": 3}, ["steps_per_epoch", "total_steps"]),
    ("step", {"step_size": 3, "interval": "steps"}, ["interval", "'steps'", "Did you mean 'step'?", "step, epoch"]),
    ("step", {"step_size": 3, "warmup_steps": -1}, ["warmup_steps", "-1", "a whole number >= 0"]),
    ("step", {"step_size": 3, "warmup_steps": 0.5}, ["warmup_steps", "0.5", "a whole number >= 0"]),
    ("step", {"step_size": 3, "warmup_steps": None}, ["warmup_steps", "None", "warmup_steps: 0"]),
    ("warmup_cosine", {"total_steps": 0}, ["total_steps", "0", "a whole number >= 1 or null"]),
    ("warmup_cosine", {"total_steps": "10"}, ["total_steps", "'10'", "total_steps: 1000"]),
    ("step", {}, ["step_size", "step needs it", "a whole number >= 1"]),
    ("exponential", {}, ["gamma", "exponential needs it", "a finite number > 0"]),
    ("multi_step", {}, ["milestones", "multi_step needs it", "a growing list of positive whole numbers"]),
    ("cyclic", {}, ["base_lr", "cyclic needs it", "a finite number >= 0"]),
    ("step", {"step_size": 0}, ["step_size", "0", "a whole number >= 1"]),
    ("step", {"step_size": 3, "gamma": "x"}, ["gamma", "'x'", "a finite number > 0", "gamma: 0.1"]),
    ("multi_step", {"milestones": [5, 3]}, ["milestones", "[5, 3]", "a growing list"]),
    ("linear", {"start_factor": 0}, ["start_factor", "0", "a finite number > 0 and <= 1"]),
    ("one_cycle", {"anneal_strategy": "cosine"}, ["anneal_strategy", "'cosine'", "cos, linear"]),
    ("noam", {}, ["warmup_steps", "noam", "warmup_steps: 4000"]),
    ("one_cycle", {"warmup_steps": 3}, ["warmup_steps", "one_cycle", "warmup_steps: 0"]),
    ("cyclic", {"base_lr": 0, "warmup_steps": 3}, ["warmup_steps", "cyclic", "warmup_steps: 0"]),
    ("reduce_on_plateau", {"warmup_steps": 3}, ["warmup_steps", "reduce_on_plateau", "warmup_steps: 0"]),
    ("chained", {"schedulers": [BLOCK], "warmup_steps": 3}, ["warmup_steps", "chained", "warmup_steps: 0"]),
    ("step", {"step_size": 3, "total_steps": 9}, ["total_steps", "step", "total_steps: null"]),
    ("lambda", {}, ["lr_lambda", "SchedulerFactory('lambda', lr_lambda=...)"]),
    ("multiplicative", {"lr_lambda": "x"}, ["lr_lambda", "SchedulerFactory('multiplicative', lr_lambda=...)"]),
    ("chained", {}, ["schedulers", "None", "a list of blocks", "schedulers: [{name: linear,"]),
    ("chained", {"schedulers": []}, ["schedulers", "[]", "a list of blocks"]),
    ("chained", {"schedulers": ["linear"]}, ["schedulers", "['linear']", "a list of blocks"]),
    ("chained", {"schedulers": {"a": BLOCK}}, ["schedulers", "{'a': ", "a list of blocks"]),
    ("sequential", {"schedulers": [BLOCK, BLOCK]}, ["milestones", "sequential needs it", "a growing list"]),
    ("sequential", {"schedulers": [BLOCK], "milestones": [5]}, ["milestones", "1 schedulers", "0 milestones"]),
    (
        "sequential",
        {"schedulers": [BLOCK, {"name": "one_cycle"}], "milestones": [5]},
        ["schedulers[1].name", "one_cycle", "sequential"],
    ),
    (
        "chained",
        {"schedulers": [BLOCK, {"name": "reduce_on_plateau"}]},
        ["schedulers[1].name", "reduce_on_plateau", "chained"],
    ),
    ("chained", {"schedulers": [{**BLOCK, "interval": "epoch"}]}, ["schedulers[0].interval", "Move it"]),
    ("chained", {"schedulers": [BLOCK, {"name": "step"}]}, ["schedulers[1].step_size", "step needs it"]),
    ("chained", {"schedulers": [BLOCK, {"name": "stepp"}]}, ["schedulers[1].name", "'stepp'", "Did you mean 'step'?"]),
    ("chained", {"schedulers": [BLOCK, {"step_size": 3}]}, ["schedulers[1].name"]),
    (
        "sequential",
        {
            "schedulers": [BLOCK, {"name": "sequential", "schedulers": [BLOCK, {"name": "step"}], "milestones": [3]}],
            "milestones": [5],
        },
        ["schedulers[1].schedulers[1].step_size", "step needs it"],
    ),
]


@pytest.mark.parametrize(("name", "given", "said"), WRONG, ids=[" ".join([str(n), *given]) for n, given, _ in WRONG])
def test_a_wrong_config_is_refused_when_the_factory_is_made(name, given, said):
    with pytest.raises(ConfigError) as caught:
        SchedulerFactory(name, **given)
    check_message(caught, *said)


WRONG_WITH_RUN = [
    ("cyclic", {"base_lr": 0.1}, ["base_lr", "0.1", "0.05", "base_lr: 0.005"]),
    ("warmup_cosine", {"warmup_steps": 20}, ["warmup_steps", "20 steps"]),
    ("warmup_stable_decay", {"warmup_steps": 12, "decay_steps": 9}, ["decay_steps", "12", "9", "20"]),
    (
        "sequential",
        {"schedulers": [BLOCK, {"name": "warmup_cosine"}], "milestones": [20]},
        ["milestones", "20 steps"],
    ),
    (
        "sequential",
        {"schedulers": [BLOCK, {"name": "warmup_cosine", "warmup_steps": 9}], "milestones": [15]},
        ["schedulers[1].warmup_steps", "9", "5 steps"],
    ),
]


@pytest.mark.parametrize(("name", "given", "said"), WRONG_WITH_RUN, ids=[said[0] for *_, said in WRONG_WITH_RUN])
def test_what_needs_the_run_is_refused_when_the_factory_is_called(name, given, said):
    with pytest.raises(ConfigError) as caught:
        SchedulerFactory(name, **given)(optimizer_for(), 20)
    check_message(caught, *said)
