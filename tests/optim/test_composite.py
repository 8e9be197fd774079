"""Composite: several algorithms in one optimizer step exactly as each of them would by hand, saved and copied whole."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler
from torch.optim.optimizer import register_optimizer_step_post_hook

from lightning_optim import ConfigError, OptimizerFactory, list_optimizers, optim, optimizer_info
from lightning_optim.optim.composite import Composite
from tests.support.models import model_for
from tests.support.optimizer_runs import through_a_file

HIDDEN = {"params": "backbone", "kinds": ["matrix"]}
CLIP = 0.05


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small only wait for a second one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Deep(nn.Module):
    """Three matrices in the backbone, which lie between parameters of other kinds."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 6), nn.Linear(6, 8))
        self.head = nn.Linear(8, 2)

    def loss(self, seed: int = 0) -> Tensor:
        batch = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))
        return (self.head(self.backbone(batch)) - 1).square().mean()


def is_hidden(name: str, parameter: Tensor) -> bool:
    return name.startswith("backbone") and parameter.ndim == 2


def parts_of(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """The parameters of the main algorithm, then those of the rule's."""
    named = list(model.named_parameters())
    return [p for n, p in named if not is_hidden(n, p)], [p for n, p in named if is_hidden(n, p)]


# name -> the factory, then what makes by hand the optimizer of its main parameters and of its hidden matrices.
PAIRS: dict[str, tuple[OptimizerFactory, Any, Any]] = {
    "muon + adamw": (
        OptimizerFactory("adamw", groups={"hidden": {**HIDDEN, "optimizer": "muon", "lr": 0.02}}),
        partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.01, fused=True),
        partial(torch.optim.Muon, lr=0.02),
    ),
    "lion + sgd": (
        OptimizerFactory("sgd", lr=0.05, momentum=0.9, groups={"hidden": {**HIDDEN, "optimizer": "lion", "lr": 0.01}}),
        partial(torch.optim.SGD, lr=0.05, momentum=0.9, fused=True),
        partial(optim.Lion, lr=0.01),
    ),
    "adabelief, ours, + adamw, torch's": (
        OptimizerFactory("adamw", lr=0.01, groups={"hidden": {**HIDDEN, "optimizer": "adabelief", "lr": 0.02}}),
        partial(torch.optim.AdamW, lr=0.01, weight_decay=0.01, fused=True),
        partial(optim.AdaBelief, lr=0.02),
    ),
    "rmsprop, torch's, + adam, ours": (
        OptimizerFactory(
            "adam",
            lr=0.01,
            weight_decay=0.1,
            weight_decay_mode="relative",
            groups={"hidden": {**HIDDEN, "optimizer": "rmsprop", "lr": 0.02, "momentum": 0.5}},
        ),
        partial(optim.Adam, lr=0.01, weight_decay=0.1, weight_decay_mode="relative"),
        partial(torch.optim.RMSprop, lr=0.02, momentum=0.5),
    ),
    "adagrad + muon": (
        OptimizerFactory(
            "muon", lr=0.02, groups={"rest": {"params": ["backbone.1", "head", "*.bias"], "optimizer": "adagrad"}}
        ),
        partial(torch.optim.Adagrad, lr=0.01, fused=True),
        partial(torch.optim.Muon, lr=0.02),
    ),
    "adagrad + lion": (
        OptimizerFactory(
            "lion",
            lr=0.01,
            groups={"hidden": {**HIDDEN, "optimizer": "adagrad", "lr": 0.1, "initial_accumulator_value": 0.5}},
        ),
        partial(optim.Lion, lr=0.01),
        partial(torch.optim.Adagrad, lr=0.1, initial_accumulator_value=0.5, fused=True),
    ),
}
MUON_ADAMW = PAIRS["muon + adamw"][0]
pairs = pytest.mark.parametrize(("factory", "main", "hidden"), PAIRS.values(), ids=PAIRS)
factories = pytest.mark.parametrize("factory", [factory for factory, *_ in PAIRS.values()], ids=PAIRS)


def by_hand(model: nn.Module, main: Any, hidden: Any) -> list[Optimizer]:
    rest, matrices = parts_of(model)
    return [main(rest), hidden(matrices)]


def weights_of(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def fit(model: Deep, optimizers: list[Any], first: int = 0, last: int = 6, accumulate: int = 4) -> list[list[Tensor]]:
    """The weights after each step, of so many batches and with the gradients clipped."""
    weights = []
    for t in range(first, last):
        for micro in range(accumulate):
            (model.loss(10 * t + micro) / accumulate).backward()
        assert nn.utils.clip_grad_norm_(model.parameters(), CLIP) > CLIP, "nothing to clip"
        for optimizer in optimizers:
            optimizer.step()
        for optimizer in optimizers:
            optimizer.zero_grad()
        weights.append(weights_of(model))
    return weights


def equal(first: Any, second: Any) -> bool:
    """Whether two nests are equal, their tensors bit by bit."""
    if isinstance(first, Tensor):
        return isinstance(second, Tensor) and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(equal, first, second))
    return bool(first == second)


def trained(factory: OptimizerFactory = MUON_ADAMW, num_steps: int = 3) -> tuple[Deep, Any]:
    model = Deep()
    optimizer = factory(model)
    fit(model, [optimizer], last=num_steps)
    return model, optimizer


def assert_linked(optimizer: Any) -> None:
    """The children see the composite's own dicts, and one state."""
    for name, child in optimizer.children.items():
        mine = [group for group in optimizer.param_groups if group["algorithm"] == name]
        assert len(mine) == len(child.param_groups)
        assert all(a is b for a, b in zip(mine, child.param_groups, strict=True))
        assert child.state is optimizer.state


# Steps


@pairs
def test_it_steps_as_two_optimizers_stepped_by_hand(factory, main, hidden) -> None:
    model, other = Deep(), Deep()
    optimizer = factory(model)
    assert isinstance(optimizer, Optimizer)
    assert type(optimizer) is Composite
    assert len(optimizer.children) == 2
    ours, theirs = fit(model, [optimizer], last=10), fit(other, by_hand(other, main, hidden), last=10)
    assert [equal(a, b) for a, b in zip(ours, theirs, strict=True)] == [True] * 10
    for first, last in zip(Deep().parameters(), model.parameters(), strict=True):
        assert not torch.equal(first, last), "each parameter is stepped"


@pairs
def test_its_state_is_that_of_the_two(factory, main, hidden) -> None:
    model, other = Deep(), Deep()
    optimizer, two = factory(model), by_hand(other, main, hidden)
    assert len(optimizer.state) == sum(len(one.state) for one in two), "adagrad has one from the start"
    fit(model, [optimizer]), fit(other, two)
    theirs = {**two[0].state, **two[1].state}
    assert equal([optimizer.state[p] for p in model.parameters()], [theirs[p] for p in other.parameters()])


def test_the_main_algorithm_has_what_no_rule_gives_away() -> None:
    optimizer = MUON_ADAMW(Deep())
    assert [(group["name"], group["algorithm"], group["lr"]) for group in optimizer.param_groups] == [
        ("hidden", "muon", 0.02),
        ("default", "adamw", 1e-3),
    ]
    names = [group["param_names"] for group in optimizer.param_groups]
    assert names[0] == ["backbone.0.weight", "backbone.3.weight", "backbone.4.weight"]
    assert names[1][:2] == ["backbone.0.bias", "backbone.1.weight"]


@pairs
def test_a_closure_is_evaluated_once_a_step_and_with_gradients(factory, main, hidden) -> None:
    model, other = Deep(), Deep()
    optimizer, two, losses = factory(model), by_hand(other, main, hidden), []

    def closure() -> Tensor:
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        losses.append(model.loss(len(losses)))
        losses[-1].backward()
        return losses[-1]

    for t in range(5):
        with torch.no_grad():
            returned = optimizer.step(closure)
        assert len(losses) == t + 1
        assert returned is losses[-1]
        for one in two:
            one.zero_grad()
        other.loss(t).backward()
        for one in two:
            one.step()
        assert equal(weights_of(model), weights_of(other)), t


@pytest.mark.parametrize("clip", [True, False], ids=["clipped", "as they are"])
@pairs
def test_a_grad_scaler_skips_a_step_of_infinite_gradients_for_all_and_changes_no_other(
    factory, main, hidden, clip
) -> None:
    model, other = Deep(), Deep()
    optimizer, two = factory(model), by_hand(other, main, hidden)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for t in range(6):
        before = weights_of(model), copy.deepcopy(optimizer.state_dict())
        scaler.scale(model.loss(t)).backward()
        if t == 2:
            model.head.bias.grad[0] = torch.inf  # of one child only
        if clip:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if t == 2:
            assert equal(before, (weights_of(model), optimizer.state_dict()))
            assert scaler.get_scale() == 2.0**9
            continue
        other.loss(t).backward()
        if clip:
            nn.utils.clip_grad_norm_(other.parameters(), CLIP)
        for one in two:
            one.step(), one.zero_grad()
        # A scale that is a power of two costs no bit.
        assert equal(weights_of(model), weights_of(other)), t


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad_reaches_every_parameter(set_to_none) -> None:
    model, optimizer = trained()
    model.loss().backward()
    optimizer.zero_grad(set_to_none=set_to_none)
    for parameter in model.parameters():
        assert parameter.grad is None if set_to_none else not parameter.grad.any()


@pytest.mark.parametrize("gone", ["head", "backbone"])
def test_parameters_without_gradients_stay_and_get_no_state(gone) -> None:
    model = Deep()
    optimizer = MUON_ADAMW(model)
    getattr(model, gone).requires_grad_(False)
    before = weights_of(model)
    model.loss().backward()
    optimizer.step()
    for (name, parameter), was in zip(model.named_parameters(), before, strict=True):
        assert torch.equal(parameter, was) is name.startswith(gone), name
        assert (parameter in optimizer.state) is not name.startswith(gone), name


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("adamw", {"all_of_it": {"params": "*", "optimizer": "lion"}}),
        ("muon", {"rest": {"params": "*", "optimizer": "lion", "lr": 0.1}}),
        ("lion", {"hidden": {**HIDDEN, "optimizer": "lion", "lr": 0.1}}),
        ("lion", {"cold": {**HIDDEN, "frozen": True, "optimizer": "muon"}}),
    ],
    ids=["one rule takes all", "from muon's", "the same by name", "the other's are frozen"],
)
def test_where_one_algorithm_is_left_it_is_exactly_that_class(name, groups) -> None:
    optimizer = OptimizerFactory(name, groups=groups)(Deep())
    assert type(optimizer) is optim.Lion
    assert all("algorithm" not in group for group in optimizer.param_groups)


# Every algorithm

CHILDREN = [name for name in list_optimizers() if not optimizer_info(name).stands_alone]
CHILDREN_AND_CLASSES = [
    *((name, "auto") for name in CHILDREN),
    *((name, "own") for name in CHILDREN if optimizer_info(name).own and not optimizer_info(name).is_ours),
]


def child_factory(name: str, implementation: str) -> OptimizerFactory:
    mains = ("adadelta", "nadam") if implementation == "own" else ("sgd", "adamw")
    main = mains[0] if name != mains[0] else mains[1]
    selected = {"params": "backbone"} if name == "sparse_adam" else {"params": "backbone", "kinds": ["matrix"]}
    return OptimizerFactory(
        main, lr=0.05, groups={"hidden": {**selected, "optimizer": name, "lr": 0.03}}, implementation=implementation
    )


def child_model(name: str) -> Any:
    return model_for("sparse_adam" if name == "sparse_adam" else "adamw")


def steps(model: Any, optimizers: list[Any], num_steps: int) -> list[list[Tensor]]:
    weights = []
    for _ in range(num_steps):
        model.zero_grad()
        model.loss().backward()
        for optimizer in optimizers:
            optimizer.step()
        weights.append(weights_of(model))
    return weights


@pytest.mark.parametrize(("name", "implementation"), CHILDREN_AND_CLASSES)
def test_every_algorithm_may_be_a_child(name, implementation) -> None:
    info = optimizer_info(name)
    own = info.is_ours or implementation == "own"
    model, other = child_model(name), child_model(name)
    optimizer = child_factory(name, implementation)(model)
    assert {key: type(child) for key, child in optimizer.children.items()}[name] is info.load(own=own)
    matrices = [other.backbone.weight]
    rest = [p for p in other.parameters() if p is not matrices[0]]
    main = optimizer_info(next(key for key in optimizer.children if key != name))
    whole_fused = name != "sparse_adam"  # no fused kernel takes sparse gradients
    flags = {"fused": True} if main.fused and implementation == "auto" and whole_fused else {}
    two = [
        main.load(own=implementation == "own")(rest, lr=0.05, **flags),
        info.load(own=own)(matrices, lr=0.03, **({"fused": True} if info.fused and not own else {})),
    ]
    assert equal(steps(model, [optimizer], 5), steps(other, two, 5))


@pytest.mark.parametrize(("name", "implementation"), CHILDREN_AND_CLASSES)
def test_every_child_goes_on_from_a_file_as_though_never_interrupted(name, implementation) -> None:
    factory, model, again = child_factory(name, implementation), child_model(name), child_model(name)
    optimizer, resumed = factory(model), factory(again)
    steps(model, [optimizer], 3)
    again.load_state_dict(model.state_dict())
    resumed.load_state_dict(through_a_file(optimizer.state_dict()))
    assert_linked(resumed)
    assert equal(steps(model, [optimizer], 4), steps(again, [resumed], 4))
    assert equal(optimizer.state_dict(), resumed.state_dict())


def test_sophisticated_neighbours_stand_together() -> None:
    """Three algorithms at once, two of which have more than one group."""
    groups = {
        "hidden": {**HIDDEN, "optimizer": "muon", "lr": 0.02},
        "stem": {"params": "backbone.0", "weight_decay_scale": 0.5},
        "head": {"params": "head", "optimizer": "lion", "lr": 0.01},
    }
    model, other = Deep(), Deep()
    optimizer = OptimizerFactory("adamw", groups=groups)(model)
    layers, norm = other.backbone, other.backbone[1]
    matrices = [{"params": [layers[3].weight, layers[4].weight]}, {"params": [layers[0].weight], "weight_decay": 0.05}]
    rest = [norm.weight, norm.bias, layers[3].bias, layers[4].bias]
    three = [
        torch.optim.Muon(matrices, lr=0.02),
        torch.optim.AdamW(
            [{"params": rest}, {"params": [layers[0].bias], "weight_decay": 0.005}],
            lr=1e-3,
            weight_decay=0.01,
            fused=True,
        ),
        optim.Lion(other.head.parameters(), lr=0.01),
    ]
    assert equal(fit(model, [optimizer]), fit(other, three))
    assert {g["name"] for g in optimizer.param_groups} == {"hidden", "hidden.stem", "stem", "default", "head"}


@pytest.mark.parametrize("name", ["muon", "adamw", "lion"])
def test_lbfgs_takes_no_other_beside_it(name) -> None:
    with pytest.raises(ConfigError, match=r"^groups\.hidden\.optimizer: .*lbfgs"):
        OptimizerFactory("lbfgs", groups={"hidden": {**HIDDEN, "optimizer": name}})
    with pytest.raises(ConfigError, match=r"^groups\.hidden\.optimizer: lbfgs"):
        OptimizerFactory(name, groups={"hidden": {**HIDDEN, "optimizer": "lbfgs"}})


# Groups that join


def new_group(**given: Any) -> dict[str, Any]:
    return {"params": [("late", nn.Parameter(torch.ones(3, 2)))], **given}


def unchanged_by(optimizer: Any, attempt: Any, error: type[Exception] = ConfigError) -> pytest.ExceptionInfo:
    """The error that an attempt raises, after which everything is as it was."""
    before = [*optimizer.param_groups], [copy.deepcopy(g) for g in optimizer.param_groups], dict(optimizer.state)
    with pytest.raises(error) as caught:
        attempt()
    assert len(optimizer.param_groups) == len(before[0])
    assert all(a is b for a, b in zip(optimizer.param_groups, before[0], strict=True))
    assert equal([*optimizer.param_groups], before[1])
    assert dict(optimizer.state) == before[2]
    assert_linked(optimizer)
    return caught


@pytest.mark.parametrize("algorithm", ["muon", "adamw"])
def test_a_group_joins_the_child_it_names(algorithm) -> None:
    _, optimizer = trained()
    group = new_group(algorithm=algorithm, name="late", lr=0.5)
    optimizer.add_param_group(group)
    late = optimizer.param_groups[-1]
    assert optimizer.children[algorithm].param_groups[-1] is late
    assert (late["name"], late["lr"], late["weight_decay"]) == ("late", 0.5, 0.1 if algorithm == "muon" else 0.01)
    assert_linked(optimizer)
    (parameter,) = late["params"]
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    alone = nn.Parameter(torch.ones(3, 2))
    alone.grad = torch.ones_like(alone)
    cls = {"muon": torch.optim.Muon, "adamw": torch.optim.AdamW}[algorithm]
    given = {} if algorithm == "muon" else {"fused": True}
    cls([alone], lr=0.5, weight_decay=late["weight_decay"], **given).step()
    assert torch.equal(parameter, alone)


def test_a_group_without_an_algorithm_joins_the_main_one() -> None:
    _, optimizer = trained()
    optimizer.add_param_group(new_group())
    assert optimizer.param_groups[-1]["algorithm"] == "adamw"
    assert optimizer.children["adamw"].param_groups[-1] is optimizer.param_groups[-1]


def test_bare_tensors_join_where_the_others_have_no_names() -> None:
    model = Deep()
    groups = [{"params": part, "algorithm": name} for name, part in zip(("lion", "muon"), parts_of(model), strict=True)]
    optimizer = Composite(groups, {"muon": torch.optim.Muon, "lion": optim.Lion}, main="lion")
    alone = nn.Parameter(torch.ones(2))
    optimizer.add_param_group({"params": alone})
    assert optimizer.children["lion"].param_groups[-1]["params"] == [alone]
    assert_linked(optimizer)


def test_a_group_of_an_unknown_algorithm_is_refused() -> None:
    _, optimizer = trained()
    caught = unchanged_by(optimizer, lambda: optimizer.add_param_group(new_group(algorithm="muonn", name="late")))
    assert "'late'" in str(caught.value) and "'muonn'" in str(caught.value) and "'muon'?" in str(caught.value)


@pytest.mark.parametrize("algorithm", ["muon", "adamw"])
@pytest.mark.parametrize("held", ["backbone.3.weight", "head.bias"])
@pytest.mark.parametrize("shape", [lambda p: p, lambda p: [p], lambda p: [("x", p)], lambda p: iter([p])])
def test_a_parameter_that_is_held_already_is_refused(algorithm, held, shape) -> None:
    model, optimizer = trained()
    params = shape(model.get_parameter(held))
    caught = unchanged_by(
        optimizer,
        lambda: optimizer.add_param_group({"params": params, "algorithm": algorithm, "name": "late"}),
    )
    assert "late" in str(caught.value)


def test_a_generator_of_parameters_joins_as_with_torch() -> None:
    _, optimizer = trained()
    late = nn.Linear(2, 3)
    optimizer.add_param_group({"params": late.named_parameters()})
    assert len(optimizer.param_groups[-1]["params"]) == 2
    assert all(a is b for a, b in zip(optimizer.param_groups[-1]["params"], late.parameters(), strict=True))
    assert optimizer.param_groups[-1]["param_names"] == ["weight", "bias"]


def test_muon_refuses_a_bias_that_joins_and_nothing_is_changed() -> None:
    _, optimizer = trained()
    bias = nn.Parameter(torch.ones(3))
    late = {"params": [("late", bias)], "algorithm": "muon"}
    unchanged_by(optimizer, lambda: optimizer.add_param_group(late), ValueError)


def test_a_wrong_value_in_a_group_that_joins_is_refused_and_nothing_is_changed() -> None:
    _, optimizer = trained(PAIRS["lion + sgd"][0])
    unchanged_by(optimizer, lambda: optimizer.add_param_group(new_group(algorithm="lion", lr=-1.0)))
    unchanged_by(optimizer, lambda: optimizer.add_param_group(new_group(algorithm="lion", betta=1.0)))


def test_groups_edited_in_place_are_followed() -> None:
    model, optimizer = trained()
    everything = list(optimizer.param_groups)
    optimizer.param_groups[:] = [group for group in everything if group["algorithm"] == "adamw"]
    before = dict(zip(model.state_dict(), weights_of(model), strict=True))
    model.loss().backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) is is_hidden(name, parameter), name
    assert_linked(optimizer)
    assert len(optimizer.state_dict()["param_groups"]) == 1
    optimizer.param_groups.append(everything[0])
    optimizer.step()
    assert all(not torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    assert_linked(optimizer)


def test_groups_put_in_another_order_keep_their_algorithms_and_states() -> None:
    model, optimizer = trained()
    other, reference = trained()
    optimizer.param_groups.reverse()
    assert equal(fit(model, [optimizer], 3), fit(other, [reference], 3))
    state, theirs = optimizer.state_dict(), reference.state_dict()
    assert [group["name"] for group in state["param_groups"]] == ["default", "hidden"]
    for group, same in zip(state["param_groups"], reversed(theirs["param_groups"]), strict=True):
        mine, its = ([part["state"][n] for n in g["params"]] for part, g in ((state, group), (theirs, same)))
        assert equal(mine, its)


@pytest.mark.parametrize("algorithm", [{}, {"algorithm": "adam"}], ids=["without an algorithm", "unknown"])
@pytest.mark.parametrize("use", [lambda o: o.step(), lambda o: o.state_dict()], ids=["step", "state_dict"])
def test_a_group_appended_without_a_known_algorithm_is_refused(algorithm, use) -> None:
    _, optimizer = trained()
    optimizer.param_groups.append({**optimizer.param_groups[0], "name": "by hand", "params": []})
    optimizer.param_groups[-1].pop("algorithm")
    optimizer.param_groups[-1].update(algorithm)
    with pytest.raises(ConfigError, match="'by hand': algorithm: there is no"):
        use(optimizer)


# Saved and copied


@factories
def test_a_state_dict_numbers_the_parameters_as_torch_does(factory) -> None:
    _, optimizer = trained(factory)
    state_dict = optimizer.state_dict()
    plain = torch.optim.SGD([{"params": group["params"]} for group in optimizer.param_groups], lr=0.1).state_dict()
    numbers = [group["params"] for group in state_dict["param_groups"]]
    assert numbers == [group["params"] for group in plain["param_groups"]]
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert set(state_dict["state"]) == set(range(len(held)))
    for number, parameter in enumerate(held):
        assert state_dict["state"][number].keys() == optimizer.state[parameter].keys()
        assert equal(dict(state_dict["state"][number]), dict(optimizer.state[parameter]))
    for group, saved in zip(optimizer.param_groups, state_dict["param_groups"], strict=True):
        assert {**saved, "params": None}.items() >= {**group, "params": None}.items()


@factories
@pytest.mark.parametrize("at", range(1, 6))
def test_it_goes_on_from_a_file_as_though_never_interrupted(factory, at) -> None:
    model, again = Deep(), Deep()
    optimizer, resumed = factory(model), factory(again)
    fit(model, [optimizer], 0, at)
    again.load_state_dict(model.state_dict())
    resumed.load_state_dict(through_a_file(optimizer.state_dict()))
    assert_linked(resumed)
    assert equal(fit(model, [optimizer], at), fit(again, [resumed], at))
    assert equal(optimizer.state_dict(), resumed.state_dict())


@factories
def test_a_checkpoint_of_the_start_is_loaded_in_the_middle(factory) -> None:
    """States that are not in it are gone."""
    model = Deep()
    optimizer = factory(model)
    start = through_a_file([model.state_dict(), optimizer.state_dict()])
    first = fit(model, [optimizer])
    model.load_state_dict(start[0])
    optimizer.load_state_dict(start[1])
    assert_linked(optimizer)
    assert len(optimizer.state) == len(start[1]["state"])
    assert equal(fit(model, [optimizer]), first)


def test_loading_changes_no_state_dict() -> None:
    model, optimizer = trained()
    state_dict = optimizer.state_dict()
    before = copy.deepcopy(state_dict)
    resumed = MUON_ADAMW(model)
    resumed.load_state_dict(state_dict)
    resumed.param_groups[0]["lr"] = 7.0
    resumed.state.clear()
    assert equal(state_dict, before)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda pair: pickle.loads(pickle.dumps(pair)),
    "deepcopy of a copy": lambda pair: copy.deepcopy(copy.deepcopy(pair)),
}


@factories
@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_copy_trains_on_its_own_and_its_children_share_with_it(factory, copied) -> None:
    model, optimizer = trained(factory)
    before = weights_of(model)
    again, copy_of_it = copied((model, optimizer))
    assert_linked(copy_of_it)
    held = {id(p) for p in again.parameters()}
    assert all(id(p) in held for group in copy_of_it.param_groups for p in group["params"])
    after = fit(again, [copy_of_it], 3)
    assert equal(weights_of(model), before)
    assert equal(fit(model, [optimizer], 3), after)
    assert equal(optimizer.state_dict(), copy_of_it.state_dict())
    assert_linked(optimizer), assert_linked(copy_of_it)


def test_a_copy_takes_groups_scalers_and_checkpoints_too() -> None:
    model, optimizer = copy.deepcopy(trained())
    assert not optimizer._step_supports_amp_scaling
    optimizer.add_param_group(new_group(algorithm="muon"))
    assert optimizer.children["muon"].param_groups[-1] is optimizer.param_groups[-1]
    optimizer.load_state_dict(through_a_file(optimizer.state_dict()))
    assert_linked(optimizer)
    fit(model, [optimizer])


def without(key: str, name: str) -> Any:
    """Takes a key out of the state of one parameter."""

    def damage(state_dict: dict[str, Any]) -> None:
        for group in state_dict["param_groups"]:
            if name in group["param_names"]:
                del state_dict["state"][group["params"][group["param_names"].index(name)]][key]

    return damage


def cut_to(size: int, key: str, name: str) -> Any:
    """Leaves the first rows of a buffer."""

    def damage(state_dict: dict[str, Any]) -> None:
        for group in state_dict["param_groups"]:
            if name in group["param_names"]:
                state = state_dict["state"][group["params"][group["param_names"].index(name)]]
                state[key] = state[key][:size]

    return damage


def of_another_algorithm(state_dict: dict[str, Any]) -> None:
    for group in state_dict["param_groups"]:
        group["algorithm"] = "adamw"


def with_a_group_less(state_dict: dict[str, Any]) -> None:
    state_dict["param_groups"].pop()


DAMAGES = {
    "no buffer of the first child": ("muon + adamw", without("exp_avg_sq", "head.bias"), "head.bias"),
    "no buffer of the last child": (
        "rmsprop, torch's, + adam, ours",
        without("momentum_buffer", "backbone.4.weight"),
        "backbone.4.weight",
    ),
    "no buffer of one of ours": ("adabelief, ours, + adamw, torch's", without("exp_avg_var", "backbone.0.weight"), ""),
    "a shape of one of ours": ("adabelief, ours, + adamw, torch's", cut_to(2, "exp_avg", "backbone.0.weight"), ""),
    "a shape": ("muon + adamw", cut_to(2, "momentum_buffer", "backbone.4.weight"), "backbone.4.weight"),
    "a shape that would broadcast": ("muon + adamw", cut_to(1, "momentum_buffer", "backbone.4.weight"), "backbone.4"),
    "a group less": ("muon + adamw", with_a_group_less, "7 parameters"),
}


@pytest.mark.parametrize(("pair", "damage", "said"), DAMAGES.values(), ids=DAMAGES)
def test_a_load_that_fails_changes_nothing(pair, damage, said) -> None:
    model, optimizer = trained(PAIRS[pair][0])
    other, untouched = trained(PAIRS[pair][0])
    state_dict = through_a_file(trained(PAIRS[pair][0], 5)[1].state_dict())
    damage(state_dict)
    caught = unchanged_by(optimizer, lambda: optimizer.load_state_dict(state_dict))
    assert said in str(caught.value)
    assert equal(fit(model, [optimizer], 3), fit(other, [untouched], 3))


def test_a_bare_composite_refuses_groups_of_other_algorithms() -> None:
    """Built without the factory, it goes by place."""

    def made() -> Composite:
        groups = [{"params": [nn.Parameter(torch.ones(2, 2))], "algorithm": name} for name in ("muon", "lion")]
        return Composite(groups, {"muon": torch.optim.Muon, "lion": optim.Lion}, main="lion")

    state_dict = made().state_dict()
    of_another_algorithm(state_dict)
    optimizer = made()
    caught = unchanged_by(optimizer, lambda: optimizer.load_state_dict(state_dict))
    assert "['adamw', 'adamw']" in str(caught.value) and "['muon', 'lion']" in str(caught.value)


# Hooks


def test_hooks_on_it_run_once_each() -> None:
    model, optimizer = trained()
    seen: list[str] = []

    def note(what: str) -> Any:
        return lambda *_: seen.append(what)

    optimizer.register_step_pre_hook(note("before a step"))
    optimizer.register_step_post_hook(note("after a step"))
    optimizer.register_state_dict_pre_hook(note("before a save"))
    optimizer.register_state_dict_post_hook(note("after a save"))
    optimizer.register_load_state_dict_pre_hook(note("before a load"))
    optimizer.register_load_state_dict_post_hook(note("after a load"))
    model.loss().backward()
    optimizer.step()
    assert seen == ["before a step", "after a step"]
    state_dict = optimizer.state_dict()
    assert seen[2:] == ["before a save", "after a save"]
    optimizer.load_state_dict(state_dict)
    assert seen[4:] == ["before a load", "after a load"]


def test_hooks_for_all_optimizers_run_once_a_step_too() -> None:
    """torch's global ones count steps, and there is one."""
    model, optimizer = trained()
    seen: list[Any] = []
    handle = register_optimizer_step_post_hook(lambda stepped, *_: seen.append(stepped))
    model.loss().backward()
    optimizer.step()
    handle.remove()
    assert seen == [optimizer]


def test_a_child_s_own_hooks_run_too() -> None:
    """As an optimizer of somebody else's may register on itself."""
    model, optimizer = trained()
    seen: list[Any] = []
    for child in optimizer.children.values():
        child.register_step_post_hook(lambda stepped, *_: seen.append(stepped))
    model.loss().backward()
    optimizer.step()
    assert seen == list(optimizer.children.values())


def test_a_group_s_dict_stays_its_owner_s() -> None:
    optimizer, given = (
        MUON_ADAMW(Deep()),
        {"params": [("late", nn.Parameter(torch.ones(2)))], "name": "late", "lr": 0.5},
    )
    before = dict(given)
    optimizer.add_param_group(given)
    assert given == before and optimizer.param_groups[-1] is not given


def test_hooks_may_change_what_is_saved_and_loaded() -> None:
    model, optimizer = trained()
    optimizer.register_state_dict_post_hook(lambda _, state_dict: {**state_dict, "note": 1})
    state_dict = optimizer.state_dict()
    assert state_dict["note"] == 1
    resumed = MUON_ADAMW(model)

    def halve(_: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
        return {**state_dict, "param_groups": [{**g, "lr": g["lr"] / 2} for g in state_dict["param_groups"]]}

    resumed.register_load_state_dict_pre_hook(halve)
    resumed.load_state_dict(state_dict)
    assert [group["lr"] for group in resumed.param_groups] == [0.01, 5e-4]


def test_a_schedule_of_torch_s_drives_every_group() -> None:
    model, other = Deep(), Deep()
    optimizer, two = MUON_ADAMW(model), by_hand(other, *PAIRS["muon + adamw"][1:])
    schedules = [lr_scheduler.ExponentialLR(one, 0.5) for one in (optimizer, *two)]
    for t in range(4):
        assert equal(fit(model, [optimizer], t, t + 1), fit(other, two, t, t + 1))
        for schedule in schedules:
            schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.02 / 16, 1e-3 / 16]


def test_it_says_what_it_is_made_of() -> None:
    text = repr(MUON_ADAMW(Deep()))
    assert text.startswith("Composite(AdamW (") and "Muon (" in text
    defaults = MUON_ADAMW(Deep()).defaults
    assert {"lr", "weight_decay"} <= defaults.keys() and not {"betas", "momentum"} & defaults.keys(), "of all children"
    assert PAIRS["lion + sgd"][0](Deep()).defaults["lr"] == 0.05, "the main one's come first"
