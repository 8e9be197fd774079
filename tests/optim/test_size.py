"""A member is a few lines: the rule, and no copy of it for lists."""

from __future__ import annotations

import ast
import inspect
import textwrap

import pytest

from lightning_optim import optim
from lightning_optim.catalog.common import OPTIONS
from tests.support.optimizer_runs import MEMBERS, class_of


def code_lines(cls) -> int:
    """Lines of a class as it is formatted, at 120 columns: without docstrings, comments and blank ones."""
    source = textwrap.dedent(inspect.getsource(cls))
    said = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            said.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines = enumerate(source.splitlines(), 1)
    return sum(1 for place, line in lines if place not in said and line.strip() and not line.strip().startswith("#"))


def signature_lines(name) -> int:
    """What its own part of the signature, which the registry holds, would take; the options are the base's."""
    own = [str(p) for key, p in inspect.signature(class_of(name)).parameters.items() if key not in OPTIONS]
    arguments = ", ".join([*own, "**options: Any"])
    return -(-len(f"    def __init__(self, {arguments}) -> None:") // 120)


def table():
    return {name: code_lines(class_of(name)) + signature_lines(name) for name in MEMBERS}


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_is_short(name):
    assert code_lines(class_of(name)) + signature_lines(name) <= 22


def test_an_option_under_another_name_is_shorter_still():
    assert {code_lines(cls) for cls in (optim.AdamW, optim.NAdamW, optim.AdaBoundW)} == {1}
    assert {code_lines(cls) for cls in (optim.AMSGrad, optim.AMSBound)} == {2}


if __name__ == "__main__":
    for member, lines in table().items():
        print(f"{member:12} {lines}")
