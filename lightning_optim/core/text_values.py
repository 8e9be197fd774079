"""Numbers, flags and null that a config has as text: from YAML 1.1, from environment variables, in quotes."""

from __future__ import annotations

import ast
import math
import re
from typing import Any

from .config_values import to_yaml

_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False, "null": None, "none": None}
# Floats that YAML 1.1 (PyYAML) reads as text: without a decimal point, or with an exponent without a sign.
_NO_FLOAT_IN_YAML_1_1 = re.compile(r"[-+]?(\d+e[-+]?\d+|\d*\.\d*e\d+)", re.IGNORECASE)


def read_text(value: Any) -> Any:
    """The value with every string in it that spells a finite number, a flag, null or a list of these replaced by that.

    Args:
        value: a plain config value; a mapping is returned unchanged.
    """
    if isinstance(value, list):
        return [read_text(item) for item in value]
    return _read_string(value.strip()) if isinstance(value, str) else value


def explain_text(given: Any, meant: Any, key: str) -> str:
    """What to type in place of text.

    Args:
        given: the config value.
        meant: what `read_text` makes of it.
        key: its config key.
    """
    key = key.rsplit(".", 1)[-1]
    is_yaml_1_1 = isinstance(given, str) and _NO_FLOAT_IN_YAML_1_1.fullmatch(given.strip())
    how = f" (YAML 1.1 reads {given} as text)" if is_yaml_1_1 else " without quotes"
    return (
        f"Type {key}: {_format(given, meant)}{how}; if it comes from an environment variable, "
        f"type {key}: ${{oc.decode:${{oc.env:NAME}}}}"
    )


def _read_string(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if text.startswith(("[", "(")):
        try:
            return read_text(list(ast.literal_eval(text)))
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return text
    for convert in (int, float):
        try:
            number = convert(text)
        except ValueError:
            continue
        return number if math.isfinite(number) else text
    return text


def _format(given: Any, meant: Any) -> str:
    """The meaning in YAML that every parser reads alike; an exponent stays one."""
    if isinstance(given, list):
        return f"[{', '.join(map(_format, given, meant))}]"
    if isinstance(given, str) and isinstance(meant, float) and "e" in given.lower():
        mantissa, _, exponent = given.strip().lower().partition("e")
        mantissa = f"{mantissa}0" if mantissa.endswith(".") else mantissa if "." in mantissa else f"{mantissa}.0"
        return f"{mantissa}e{exponent if exponent[0] in '+-' else f'+{exponent}'}"
    return to_yaml(meant)
