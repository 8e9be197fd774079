"""Docstrings of the standard library: no module in two splits, and no name of a module in its own texts."""

from __future__ import annotations

import hashlib
import re
import sysconfig

import pytest

from lightning_optim import ConfigError
from recipes import docstrings
from recipes.docstrings import MAX_TEXTS_PER_MODULE, TOPICS, read_docstrings


@pytest.mark.slow
def test_no_module_and_no_text_is_in_two_splits() -> None:
    splits = read_docstrings()
    modules = {split: {module for _, _, module in rows} for split, rows in splits.items()}
    texts = {split: {text.lower() for text, _, _ in rows} for split, rows in splits.items()}
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        assert not modules[first] & modules[second]
        assert not texts[first] & texts[second]
    assert sum(map(len, texts.values())) == sum(map(len, splits.values()))
    for rows in splits.values():
        assert {topic for _, topic, _ in rows} == set(TOPICS)


@pytest.mark.slow
def test_no_text_has_the_name_of_its_module() -> None:
    for rows in read_docstrings().values():
        for text, _, module in rows:
            assert not re.search(rf"\b{module}\b", text, re.IGNORECASE), (module, text)


def write_library(folder, monkeypatch: pytest.MonkeyPatch, **sources: str) -> None:
    for name, source in sources.items():
        file = folder / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(source)
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(folder)})


def test_names_of_modules_and_classes_are_masked_and_short_texts_left_out(tmp_path, monkeypatch) -> None:
    source = '''"""Jars, as jar.Lid and other lids have it, but not a lidded pot."""
class Lid:
    """Too short a text, this one."""
    def open(self):
        """Open the jar with force,
        as one does with any other."""
    def close(self):
        """Open the jar with force, as one does with any other."""
    def shut(self):
        """What an example shows is not a part of it.

        >>> Lid().shut()
        """
'''
    write_library(tmp_path, monkeypatch, jar=source)
    assert set(docstrings._read_module("jar")) == {
        "X, as X.X and other X have it, but not a lidded pot.",
        "Open the X with force, as one does with any other.",
        "Too short a text, this one.",
        "What an example shows is not a part of it.",
    }
    monkeypatch.setattr(docstrings, "MIN_WORDS", 7)
    assert "Too short a text, this one." not in docstrings._read_module("jar")


def test_every_file_of_a_package_is_read_but_its_tests(tmp_path, monkeypatch) -> None:
    for name in ("", "sub", "test"):
        (tmp_path / "pack" / name).mkdir(exist_ok=True)
        (tmp_path / "pack" / name / "__init__.py").write_text(
            f'"""A text of several words {name}, from sub of pack."""'
        )
    write_library(tmp_path, monkeypatch)
    texts = docstrings._read_module("pack")
    assert sorted(texts) == ["A text of several words , from X of X.", "A text of several words X, from X of X."]


@pytest.mark.slow
def test_a_module_has_no_more_texts_than_the_limit_in_an_order_of_their_own() -> None:
    for rows in read_docstrings().values():
        for name in {module for _, _, module in rows}:
            assert sum(module == name for _, _, module in rows) <= MAX_TEXTS_PER_MODULE
    texts = docstrings._read_module("json")
    assert texts == sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest()) != sorted(texts)


def test_a_python_without_sources_is_an_error(tmp_path, monkeypatch) -> None:
    write_library(tmp_path, monkeypatch)
    with pytest.raises(ConfigError, match=r"^task\.csv: null, and .* has no source files .* Type task\.csv=FILE"):
        read_docstrings.__wrapped__()
