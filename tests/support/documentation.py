"""The README, the pages of docs/ and those for contributors, read as code blocks, links and commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
        *sorted((ROOT / "docs").glob("*.md")),
    ]
}
"""The text of each page, by its path in the repository."""
README = PAGES["README.md"]


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    page: str
    language: str
    title: str
    """The file that the reader writes it into, or nothing."""
    text: str

    def __str__(self) -> str:
        return f"{self.page}: {self.text.splitlines()[0]}"


def _find_all() -> Iterator[Block]:
    for page, text in PAGES.items():
        for language, title, code in re.findall(
            r'^```(\w+)(?: title="(.+?)")?\n(.*?)^```', text, re.MULTILINE | re.DOTALL
        ):
            yield Block(page, language, title, code)


BLOCKS = tuple(_find_all())


def find_blocks(language: str, page: str = "", containing: str = "") -> list[Block]:
    """Blocks without a title in a language, of one page or all, with a text or any."""
    return [
        block
        for block in BLOCKS
        if block.language == language and not block.title and page in ("", block.page) and containing in block.text
    ]


def find_files(page: str) -> dict[str, str]:
    """The files that a page has the reader write."""
    blocks = [block for block in BLOCKS if block.page == page and block.title]
    return {block.title: block.text for block in blocks if block.language != "diff"}


def apply_diffs(page: str, folder: Path) -> None:
    """Edit the files in a folder as the page's diffs say; their removed and unmarked lines must be there, once."""
    for block in BLOCKS:
        if block.page == page and block.language == "diff":
            lines = [line or " " for line in block.text.splitlines()]
            before, after = ("\n".join(line[1:] for line in lines if line[0] in (" ", sign)) for sign in "-+")
            file = folder / block.title
            text = file.read_text(encoding="utf-8")
            assert text.count(before) == 1, f"{block.title} has no such lines:\n{before}"
            file.write_text(text.replace(before, after), encoding="utf-8")


def split_commands(block: Block) -> list[list[str]]:
    """The words of each command of a block."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [shlex.split(part, comments=True) for line in lines for part in line.split(" && ") if part.strip()]
