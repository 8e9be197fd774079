"""Checks of error messages by their parts: the key, what was given, what is near or allowed, and what to type."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from lightning_optim import ConfigError


def check_message(caught: pytest.ExceptionInfo, key: str, *parts: str) -> None:
    """The message starts with a config key and has all parts."""
    message = str(caught.value)
    assert message.startswith(f"{key}: "), message
    assert [part for part in parts if part not in message] == [], message


def check_refusals(cases: Mapping[str, tuple[Callable[[], Any], str, Sequence[str]]]) -> dict[str, str]:
    """Every case raises a ConfigError whose message starts with the key and has all parts.

    Args:
        cases: by name: a function that raises, the key, and the parts.

    Returns:
        Every message by the name of its case.
    """
    messages, failures = {}, {}
    for name, (run, key, parts) in cases.items():
        try:
            run()
        except ConfigError as error:
            messages[name] = message = str(error)
            if type(error) is not ConfigError or not message.startswith(f"{key}: "):
                failures[name] = f"not a ConfigError with the key {key}: {error!r}"
            elif missing := [part for part in parts if part not in message]:
                failures[name] = f"no {missing} in: {message}"
        else:
            failures[name] = "nothing was raised"
    assert failures == {}
    return messages
