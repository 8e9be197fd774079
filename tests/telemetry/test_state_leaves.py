"""The tensors and numbers in an optimizer state, however deeply nested."""

from __future__ import annotations

import torch

from lightning_optim.telemetry.state_leaves import is_float_tensor, state_leaves


def test_leaves_are_named_by_their_path() -> None:
    first, second = torch.ones(1), torch.zeros(2)
    state = {"step": 3, "nested": {"buffer": first, "history": [0.5, (second,)]}, "mode": "max", "missing": None}
    assert list(state_leaves(state)) == [
        ("step", 3),
        ("nested.buffer", first),
        ("nested.history.0", 0.5),
        ("nested.history.1.0", second),
    ]


def test_only_floating_point_and_complex_tensors_have_a_norm() -> None:
    dtypes = (torch.bfloat16, torch.complex64, torch.int64, torch.bool)
    assert [is_float_tensor(torch.ones(1, dtype=dtype)) for dtype in dtypes] == [True, True, False, False]
    assert not is_float_tensor(1.0)
