"""Members that other people have too, where theirs is of use with a little help: a start, a dtype, a Hessian."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from lightning_optim import optim
from tests.optim.test_oracles_others import Fed
from tests.support import oracles
from tests.support.oracles import (
    AROUND,
    BETAS,
    COMMON,
    DECAY,
    PEAK,
    STEPS,
    TOLERANCE,
    Arrays,
    Case,
    Options,
    around,
    assert_together,
    cases,
    corrected_eps,
    decay,
    drive,
    drive_optax,
    every,
    gradients,
    lr_at,
    optax_s,
    start,
)

pytestmark = pytest.mark.slow

elsewhere = oracles.elsewhere


# Yogi, from above zero. Elsewhere that is where its first moment starts too, and eps is added to the corrected root.

FIRST = every(BETAS, [{"initial_accumulator_value": first} for first in (1e-6, 0.5)])


class FromZero:
    """pytorch_optimizer's, with a first moment of zero."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer, self.param_groups = optimizer, optimizer.param_groups

    def step(self) -> None:
        if not self.optimizer.state:
            self.optimizer.init_group(self.param_groups[0])
            for state in self.optimizer.state.values():
                state["exp_avg"].zero_()
        self.optimizer.step()


@pytest.mark.parametrize("case", cases("Yogi", every(FIRST, COMMON), None, at=corrected_eps), ids=str)
def test_yogi_of_pytorch_optimizer(case: Case):
    library = pytest.importorskip("pytorch_optimizer")
    modes = {"weight_decouple": case.mode != "l2", "fixed_decay": case.mode == "absolute", "weight_decay": DECAY}
    first, moments = case.options["initial_accumulator_value"], {key: case.options[key] for key in ("betas", "eps")}
    make = partial(library.Yogi, initial_accumulator=first, **moments, **modes)
    theirs = drive(lambda params, lr: FromZero(make(params, lr=lr)), False, lambda lr, t: {"lr": lr})
    assert_together(case.drive_ours(), theirs)


def yogi_from_zero(ox: Any, lr: Callable[[Any], float], mode: str, o: Options) -> Any:
    rule = ox.scale_by_yogi(**o)

    def init(params: Any) -> Any:
        return rule.init(params)._replace(mu=[0.0 * p for p in params])

    return around(ox, rule._replace(init=init), lr, mode)


OPTAX = optax_s("Yogi", every(FIRST, AROUND), yogi_from_zero, "initial_accumulator_value", at=corrected_eps)


@pytest.mark.parametrize("case", OPTAX, ids=str)
def test_yogi_of_optax(case: Case, elsewhere: ProcessPoolExecutor):
    pytest.importorskip("optax")
    assert_together(case.drive_ours(), elsewhere.submit(drive_optax, __name__, OPTAX.index(case)).result())


# Error feedback is in no library. But the parameters less what is owed to them are SGD's: arXiv:1901.09847, section 4.


def paid_off(options: Options) -> Iterator[Arrays]:
    params = [torch.tensor(values, requires_grad=True) for values in start(False)]
    optimizer = optim.EFSGD(params, lr=PEAK, **options)
    for t, drawn in enumerate(gradients(False), 1):
        optimizer.param_groups[0]["lr"] = lr_at(t)
        for param, g in zip(params, drawn, strict=True):
            param.grad = torch.tensor(g)
        optimizer.step()
        yield [(param - optimizer.state[param]["error"]).detach().numpy() for param in params]


@pytest.mark.parametrize("comp", ["scaled_sign", "sign"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_ef_sgd_is_torch_s_sgd_with_debts(comp, momentum):
    make = partial(torch.optim.SGD, momentum=momentum)
    theirs = drive(make, False, lambda lr, t: {"lr": lr})
    assert_together(paid_off({"comp": comp, "momentum": momentum, "memory": True}), theirs)


# Sophia: pytorch_optimizer's is H, but takes any Hessian. It clips at ρ what ours clips at 1, and knows no ρ beside h.


class GivenHessian:
    """With that of `Fed`: 20 g², in every third step."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer, self.param_groups, self.count = optimizer, optimizer.param_groups, 0

    def step(self) -> None:
        hessian = [20 * p.grad**2 for p in self.param_groups[0]["params"]] if self.count % 3 == 0 else None
        self.count += 1
        self.optimizer.step(hessian=hessian)


@pytest.mark.parametrize("mode", ["decoupled", "l2"])
@pytest.mark.parametrize("rho", [0.04, 0.5])
def test_sophia_g_is_pytorch_optimizer_s_sophia_with_its_hessian(mode, rho):
    library = pytest.importorskip("pytorch_optimizer")
    betas, decoupled = (0.9, 0.95), mode == "decoupled"
    make = partial(library.SophiaH, betas=betas, p=rho, update_period=STEPS, eps=0.0, weight_decouple=decoupled)
    shrunk = partial(make, weight_decay=DECAY * (rho if decoupled else 1))
    # Growing, since 0 / 0 is nan there.
    theirs = drive(lambda params, lr: GivenHessian(shrunk(params, lr=lr)), True, lambda lr, t: {"lr": lr / rho})
    (options,) = every([{"betas": betas, "rho": rho, "eps": 0.0}], decay(mode))
    assert_together(drive(partial(Fed, **options), True, lambda lr, t: {"lr": lr}), theirs)


# Adam-mini: pytorch_optimizer finds blocks by names. It computes in float32 whatever there is, unless that is another.


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.attn = nn.Linear(8, 8), nn.Module()
        self.attn.qkv, self.norm = nn.Linear(8, 16, bias=False), nn.LayerNorm(8)


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module = pytest.importorskip("pytorch_optimizer.optimizer.adam_mini")
    monkeypatch.setattr(module, "torch", SimpleNamespace(**{**vars(torch), "float32": torch.float64}))
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize("options", BETAS, ids=str)
@pytest.mark.parametrize("foreach", [False, True])
def test_adam_mini_of_pytorch_optimizer_with_blocks(options, foreach, double):
    """Embeddings left out: a row is a block in the paper, an element there."""
    torch.manual_seed(0)
    library, model, other = pytest.importorskip("pytorch_optimizer"), Attention(), Attention()
    other.load_state_dict(model.state_dict())
    heads = {"num_embeds": 8, "num_heads": 4, "num_query_groups": 2}
    theirs = library.AdamMini(other, lr=PEAK, weight_decay=DECAY, foreach=foreach, **heads, **options)
    # 4 heads of queries; 2 groups of 2 heads, a key and a value; the rest whole, and norms without decay.
    blocks = {"q_proj.weight": 4, "attn.qkv.weight": 8}
    groups = [
        {"params": [p], "num_blocks": blocks.get(name, 1), "weight_decay": 0.0 if "norm" in name else DECAY}
        for name, p in model.named_parameters()
    ]
    ours = optim.AdamMini(groups, lr=PEAK, weight_decay_mode="decoupled", foreach=foreach, **options)
    for t in range(1, STEPS + 1):
        for group in (*ours.param_groups, *theirs.param_groups):
            group["lr"] = lr_at(t)
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            p.grad, q.grad = torch.randn_like(p), torch.empty_like(p)
            q.grad.copy_(p.grad)
        ours.step()
        theirs.step()
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            assert (p - q).abs().max() < TOLERANCE
