"""The numbers in printed text, read back."""

from __future__ import annotations

import re

NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.])")
"""A number that is no part of a word; a comma after it is cut off by `parse`."""


def parse(text: str) -> float:
    """The number that a reader sees: exact where it is an integer."""
    text = text.replace(",", "")
    return int(text) if text.lstrip("-").isdigit() else float(text)


def numbers(text: str) -> list[float]:
    """All numbers in a text, sorted."""
    return sorted(map(parse, NUMBER.findall(text)))


def is_near(found: float, value: float) -> bool:
    """Whether a printed number stands for this value: integers exactly, floats within 0.1 %."""
    return found == value if isinstance(value, int) else abs(found - value) <= 1e-3 * abs(value)
