"""Docstrings of Python's standard library by topic: real text that every machine has, read from source files."""

from __future__ import annotations

import ast
import functools
import hashlib
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from lightning_optim import ConfigError

# Topic → its modules, by the chapters of Python's library reference. A package is one module. Those without Python
# source are left out, and those that some of Python 3.10 to 3.13 have dropped.
TOPICS: dict[str, str] = {
    "data formats": "base64 configparser csv difflib html json plistlib pprint re string textwrap xml",
    "numbers and time": "calendar colorsys datetime decimal fractions numbers random statistics zoneinfo",
    "files": "bz2 fileinput filecmp glob gzip io lzma mailbox ntpath os pathlib shutil tarfile tempfile zipfile",
    "concurrency": "asyncio concurrent multiprocessing queue sched selectors subprocess threading",
    "internet": "email ftplib http imaplib ipaddress poplib smtplib socket socketserver ssl urllib wsgiref xmlrpc",
    "python": "abc ast bdb contextlib dataclasses dis enum functools importlib inspect pdb pickletools symtable "
    "traceback typing weakref",
}

# Of each four modules of a topic, in alphabetical order.
SPLIT_OF_EVERY_FOUR = ("test", "train", "val", "train")
MAX_TEXTS_PER_MODULE = 40
MIN_WORDS = 6
MASK = "X"

# Source files whose names differ from the module's.
_SOURCES = {
    "datetime": ("_pydatetime.py", "datetime.py"),
    "decimal": ("_pydecimal.py", "decimal.py"),
    "io": ("_pyio.py", "io.py"),
    "threading": ("threading.py", "_threading_local.py"),
}
_Documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@functools.cache
def read_docstrings() -> dict[str, list[tuple[str, str, str]]]:
    """Split → `(text, topic, module)` of each docstring; no module and no text is in two splits.

    The names of the module, its submodules and its classes are masked, for they would tell the topic.

    Raises:
        ConfigError: this Python has no source files of its library.
    """
    splits: dict[str, list[tuple[str, str, str]]] = {"train": [], "val": [], "test": []}
    seen: set[str] = set()
    for topic, modules in TOPICS.items():
        for index, module in enumerate(modules.split()):
            texts = [text for text in _read_module(module) if text.lower() not in seen]
            seen.update(text.lower() for text in texts)
            split = SPLIT_OF_EVERY_FOUR[index % len(SPLIT_OF_EVERY_FOUR)]
            splits[split] += [(text, topic, module) for text in texts[:MAX_TEXTS_PER_MODULE]]
    if not all(splits.values()):
        folder = sysconfig.get_paths()["stdlib"]
        raise ConfigError(
            f"task.csv: null, and {folder} has no source files of Python's library to read docstrings from. "
            "Type task.csv=FILE, with the columns text and label"
        )
    return splits


def _read_module(module: str) -> list[str]:
    """The masked docstrings of a module, each once, in an order that depends on their text only."""
    sources = _find_sources(module)
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in sources]
    names = {module, *(part for file in sources for part in (file.stem, file.parent.name))}
    names.update(node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    texts = {_mask(doc, names) for tree in trees for doc in _find_docstrings(tree)}
    long_enough = [text for text in texts if len(text.replace(MASK, "").split()) >= MIN_WORDS]
    return sorted(long_enough, key=lambda text: hashlib.sha256(text.encode()).digest())


def _find_sources(module: str) -> list[Path]:
    library = Path(sysconfig.get_paths()["stdlib"])
    if (library / module).is_dir():
        files = sorted((library / module).rglob("*.py"))
        return [file for file in files if not {"test", "tests"} & set(file.relative_to(library).parts)]
    return [file for name in _SOURCES.get(module, (f"{module}.py",)) if (file := library / name).is_file()]


def _find_docstrings(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, _Documented) and (text := ast.get_docstring(node)):
            yield text.partition(">>>")[0]


def _mask(text: str, names: set[str]) -> str:
    """The text on one line, with names of the module masked: whole words, of any case, with a plural's s."""
    known = {name.lower().strip("_") for name in names} - {""}

    def mask_word(match: re.Match[str]) -> str:
        word = match[0].lower().strip("_")
        return MASK if word in known or word.removesuffix("s") in known else match[0]

    return " ".join(re.sub(r"\w+", mask_word, text).split())
