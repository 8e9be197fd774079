"""docs/reference_bugs.md is up to date with the docstrings of the tests."""

from __future__ import annotations

import pytest

from tests.support.reference_bugs_table import DOCUMENT, document, row


def test_the_document_is_generated_from_the_docstrings():
    written = DOCUMENT.read_text(encoding="utf-8")
    assert written == document(), "run python -m tests.support.reference_bugs_table"


def test_a_docstring_becomes_a_row():
    docstring = "timm, torch: it was\n    wrong.\n\n    Very."
    assert row("test_it", docstring) == "| timm, torch | It was wrong. Very. | `test_it` |\n"


@pytest.mark.parametrize("docstring", ["", "It was wrong.", "timm: ", "Somebody: it was wrong.", "timm, you: it was."])
def test_a_docstring_without_a_known_library_is_refused(docstring):
    with pytest.raises(ValueError, match="^test_it: its docstring must start with one of labml_nn, "):
        row("test_it", docstring)
