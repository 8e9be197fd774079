"""`split` with the rows of each part, as for a fused qkv with grouped queries: each is stepped as its own matrix."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_optim import ConfigError, OptimizerFactory, optim
from tests.support.equality import equal
from tests.support.optimizer_runs import MATRIX_MEMBERS, native_class
from tests.support.save_and_load import save_and_load

ROWS = (9, 4, 3)
OPTIONS: dict[str, dict[str, Any]] = {
    "muon": {"adjust_lr_fn": "original", "weight_decay": 0.1},  # a ratio of lr for each shape
    "normuon": {"adjust_lr_fn": "original"},
    "soap": {"max_size": 8, "precondition_frequency": 2},  # one part has no factor for its rows
    "shampoo": {"momentum": 0.5, "precondition_frequency": 2},
}
FUSED: list[tuple[tuple[int, ...], str | None]] = [((16, 6), None), ((2, 16, 6), "batch"), ((16, 3, 2), "flatten")]
"""Shapes of which a dimension of 16 are the rows, and how they are read."""


def cut(tensor: Tensor, matrix: str | None) -> list[Tensor]:
    return [part.clone() for part in tensor.detach().split(ROWS, -2 if matrix == "batch" else 0)]


@pytest.mark.parametrize("foreach", [False, True], ids=["loop", "stacks"])
@pytest.mark.parametrize("name", MATRIX_MEMBERS)
def test_each_part_is_stepped_as_its_own_matrix_and_resumes_bit_by_bit(name, foreach):
    cls, options = native_class(name), {"lr": 0.1, "foreach": foreach, **OPTIONS.get(name, {})}
    for shape, matrix in FUSED:
        generator = torch.Generator().manual_seed(0)
        # Two of the same shape are one stack.
        fused = [nn.Parameter(torch.randn(shape, generator=generator)) for _ in range(2)]
        parts = [[nn.Parameter(part) for part in cut(param, matrix)] for param in fused]
        together = cls(fused, matrix=matrix, split=ROWS, **options)
        apart = cls([part for of_one in parts for part in of_one], matrix=matrix, **options)
        for step in range(5):
            for param, of_one in zip(fused, parts, strict=True):
                param.grad = torch.randn(shape, generator=generator)
                for part, grad in zip(of_one, cut(param.grad, matrix), strict=True):
                    part.grad = grad
            together.step()
            apart.step()
            if step == 2:
                saved = save_and_load(together.state_dict())
                together = cls(fused, matrix=matrix, split=ROWS, **options)
                together.load_state_dict(saved)
        for param, of_one in zip(fused, parts, strict=True):
            assert equal(cut(param, matrix), [part.detach() for part in of_one]), (shape, matrix)


def test_equal_parts_have_the_state_of_a_number_of_parts():
    states = []
    for split in (2, [3, 3]):
        weight = nn.Parameter(torch.ones(6, 4))
        optimizer = optim.SOAP([weight], split=split)
        for grad in (torch.eye(6, 4), torch.ones(6, 4)):
            weight.grad = grad
            optimizer.step()
        states.append(save_and_load(optimizer.state_dict())["state"])
    assert equal(*states)
    assert states[0][0]["row_cov"].shape == (2, 3, 3)


class Attention(nn.Module):
    """Grouped queries: 4 heads of queries, 2 of keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 16, bias=False)
        self.out = nn.Linear(8, 8, bias=False)


def test_the_table_shows_the_rows_and_a_group_has_them():
    rule = {"params": "qkv", "optimizer": "muon"}
    factory = OptimizerFactory("adamw", groups={"x": {**rule, "split": [8, 4, 4]}})
    table = factory.explain(Attention())
    assert "[8, 4, 4]" in table.text() and table.rows()[0]["split"] == (8, 4, 4)
    assert factory(Attention()).param_groups[0]["split"] == (8, 4, 4)
    assert "split" not in OptimizerFactory("adamw", groups={"x": rule}).explain(Attention()).columns()


def test_rows_that_are_not_those_of_the_parameter_are_refused_with_their_sum():
    def build(split: Any) -> Any:
        return OptimizerFactory("adamw", groups={"x": {"params": "qkv", "optimizer": "soap", "split": split}})(model)

    model = Attention()
    with pytest.raises(ConfigError, match=r"^groups\.x\.split: got \[8, 4\], together 12 rows, but qkv\.weight, of the "
                       r"shape \[16, 8\], has 16\. Type the rows of each part, together 16, or"):  # fmt: skip
        build([8, 4])
    with pytest.raises(ConfigError, match=r"^groups\.x\.split: got 3, but the 16 rows of .*Type the rows of each part"):
        build(3)
    with pytest.raises(ConfigError, match=r"^groups\.x\.split: got \[16, 0\], which is not an integer >= 1, or a list"):
        build([16, 0])
    before = build([8, 4, 4])
    model.qkv.weight.grad = torch.ones(16, 8)
    before.step()
    with pytest.raises(ConfigError, match=r"row_cov of qkv\.weight has the shape \[1, 96\].*or with another split"):
        build([12, 4]).load_state_dict(save_and_load(before.state_dict()))
