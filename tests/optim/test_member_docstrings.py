"""`help(optim.Lion)` is complete, and what all members have in common is written once."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch

from lightning_optim import optim
from lightning_optim.catalog.built_in import BUILT_IN
from lightning_optim.catalog.common import SHARED_OPTIONS
from lightning_optim.core.hyperparameters import Hyperparameter, Number, Numbers
from lightning_optim.optim.members.docstrings import parse_docstring
from lightning_optim.optim.state_keys import AVERAGE_KEYS

MEMBERS = {name: info for name, info in BUILT_IN.items() if info.own}
# What the completed docstring describes for every member.
GENERATED_ARGS = {"params", "**options"}
GENERATED_STATE = {"step", "slow", "skipped", "master", *AVERAGE_KEYS}
# A hyperparameter of each kind, and how `help` writes its bounds.
TYPES = {
    ("lion", "lr"): "lr (float >= 0, or a tensor of one element): learning rate",
    ("lion", "betas"): "betas (2 floats, each in [0, 1)): weights of the momentum",
    ("lion", "weight_decay"): "weight_decay (float >= 0, or a WeightDecay): weight decay coefficient. By default "
    "`weight_decay_mode` is `decoupled`: p ← p (1 - lr λ).",
    ("adai", "betas"): "betas (2 floats, >= 0 and in [0, 1)): ",
    ("adai", "eps"): "eps (float in (0, 1]): ",
    ("adam_mini", "num_blocks"): "num_blocks (int >= 1 or None): ",
    ("ef_sgd", "comp"): 'comp ("scaled_sign" or "sign"): ',
    ("adam", "amsgrad"): "amsgrad (bool): ",
}


def text_of(name: str) -> str:
    """The docstring with its line breaks removed."""
    cls = MEMBERS[name].load(own=True)
    return " ".join((cls.__doc__ or "").split())


def state_keys(name: str) -> set[str]:
    """The keys of the state of a 16-bit parameter after three steps, one of them skipped, with everything turned on."""
    info = MEMBERS[name]
    on = {condition: 0.5 if condition == "momentum" else True for condition in info.buffers.values() if condition}
    modifiers = {} if info.evaluations > 1 else {"lookahead": {"k": 2}, "skip_nonfinite": True}
    param = torch.nn.Parameter(torch.ones(4, 2, dtype=torch.bfloat16))
    optimizer = info.load(own=True)([param], **on, **modifiers, master_weights=True)
    for value in (1.0, float("nan") if modifiers else 1.0, 0.5):
        param.grad = torch.full_like(param, value)
        optimizer.step()
    free = {} if info.evaluations > 1 or name == "madgrad" else {"schedule_free": {"beta": 0.9}}
    other = info.load(own=True)([param], **on, **free)
    param.grad = torch.full_like(param, 0.5)
    other.step()
    other.eval()
    return {*optimizer.state[param], *other.state[param]}


@pytest.mark.parametrize("name", MEMBERS)
def test_help_names_every_argument_buffer_paper_error_and_an_example(name) -> None:
    info, cls, text = MEMBERS[name], MEMBERS[name].load(own=True), text_of(name)
    sections = re.findall(r"^(Args|State of each parameter|Raises|Examples):$", cls.__doc__, re.MULTILINE)
    assert sections == ["Args", "State of each parameter", "Raises", "Examples"]
    for key in info.signature(own=True):
        described = f" {key} (" in text or (key in SHARED_OPTIONS and f"`{key}`" in text)
        assert described, key
    for key in (*info.buffers, *state_keys(name)):
        assert f" {key}: " in text, key
    for identifier in re.findall(r"arXiv:[\d.]+|\b(?:19|20)\d\d\b", info.paper):
        assert identifier in text, identifier
    assert "ConfigError: a hyperparameter is unknown" in text
    assert f">>> optim.{cls.__name__}(" in text or f"= optim.{cls.__name__}(" in text
    assert f"lightning-optim show {name}" in text
    assert not {"null", "REQUIRED", "None:."} & set(text.split())


def test_types_and_bounds_are_those_of_the_catalog() -> None:
    for (name, _), line in TYPES.items():
        assert f" {line}" in text_of(name), line


def test_buffers_say_when_they_exist_and_of_what_shape_they_are() -> None:
    assert "max_exp_avg_sq: a tensor of its shape and dtype, only with amsgrad." in text_of("adam")
    assert "max_exp_avg_sq: a tensor of its shape and dtype. step:" in text_of("amsgrad")
    assert "block_sq_avg: one number per block, of its dtype." in text_of("adam_mini")
    for name, info in MEMBERS.items():
        for buffer in info.reduced:
            assert f"{buffer}: a tensor of its shape" not in text_of(name)


def test_errors_of_one_member_are_added_to_the_common_ones() -> None:
    assert "the `peak_lr` of a param group is 0" in text_of("adaboundw")
    assert "`amsbound` is given, and not True" in text_of("amsbound")
    assert "a tensor cannot be cut into `num_blocks` equal blocks" in text_of("adam_mini")
    assert "peak_lr" not in text_of("adam")


def test_a_variant_inherits_what_its_base_says_of_an_argument() -> None:
    for name in ("adam", "adamw", "amsgrad", "extra_adam"):
        assert "makes the two forms equal" in text_of(name), name
    assert "away: 1 between the two gradients" in text_of("storm")


def test_an_eps_that_float16_rounds_to_zero_is_pointed_out() -> None:
    for name, info in MEMBERS.items():
        eps = info.hyperparameters.get("eps")
        vanishes = eps is not None and torch.tensor(eps.default, dtype=torch.float16) == 0
        assert ("In float16 the default is 0" in text_of(name)) == vanishes, name


def test_unsupported_options_are_named_with_the_reason() -> None:
    for name in ("extra_sgd", "extra_adam", "storm"):
        assert (
            "`skip_nonfinite`, `lookahead`, `schedule_free` and `sharpness` are refused, as a step takes 2 gradients."
        ) in text_of(name)
        assert "slow:" not in text_of(name) and "skipped:" not in text_of(name)
    assert "cautious_update (bool): not supported" in text_of("omd")
    assert "`cautious_update`" not in text_of("omd")


def test_docstrings_in_the_source_do_not_repeat_what_is_generated() -> None:
    classes = 0
    for path in Path(optim.__file__).parent.joinpath("members").glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.ClassDef) or not any(keyword.arg == "name" for keyword in node.keywords):
                continue
            classes += 1
            text = ast.get_docstring(node) or ""
            source, info = parse_docstring(text), getattr(optim, node.name).info
            assert not GENERATED_ARGS & source.args.keys(), node.name
            assert not GENERATED_STATE & source.state.keys(), node.name
            assert "a hyperparameter is unknown" not in text, node.name
            for key, line in source.args.items():
                spec = info.hyperparameters[key]
                assert line.rstrip(".") != spec.help, f"{node.name}: the catalog says the same of {key}"
                assert not _states_bounds(line, spec), f"{node.name}: the catalog has the bounds of {key}"
            assert source.state.keys() - info.buffers.keys() <= state_keys(info.name)
    assert classes == len(MEMBERS)


def _states_bounds(line: str, spec: Hyperparameter) -> bool:
    return isinstance(spec, (Number, Numbers)) and re.search(r"in [\[(]\d", line) is not None
