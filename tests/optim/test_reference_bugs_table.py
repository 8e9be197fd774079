"""docs/reference_bugs.md says what the tests say."""

from __future__ import annotations

import pytest

from tests.support.reference_bugs_table import DOCUMENT, document, row


def test_the_document_is_what_the_docstrings_say():
    written = DOCUMENT.read_text(encoding="utf-8")
    assert written == document(), "write it again: python -m tests.support.reference_bugs_table"


def test_a_docstring_is_a_row():
    said = "timm, torch: it was\n    wrong.\n\n    Very."
    assert row("test_it", said) == "| timm, torch | It was wrong. Very. | `test_it` |\n"


@pytest.mark.parametrize("docstring", ["", "It was wrong.", "timm: ", "Somebody: it was wrong.", "timm, you: it was."])
def test_whose_bug_it_was_must_be_said(docstring):
    with pytest.raises(ValueError, match="^test_it: its docstring must begin with one of labml_nn, "):
        row("test_it", docstring)
