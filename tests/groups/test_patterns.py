"""Regexes in rules and plans: the matches of Python's re, within a limit of time."""

from __future__ import annotations

import re

import pytest
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory, StagedUnfreeze
from lightning_optim.groups import patterns
from lightning_optim.groups.patterns import compile_pattern

BACKTRACKING = r"re:(?:.|..)+[A-Z]"
NAMES = ["head.weight", "encoder.layer.10.attention.self_q.bias", "a", "Head.Weight", "encoder.layer.1.norm\n"]


def build_model():
    return nn.ModuleDict({"an_encoder_with_a_long_name": nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])})


def rule(**given):
    OptimizerFactory("adamw", groups={"depth": {"allow_empty": True, **given}})(build_model())


LAYERS = {"layers": "an_encoder_with_a_long_name.{i}", "layer_decay": 0.8}
CASES = {
    "groups.depth.params": lambda: rule(params=BACKTRACKING, lr=1),
    "groups.depth.stem": lambda: rule(**LAYERS, stem=BACKTRACKING),
    "stages.late.params": lambda: StagedUnfreeze({"late": {"params": BACKTRACKING}}).explain(build_model()),
}


@pytest.mark.parametrize(("key", "build"), CASES.items(), ids=CASES)
def test_one_that_takes_too_long_is_refused_by_the_name_of_its_rule(monkeypatch, key, build):
    monkeypatch.setattr(patterns, "MAX_REGEX_TIME_S", 0.02)
    with pytest.raises(ConfigError, match=rf"^{re.escape(key)}: the regex .* takes more than 0.02 s"):
        build()


def test_the_limit_is_for_all_names_together(monkeypatch):
    monkeypatch.setattr(patterns, "MAX_REGEX_TIME_S", 0.1)
    matches = compile_pattern(r"re:(?:.|..)+[A-Z]")
    with pytest.raises(ConfigError, match="takes more than"):
        list(map(matches, ["a" * 20] * 1000))  # some milliseconds each


REGEXES = [r".*", r"head\..*", r"encoder\.layer\.\d+\..*", r"(?i)head\.weight", r"(?!encoder).*", r"[^.]+"]
REGEXES += [r".*(?<=bias)", r"[\w.]+?", r"encoder\.layer\.(\d)\1?\..*", r"(?x) head \. weight # the head"]


@pytest.mark.parametrize("regex", REGEXES)
def test_matches_are_those_of_pythons_re(regex):
    expected = [name for name in NAMES if re.compile(regex).fullmatch(name)]
    assert list(filter(compile_pattern(f"re:{regex}"), NAMES)) == expected


@pytest.mark.parametrize("regex", [r"\p{L}+", r"(?|a|b)", r"(?r)a", "(", r"[[:alpha:]]"])
def test_what_pythons_re_does_not_take_is_refused(regex):
    with pytest.raises(ConfigError, match=r"groups.depth.params: .* is not a valid regular expression"):
        rule(params=f"re:{regex}", lr=1)
