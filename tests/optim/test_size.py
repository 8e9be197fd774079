"""A member is a few lines: the rule, and no copy of it for lists."""

from __future__ import annotations

import ast
import inspect
from functools import cache
from pathlib import Path

import pytest

from lightning_optim import optim
from lightning_optim.catalog.common import SHARED_OPTIONS
from tests.support.optimizer_runs import MATRIX_MEMBERS, MEMBERS, native_class

FOLDER = Path(optim.__file__).parent / "members"


@cache
def class_definitions() -> dict[str, tuple[ast.ClassDef, list[str]]]:
    """Each class in `members/` with the lines of its file."""
    found = {}
    for path in FOLDER.glob("*.py"):
        source = path.read_text(encoding="utf-8")
        for node in ast.parse(source).body:
            if isinstance(node, ast.ClassDef):
                found[node.name] = node, source.splitlines()
    return found


def num_code_lines(cls: type) -> int:
    """Lines of a class as formatted, at 120 columns: without docstrings, comments and blank lines."""
    definition, lines = class_definitions()[cls.__name__]
    docstrings = set()
    for node in ast.walk(definition):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            docstrings.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    code = [
        number
        for number in range(definition.lineno, definition.end_lineno + 1)
        if number not in docstrings and (line := lines[number - 1].strip()) and not line.startswith("#")
    ]
    return len(code)


def num_signature_lines(name: str) -> int:
    """The lines that a member's own part of the signature, which the catalog has, would take in the class."""
    parameters = inspect.signature(native_class(name)).parameters
    own = [str(p) for key, p in parameters.items() if key not in SHARED_OPTIONS]
    arguments = ", ".join([*own, "**options: Any"])
    return -(-len(f"    def __init__(self, {arguments}) -> None:") // 120)


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_has_at_most_22_lines_of_code(name):
    """Those of matrices 32: they name the shapes of their state, and join and separate stacks of it."""
    limit = 32 if name in MATRIX_MEMBERS else 22
    assert num_code_lines(native_class(name)) + num_signature_lines(name) <= limit


def test_a_member_that_is_another_one_with_an_option_has_one_or_two_lines():
    assert {num_code_lines(cls) for cls in (optim.AdamW, optim.NAdamW, optim.AdaBoundW)} == {1}
    assert {num_code_lines(cls) for cls in (optim.AMSGrad, optim.AMSBound)} == {2}
