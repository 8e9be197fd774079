"""What an error has to say: the key, what was given, what is near it or allowed, what to type. The wording is free."""

from __future__ import annotations

import pytest


def check_message(caught: pytest.ExceptionInfo, key: str, *parts: str) -> None:
    message = str(caught.value)
    assert message.startswith(f"{key}: "), message
    assert [part for part in parts if part not in message] == [], message
