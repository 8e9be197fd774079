"""Members that other libraries have in a form that has to be adapted first: initial values, a dtype, a Hessian."""

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
from tests.support.oracles import (
    BETAS,
    DECAY,
    NUM_STEPS,
    PEAK_LR,
    SOME_MODES,
    TOLERANCE,
    TWO_MODES,
    Arrays,
    Case,
    Options,
    SophiaWithOwnGradients,
    cases,
    check_optax,
    check_same_trajectory,
    combine,
    corrected_eps,
    decay,
    gradients,
    initial_params,
    lr_at,
    optax_cases,
    optax_with_decay,
    torch_trajectory,
)

# Yogi with an initial value above zero. Others start its first moment there too, and add eps to the corrected root.

FIRST = combine(BETAS, [{"initial_accumulator_value": first} for first in (1e-6, 0.5)])


class FromZero:
    """pytorch_optimizer's, with its first moment reset to zero."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer, self.param_groups = optimizer, optimizer.param_groups

    def step(self) -> None:
        if not self.optimizer.state:
            self.optimizer.init_group(self.param_groups[0])
            for state in self.optimizer.state.values():
                state["exp_avg"].zero_()
        self.optimizer.step()


@pytest.mark.slow
@pytest.mark.parametrize("case", cases("Yogi", combine(FIRST, SOME_MODES), None, at=corrected_eps), ids=str)
def test_yogi_of_pytorch_optimizer(case: Case):
    library = pytest.importorskip("pytorch_optimizer")
    modes = {"weight_decouple": case.mode != "l2", "fixed_decay": case.mode == "absolute", "weight_decay": DECAY}
    first, moments = case.options["initial_accumulator_value"], {key: case.options[key] for key in ("betas", "eps")}
    make = partial(library.Yogi, initial_accumulator=first, **moments, **modes)
    theirs = torch_trajectory(lambda params, lr: FromZero(make(params, lr=lr)), False, lambda lr, t: {"lr": lr})
    check_same_trajectory(case.our_trajectory(), theirs)


def yogi_from_zero(ox: Any, lr: Callable[[Any], float], mode: str, o: Options) -> Any:
    rule = ox.scale_by_yogi(**o)

    def init(params: Any) -> Any:
        return rule.init(params)._replace(mu=[0.0 * p for p in params])

    return optax_with_decay(ox, rule._replace(init=init), lr, mode)


OPTAX = optax_cases("Yogi", combine(FIRST, TWO_MODES), yogi_from_zero, "initial_accumulator_value", at=corrected_eps)


@pytest.mark.slow
@pytest.mark.parametrize("case", OPTAX, ids=str)
def test_yogi_of_optax(case: Case, jax_process: ProcessPoolExecutor):
    pytest.importorskip("optax")
    check_optax(case, __name__, OPTAX, jax_process)


# No library has error feedback. But the parameters minus the stored error are SGD's (arXiv:1901.09847, section 4).


def trajectory_without_error(options: Options) -> Iterator[Arrays]:
    params = [torch.tensor(values, requires_grad=True) for values in initial_params(False)]
    optimizer = optim.EFSGD(params, lr=PEAK_LR, **options)
    for t, drawn in enumerate(gradients(False), 1):
        optimizer.param_groups[0]["lr"] = lr_at(t)
        for param, g in zip(params, drawn, strict=True):
            param.grad = torch.tensor(g)
        optimizer.step()
        yield [(param - optimizer.state[param]["error"]).detach().numpy() for param in params]


@pytest.mark.parametrize("comp", ["scaled_sign", "sign"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_ef_sgd_minus_its_error_is_torchs_sgd(comp, momentum):
    make = partial(torch.optim.SGD, momentum=momentum)
    theirs = torch_trajectory(make, False, lambda lr, t: {"lr": lr})
    check_same_trajectory(trajectory_without_error({"comp": comp, "momentum": momentum, "memory": True}), theirs)


# pytorch_optimizer has Sophia-H, but takes any Hessian. It clips at ρ what ours clips at 1, and has no ρ next to h.


class GivenHessian:
    """With the Hessian of `SophiaWithOwnGradients`: 20 g² in every third step."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer, self.param_groups, self.count = optimizer, optimizer.param_groups, 0

    def step(self) -> None:
        hessian = [20 * p.grad**2 for p in self.param_groups[0]["params"]] if self.count % 3 == 0 else None
        self.count += 1
        self.optimizer.step(hessian=hessian)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["decoupled", "l2"])
@pytest.mark.parametrize("rho", [0.04, 0.5])
def test_sophia_g_is_pytorch_optimizers_sophia_with_its_hessian(mode, rho):
    library = pytest.importorskip("pytorch_optimizer")
    betas, decoupled = (0.9, 0.95), mode == "decoupled"
    make = partial(library.SophiaH, betas=betas, p=rho, update_period=NUM_STEPS, eps=0.0, weight_decouple=decoupled)
    shrunk = partial(make, weight_decay=DECAY * (rho if decoupled else 1))
    # Growing, since 0 / 0 is nan there.
    theirs = torch_trajectory(
        lambda params, lr: GivenHessian(shrunk(params, lr=lr)), True, lambda lr, t: {"lr": lr / rho}
    )
    (options,) = combine([{"betas": betas, "rho": rho, "eps": 0.0}], decay(mode))
    check_same_trajectory(
        torch_trajectory(partial(SophiaWithOwnGradients, **options), True, lambda lr, t: {"lr": lr}), theirs
    )


# pytorch_optimizer's Adam-mini finds blocks by name, and computes in torch.float32, which is replaced here.


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


@pytest.mark.slow
@pytest.mark.parametrize("options", BETAS, ids=str)
@pytest.mark.parametrize("foreach", [False, True])
def test_adam_mini_of_pytorch_optimizer_with_blocks(options, foreach, double):
    """Without embeddings: the paper has a block per row, pytorch_optimizer one per element."""
    torch.manual_seed(0)
    library, model, other = pytest.importorskip("pytorch_optimizer"), Attention(), Attention()
    other.load_state_dict(model.state_dict())
    heads = {"num_embeds": 8, "num_heads": 4, "num_query_groups": 2}
    theirs = library.AdamMini(other, lr=PEAK_LR, weight_decay=DECAY, foreach=foreach, **heads, **options)
    # 4 query heads; 2 groups of 2 heads, a key and a value; the rest in one block, and norms without decay.
    blocks = {"q_proj.weight": 4, "attn.qkv.weight": 8}
    groups = [
        {"params": [p], "num_blocks": blocks.get(name, 1), "weight_decay": 0.0 if "norm" in name else DECAY}
        for name, p in model.named_parameters()
    ]
    ours = optim.AdamMini(groups, lr=PEAK_LR, weight_decay_mode="decoupled", foreach=foreach, **options)
    for t in range(1, NUM_STEPS + 1):
        for group in (*ours.param_groups, *theirs.param_groups):
            group["lr"] = lr_at(t)
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            p.grad, q.grad = torch.randn_like(p), torch.empty_like(p)
            q.grad.copy_(p.grad)
        ours.step()
        theirs.step()
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            assert (p - q).abs().max() < TOLERANCE
