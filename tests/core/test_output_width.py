"""`output_width`: COLUMNS, else the terminal, else as wide as needed."""

from __future__ import annotations

import io
import os
import sys

import pytest

from lightning_optim.core.output_width import AS_NEEDED, output_width


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 1


@pytest.fixture
def terminal(monkeypatch) -> Terminal:
    monkeypatch.setattr(os, "get_terminal_size", lambda descriptor: os.terminal_size((97, 24)))
    return Terminal()


def test_a_terminal_has_its_width(terminal):
    assert output_width(terminal) == 97


def test_a_pipe_has_none():
    assert output_width(io.StringIO()) == AS_NEEDED


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()], ids=["terminal", "pipe"])
def test_columns_is_obeyed(monkeypatch, stream):
    monkeypatch.setenv("COLUMNS", "66")
    assert output_width(stream) == 66


@pytest.mark.parametrize("columns", ["", "0", "wide", "-5", "1.5"])
def test_columns_that_is_no_width_is_not_obeyed(monkeypatch, terminal, columns):
    monkeypatch.setenv("COLUMNS", columns)
    assert output_width(terminal) == 97


@pytest.mark.parametrize("size", [os.terminal_size((0, 0)), OSError("no terminal")], ids=["zero", "error"])
def test_a_terminal_that_does_not_say_has_80(monkeypatch, terminal, size):
    def get_terminal_size(descriptor):
        if isinstance(size, OSError):
            raise size
        return size

    monkeypatch.setattr(os, "get_terminal_size", get_terminal_size)
    assert output_width(terminal) == 80


def test_without_stdout_it_is_as_wide_as_needed(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert output_width() == AS_NEEDED
