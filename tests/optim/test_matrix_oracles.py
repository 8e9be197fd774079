"""NorMuon, AdaMuon, SOAP and Shampoo against their papers' equations and pytorch_optimizer, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_optim import optim

TOLERANCE = 1e-10
SHAPES = [(4, 6), (4, 6), (6, 3), (5, 5)]
"""Two can be stacked; one is higher than wide, one square."""
SQUARES = [(4, 4), (4, 4), (5, 5)]
"""For eigenvectors of both sides: of one gradient, the longer side has a kernel, whose basis roundings decide."""
LR, NUM_STEPS = 0.05, 10
JORDAN = (3.4445, -4.775, 2.0315)


def run(optimizer: torch.optim.Optimizer, params: list[nn.Parameter]) -> list[Tensor]:
    for step in range(NUM_STEPS):
        for param, grad in zip(params, gradients(step, [param.shape for param in params]), strict=True):
            param.grad = grad
        optimizer.step()
    return [param.detach() for param in params]


def new_params(shapes: Sequence[Sequence[int]] = SHAPES) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in shapes]


def gradients(step: int, shapes: Sequence[Sequence[int]] = SHAPES) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step + 1)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def distance(ours: list[Tensor], theirs: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))


# The papers' equations, for one matrix: each gives the step. t counts from 1, s is the state.


def newton_schulz(x: Tensor) -> Tensor:
    x = x / x.norm()
    a, b, c = JORDAN
    for _ in range(5):
        gram = x @ x.T
        x = a * x + b * gram @ x + c * gram @ gram @ x
    return x


def normuon(g: Tensor, t: int, s: dict[str, Any], *, nesterov: bool, keeps_norm: bool) -> Tensor:
    """arXiv:2510.05491, algorithm 1; the norm that is kept is that of the authors' code."""
    s["m"] = 0.95 * s.get("m", 0) + 0.05 * g
    o = newton_schulz(0.05 * g + 0.95 * s["m"] if nesterov else s["m"])
    s["v"] = 0.95 * s.get("v", 0) + 0.05 * (o**2).mean(1, keepdim=True)
    u = o / (s["v"].sqrt() + 1e-8)
    rows, columns = g.shape
    norm = o.norm() * math.sqrt(max(1, rows / columns)) if keeps_norm else 0.2 * math.sqrt(rows * columns)
    return LR * norm * u / (u.norm() + 1e-8)


def adamuon(g: Tensor, t: int, s: dict[str, Any], *, sign: bool) -> Tensor:
    """arXiv:2507.11005, algorithm 1, whose momentum is a sum: signs and Newton-Schulz do not depend on its scale."""
    s["m"] = 0.95 * s.get("m", 0) + g
    o = newton_schulz(s["m"].sign() if sign else s["m"])
    s["v"] = 0.95 * s.get("v", 0) + 0.05 * o**2
    u = o / (s["v"].sqrt() + 1e-8)
    return LR * 0.2 * math.sqrt(g.numel()) * u / (u.norm() + 1e-8)


def soap(g: Tensor, t: int, s: dict[str, Any], *, max_size: int) -> Tensor | float:
    """arXiv:2409.11321, algorithms 3 and 4; as in the authors' code the first step only makes the eigenvectors."""
    sides = [n <= max_size for n in g.shape]
    covs = [g @ g.T, g.T @ g]
    identity = [torch.eye(n, dtype=g.dtype) for n in g.shape]
    step: Tensor | float = 0.0
    if t > 1:
        q, r = (basis if used else eye for basis, used, eye in zip(s["q"], sides, identity, strict=True))
        s["m"] = 0.95 * s.get("m", 0) + 0.05 * g
        s["v"] = 0.95 * s.get("v", 0) + 0.05 * (q.T @ g @ r) ** 2
        k = t - 1
        bias = math.sqrt(1 - 0.95**k) / (1 - 0.95**k)
        step = LR * bias * q @ ((q.T @ s["m"] @ r) / (s["v"].sqrt() + 1e-8)) @ r.T
    s["c"] = [0.95 * old + 0.05 * new for old, new in zip(s.get("c", (0, 0)), covs, strict=True)]
    if t == 1:
        s["q"] = [torch.linalg.eigh(c)[1].flip(1) for c in s["c"]]
    elif (t - 1) % 3 == 0:
        for i, (c, q) in enumerate(zip(s["c"], s["q"], strict=True)):
            if sides[i]:
                order = torch.diagonal(q.T @ c @ q).argsort(descending=True)
                s["v"] = s["v"].index_select(i, order)
                s["q"][i] = torch.linalg.qr((c @ q)[:, order])[0]
    return step


def shampoo(g: Tensor, t: int, s: dict[str, Any], *, momentum: float, beta2: float | None) -> Tensor:
    """arXiv:1802.09568, algorithm 1; with a decay rate, of sums; with heavy-ball momentum."""
    old, new = (1.0, 1.0) if beta2 is None else (beta2, 1 - beta2)
    s["l"], s["r"] = old * s.get("l", 0) + new * g @ g.T, old * s.get("r", 0) + new * g.T @ g
    left, right = (power(s[key] + 1e-6 * torch.eye(len(s[key]), dtype=g.dtype), -0.25) for key in "lr")
    s["b"] = momentum * s.get("b", 0) + left @ g @ right
    return LR * s["b"]


def power(matrix: Tensor, exponent: float) -> Tensor:
    u, values, _ = torch.linalg.svd(matrix)
    return u @ torch.diag(values**exponent) @ u.T


IN_FLOAT64 = {"ns_dtype": "parameter"}
EQUATIONS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any], Callable[..., Any], dict[str, Any]]] = {
    "normuon": (optim.NorMuon, IN_FLOAT64, normuon, {"nesterov": False, "keeps_norm": False}),
    "normuon of the authors' code": (
        optim.NorMuon,
        {**IN_FLOAT64, "nesterov": True, "adjust_lr_fn": "original"},
        normuon,
        {"nesterov": True, "keeps_norm": True},
    ),
    "adamuon": (optim.AdaMuon, IN_FLOAT64, adamuon, {"sign": True}),
    "adamuon without sign": (optim.AdaMuon, {**IN_FLOAT64, "sign": False}, adamuon, {"sign": False}),
    "soap": (optim.SOAP, {"precondition_frequency": 3}, soap, {"max_size": 6}),
    "soap of short sides": (optim.SOAP, {"precondition_frequency": 3, "max_size": 4}, soap, {"max_size": 4}),
    "shampoo": (optim.Shampoo, {}, shampoo, {"momentum": 0.0, "beta2": None}),
    "shampoo, averaged": (
        optim.Shampoo,
        {"momentum": 0.9, "beta2": 0.8},
        shampoo,
        {"momentum": 0.9, "beta2": 0.8},
    ),
}


@pytest.mark.parametrize("foreach", [False, True], ids=["loop", "stacks"])
@pytest.mark.parametrize("case", EQUATIONS)
def test_equations(case: str, foreach: bool) -> None:
    cls, options, rule, of_rule = EQUATIONS[case]
    shapes = SQUARES if case == "soap" else SHAPES
    params = new_params(shapes)
    matrices, states = [param.detach().clone() for param in params], [{} for _ in params]
    for t in range(1, NUM_STEPS + 1):
        for i, grad in enumerate(gradients(t - 1, shapes)):
            matrices[i] = matrices[i] - rule(grad, t, states[i], **of_rule)
    optimizer = cls(params, lr=LR, weight_decay=0.0, foreach=foreach, **options)
    assert distance(run(optimizer, params), matrices) < TOLERANCE


def test_shampoos_roots_are_those_of_each_third_step() -> None:
    """And of the first."""
    (param, *_), every = new_params(), 3
    optimizer = optim.Shampoo([param], lr=LR, precondition_frequency=every)
    roots = []
    for step in range(6):
        param.grad = gradients(step)[0]
        optimizer.step()
        roots.append(optimizer.state[param]["row_root"].clone())
    changed = [not torch.equal(a, b) for a, b in pairwise(roots)]
    assert changed == [False, True, False, False, True]
    assert roots[0].any()


# pytorch_optimizer


def of_normuon(library: Any, params: list[nn.Parameter]) -> Any:
    return library.NorMuon([{"params": params, "use_muon": True}], lr=LR, eps=1e-8, foreach=False)


def of_soap(library: Any, params: list[nn.Parameter]) -> Any:
    # It takes the QR decomposition in float32, so the eigenvectors stay those of the first step.
    return library.SOAP(params, lr=LR, weight_decay=0.0, precondition_frequency=1000)


def of_shampoo(library: Any, params: list[nn.Parameter]) -> Any:
    return library.Shampoo(params, lr=LR, matrix_eps=1e-6)


THEIRS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "normuon": (of_normuon, lambda params: optim.NorMuon(params, lr=LR, nesterov=True, adjust_lr_fn="original")),
    "soap": (of_soap, lambda params: optim.SOAP(params, lr=LR, weight_decay=0.0, precondition_frequency=1000)),
    "shampoo": (of_shampoo, lambda params: optim.Shampoo(params, lr=LR)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", THEIRS)
def test_pytorch_optimizer(name: str) -> None:
    library = pytest.importorskip("pytorch_optimizer")
    build_theirs, build_ours = THEIRS[name]
    shapes = SQUARES if name == "soap" else SHAPES
    theirs, ours = new_params(shapes), new_params(shapes)
    assert distance(run(build_ours(ours), ours), run(build_theirs(library, theirs), theirs)) < TOLERANCE
