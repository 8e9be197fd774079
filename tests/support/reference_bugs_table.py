"""docs/reference_bugs.md, generated from the docstrings in `test_reference_bugs.py`.

python -m tests.support.reference_bugs_table
"""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).parents[1] / "optim" / "test_reference_bugs.py"
DOCUMENT = Path(__file__).parents[2] / "docs" / "reference_bugs.md"
LIBRARIES = ("labml_nn", "201419/Optimizer-PyTorch", "pytorch_optimizer", "timm", "lion-pytorch", "torch")
HEAD = """\
# Bugs of other collections, each with its regression test

Bugs found in labml_nn, 201419/Optimizer-PyTorch, pytorch_optimizer (kozistr), timm, lion-pytorch and torch up to
November 2026. Some have been fixed since. Unless the row says otherwise, lightning-optim does not have them: each has a
test in `tests/optim/test_reference_bugs.py`. This page is generated from the docstrings there by
`python -m tests.support.reference_bugs_table`.

| library | bug | test |
| --- | --- | --- |
"""


def document() -> str:
    """The page: a row for each test, in the order of the file."""
    tree = ast.parse(TESTS.read_text(encoding="utf-8"))
    tests = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    return HEAD + "".join(row(test.name, ast.get_docstring(test) or "") for test in tests)


def row(test: str, docstring: str) -> str:
    """The row of one test.

    Raises:
        ValueError: its docstring does not start with known libraries.
    """
    libraries, _, bug = " ".join(docstring.split()).partition(": ")
    if not bug or not set(libraries.split(", ")) <= set(LIBRARIES):
        raise ValueError(f"{test}: its docstring must start with one of {', '.join(LIBRARIES)}, and a colon")
    return f"| {libraries} | {bug[0].upper()}{bug[1:]} | `{test}` |\n"


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
