"""`read_parameters`: the names and owners of parameters, in every form in which they are passed."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.optim.swa_utils import AveragedModel

from lightning_optim import ConfigError, OptimizerFactory
from lightning_optim.groups.parameters import read_parameters
from lightning_optim.groups.wrappers import WRAPPED_ATTRIBUTES, clean_named_modules
from tests.support.cases import every
from tests.support.messages import check_message
from tests.support.models import Net, Tied, Tiny, names_of

HEAD = {"head": {"params": "head", "lr_scale": 0.5}}
# torch's compiler, when it is imported, uses functions that torch deprecates.
imports_compiler = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


def identities(parameters):
    return [id(parameter) for parameter in parameters]


FORMS = {
    "module": lambda module: module,
    "named_parameters": lambda module: module.named_parameters(),
    "pairs": lambda module: list(module.named_parameters()),
    "named_parameters with duplicates": lambda module: module.named_parameters(remove_duplicate=False),
    "pairs with duplicates": lambda module: list(module.named_parameters(remove_duplicate=False)),
    "parameters": lambda module: module.parameters(),
    "generator over parameters": lambda module: (p for p in module.parameters() if p.requires_grad),
    "generator over pairs": lambda module: ((n, p) for n, p in module.named_parameters() if p.requires_grad),
    "generator over a generator": lambda module: (p for p in (q for q in module.parameters()) if p.ndim),
}
WRAPPERS = {
    "bare": lambda module: module,
    "compile": torch.compile,
    "DataParallel": nn.DataParallel,
    "AveragedModel": AveragedModel,
    "checkpoint_wrapper": checkpoint_wrapper,
    "compile of DataParallel": lambda module: torch.compile(nn.DataParallel(module)),
    "DataParallel of compile": lambda module: nn.DataParallel(torch.compile(module)),
}


FORM_CASES = [(form, wrapper) for form in FORMS for wrapper in WRAPPERS]
FAST_FORM_CASES = [
    case for case in FORM_CASES if case[0] == "parameters" or case[1] in ("bare", "compile of DataParallel")
]


@imports_compiler
@pytest.mark.parametrize(("form", "wrapper"), every(FORM_CASES, fast=[*map("-".join, FAST_FORM_CASES)], id="-".join))
def test_every_form_gives_clean_names_in_the_model_s_order(form, wrapper):
    module = Net()
    wrapped = WRAPPERS[wrapper](module)
    parameters = read_parameters(FORMS[form](wrapped))
    assert [p.name for p in parameters] == names_of(module)
    assert identities(p.tensor for p in parameters) == identities(wrapped.parameters())


@imports_compiler
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_wrapped_child_has_clean_names_too(wrap):
    module = Net()
    names = names_of(module)
    module.backbone.layer[0] = wrap(module.backbone.layer[0])
    assert [p.name for p in read_parameters(module)] == names
    assert "backbone.layer.0.norm" in dict(clean_named_modules(module))


def test_a_ddp_replica_has_clean_names(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        module = Net()
        replica = nn.parallel.DistributedDataParallel(module)
        assert [p.name for p in read_parameters(replica.parameters())] == names_of(module)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("path", WRAPPED_ATTRIBUTES)
def test_every_known_wrapper_exists(path):
    module, _, name = path.rpartition(".")
    assert issubclass(getattr(importlib.import_module(module), name), nn.Module)


class NamedLikeWrappers(nn.Module):
    """A user's module whose attributes have the names of wrappers' attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Linear(2, 2)
        self._orig_mod = nn.Linear(2, 2, bias=False)


OWN_NAMES = ["module.weight", "module.bias", "_orig_mod.weight"]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_user_s_attributes_named_like_a_wrapper_s_stay_in_the_names(form):
    assert [p.name for p in read_parameters(form(NamedLikeWrappers()))] == OWN_NAMES
    inside = nn.ModuleDict({"encoder": NamedLikeWrappers(), "module": nn.Linear(2, 2, bias=False)})
    expected = [*(f"encoder.{name}" for name in OWN_NAMES), "module.weight"]
    assert [p.name for p in read_parameters(form(nn.DataParallel(inside)))] == expected


@pytest.mark.parametrize(
    ("given", "names"),
    [
        pytest.param(["module.a", "module.b.c"], ["a", "b.c"], id="one_prefix"),
        pytest.param(["module._orig_mod.a", "module._orig_mod.b"], ["a", "b"], id="two_prefixes"),
        pytest.param(["module.a", "b"], ["module.a", "b"], id="not_of_all"),
        pytest.param(["a.module.b"], ["a.module.b"], id="not_leading"),
        pytest.param(["module"], ["module"], id="a_parameter_s_own_name"),
        pytest.param(["encoder.a", "encoder.b"], ["encoder.a", "encoder.b"], id="no_wrapper_s"),
    ],
)
def test_only_leading_wrapper_prefixes_that_all_names_share_are_stripped_from_pairs(given, names):
    pairs = [(name, nn.Parameter(torch.zeros(1))) for name in given]
    assert [p.name for p in read_parameters(pairs)] == names


def test_names_given_in_a_generator_of_pairs_are_kept():
    pairs = ((f"student.{name}", parameter) for name, parameter in Tiny().named_parameters())
    assert [p.name for p in read_parameters(pairs)][:2] == ["student.backbone.weight", "student.backbone.bias"]


def test_a_generator_with_a_filter_gives_the_names_of_the_rest():
    module = Tiny()
    module.backbone.weight.requires_grad_(False)
    found = read_parameters(p for p in module.parameters() if p.requires_grad)
    assert [p.name for p in found] == ["backbone.bias", "head.weight", "head.bias"]


@pytest.mark.parametrize("form", ["module", "named_parameters with duplicates", "pairs with duplicates", "parameters"])
def test_a_tied_parameter_has_all_its_names_and_is_listed_under_the_first(form):
    parameters = read_parameters(FORMS[form](Tied()))
    assert [(p.name, p.names) for p in parameters] == [
        ("embed.weight", ("embed.weight", "head.weight")),
        ("head.bias", ("head.bias",)),
    ]


def test_a_shared_module_is_read_once_under_each_path():
    shared = nn.Linear(2, 2, bias=False)
    parameters = read_parameters(nn.ModuleDict({"a": shared, "b": shared}))
    assert [(p.name, p.names) for p in parameters] == [("a.weight", ("a.weight", "b.weight"))]
    assert [o.owner for o in parameters[0].occurrences] == [shared, shared]


def test_owner_modules_are_known_from_a_module_and_not_from_pairs():
    module = Tiny()
    assert [o.owner for o in read_parameters(module.parameters())[2].occurrences] == [module.head]
    assert [o.owner for o in read_parameters(list(module.named_parameters()))[2].occurrences] == [None]


BARE_FORMS = {
    "list": lambda module: list(module.parameters()),
    "repeated": lambda module: [*module.parameters(), *module.parameters()],
    "children's, chained": lambda module: [p for child in module.children() for p in child.parameters()],
    "filter": lambda module: filter(torch.is_tensor, module.parameters()),
    "recurse=False": lambda module: (p for child in module.children() for p in child.parameters(recurse=False)),
}


@pytest.mark.parametrize("form", BARE_FORMS.values(), ids=BARE_FORMS)
def test_bare_tensors_are_accepted_without_rules(form):
    module = Tiny()
    parameters = read_parameters(form(module))
    assert identities(p.tensor for p in parameters) == identities(module.parameters())
    assert {p.names for p in parameters} == {()}
    (group,) = OptimizerFactory("adam")(form(module)).param_groups
    assert identities(group["params"]) == identities(module.parameters())
    assert "param_names" not in group


@pytest.mark.parametrize("form", BARE_FORMS.values(), ids=BARE_FORMS)
def test_bare_tensors_with_a_rule_are_refused_with_the_line_to_write(form):
    with pytest.raises(ConfigError) as caught:
        OptimizerFactory("adam", groups=HEAD)(form(Tiny()))
    check_message(caught, "groups.head", "optimizer(params=self.trainer.model.named_parameters())")


def test_a_generator_that_was_started_gives_only_the_rest():
    module = Tiny()
    generator = module.parameters()
    next(generator)
    assert identities(p.tensor for p in read_parameters(generator)) == identities(module.parameters())[1:]


def test_a_generator_of_other_tensors_gives_those_tensors():
    module = Tiny()
    assert [p.tensor.data_ptr() for p in read_parameters(p.data for p in module.parameters())] == [
        p.data_ptr() for p in module.parameters()
    ]


def used_up(generator):
    list(generator)
    return generator


@pytest.mark.parametrize(
    ("params", "part"),
    [
        pytest.param(used_up(Tiny().parameters()), "contains no parameters", id="used_up_parameters"),
        pytest.param(used_up(Tiny().named_parameters()), "used up", id="used_up"),
        pytest.param((p for p in used_up(Tiny().parameters())), "contains no parameters", id="over_used_up"),
        pytest.param([], "contains no parameters", id="empty"),
        pytest.param(nn.Tanh(), "contains no parameters", id="module_without"),
        pytest.param("head", "str", id="text"),
        pytest.param(3, "int", id="number"),
        pytest.param(None, "NoneType", id="none"),
        pytest.param(torch.zeros(2), "Tensor", id="one_tensor"),
        pytest.param({"params": []}, "dict", id="group"),
        pytest.param([{"params": [torch.zeros(2)]}], "contains a dict", id="groups"),
        pytest.param(({"params": [p]} for p in Tiny().parameters()), "contains a dict", id="generator_of_groups"),
        pytest.param([("a", torch.zeros(2)), torch.zeros(2)], "contains a Tensor", id="mixed"),
        pytest.param([(torch.zeros(2), "a")], "contains a tuple", id="pairs_the_wrong_way_round"),
        pytest.param([nn.Linear(2, 2)], "contains a Linear", id="modules"),
    ],
)
def test_anything_but_parameters_is_refused_with_what_to_pass(params, part):
    with pytest.raises(ConfigError) as caught:
        read_parameters(params)
    check_message(caught, "params", part, "the module", "named_parameters()")


class Replicated(nn.DataParallel):
    """A wrapper with a parameter of its own, called like one of what it wraps."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(2, 2))
        self.weight = nn.Parameter(torch.zeros(1))


@pytest.mark.parametrize(
    "params",
    [
        pytest.param(Replicated(), id="wrapper"),
        pytest.param([("weight", torch.zeros(1)), ("weight", torch.ones(1))], id="pairs"),
    ],
)
def test_two_parameters_with_the_same_name_are_refused(params):
    with pytest.raises(ConfigError, match=r"^params: two parameters have the same name .*: weight"):
        read_parameters(params)
