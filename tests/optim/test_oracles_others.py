"""As `test_oracles.py`, for what steps by norms and signs, for games, with the Hessian, and by several gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from lightning_optim import ConfigError, OptimizerFactory, optim
from tests.support import oracles
from tests.support.optimizer_runs import through_a_file
from tests.support.oracles import (
    AROUND,
    BETAS,
    DECAY,
    PEAK,
    SHAPES,
    SHORT,
    Arrays,
    Case,
    Options,
    adam,
    around,
    assert_together,
    both,
    cases,
    decay,
    drive,
    drive_equations,
    drive_optax,
    every,
    gradients,
    lr_at,
    optax_s,
    start,
)

pytestmark = pytest.mark.slow

elsewhere = oracles.elsewhere


DECOUPLED, INSIDE = decay("decoupled"), decay("update")
MOMENTA = [{"momentum": momentum} for momentum in (0.0, 0.5, 0.9)]


# The papers' equations. Each gives the step; t counts from 1, s is the state.


def lars(p, g, t, s, *, lr, momentum, trust_coefficient, inside=0.0):
    """arXiv:1708.03888, algorithm 1; the ratio is 1 where a norm is 0."""
    w, below = np.linalg.norm(np.ravel(p)), np.linalg.norm(np.ravel(g)) + inside * np.linalg.norm(np.ravel(p))
    s["v"] = momentum * s["v"] + lr * (trust_coefficient * w / below if w and below else 1) * (g + inside * p)
    return s["v"]


def novograd(p, g, t, s, *, lr, betas, eps, grad_averaging, inside=0.0):
    """arXiv:1905.11286, algorithm 1; the authors' code averages the first gradient too."""
    b1, b2 = betas
    s["v"] = np.sum(g**2) if t == 1 else b2 * s["v"] + (1 - b2) * np.sum(g**2)
    s["m"] = b1 * s["m"] + (1 - b1 if grad_averaging else 1) * (g / (np.sqrt(s["v"]) + eps) + inside * p)
    return lr * s["m"]


def adamp(p, g, t, s, *, lr, betas, eps, delta, wd_ratio, nesterov, decoupled):
    """arXiv:2006.08217, algorithm 3, as the authors' code chooses the tensors: view by view, with a loop over rows."""
    b1, b2 = betas
    s["m"], s["v"] = b1 * s["m"] + (1 - b1) * g, b2 * s["v"] + (1 - b2) * g**2
    d = (b1 * s["m"] + (1 - b1) * g if nesterov else s["m"]) / (np.sqrt(s["v"]) / math.sqrt(1 - b2**t) + eps)
    size, given_back = lr / (1 - b1**t), 0.0
    for rows in (len(p), 1) if p.ndim > 1 else ():
        triples = list(zip(*(x.reshape(rows, -1) for x in (p, g, d)), strict=True))
        cosines = [abs(a @ b) / max(np.linalg.norm(a), eps) / max(np.linalg.norm(b), eps) for a, b, _ in triples]
        if max(cosines) < delta / math.sqrt(p.size / rows):
            units = [a / (np.linalg.norm(a) + eps) for a, _, _ in triples]
            d = np.stack([c - u * (u @ c) for u, (_, _, c) in zip(units, triples, strict=True)]).reshape(p.shape)
            given_back = lr * DECAY * (1 - wd_ratio) * p if decoupled else 0.0  # the decay around it took all
            s["projected"] += 1
            break
    return size * d - given_back


def signum(p, g, t, s, *, lr, momentum):
    """arXiv:1802.04434, algorithm 2."""
    s["m"] = momentum * s["m"] + (1 - momentum) * g
    return lr * np.sign(s["m"])


def adam_mini(p, g, t, s, *, lr, betas, eps, num_blocks):
    """arXiv:2406.16793, algorithm 1, block by block."""
    (b1, b2), rows = betas, len(p) if p.ndim else 1
    s["m"], step = b1 * s["m"] + (1 - b1) * g, np.zeros_like(p).reshape(rows, -1)
    for block in np.split(np.arange(rows), rows if num_blocks is None else num_blocks):
        key = f"v{block[0]}"
        s[key] = b2 * s[key] + (1 - b2) * np.mean(g.reshape(rows, -1)[block] ** 2)
        below = math.sqrt(s[key] / (1 - b2**t)) + eps
        step[block] = lr * s["m"].reshape(rows, -1)[block] / (1 - b1**t) / below
    return step.reshape(p.shape)


def optimistic_adam(p, g, t, s, *, lr, betas, eps, amsgrad):
    """arXiv:1711.00141, algorithm 1."""
    now = adam(p, g, t, s, lr=1, betas=betas, eps=eps, amsgrad=amsgrad)
    before, s["step"] = s["step"], now
    return 2 * lr * now - lr * before


def omd(p, g, t, s, *, lr):
    """arXiv:1711.00141, eq. 4."""
    before, s["g"] = s["g"], g
    return 2 * lr * g - lr * before


def ef_sgd(p, g, t, s, *, lr, comp, memory, momentum):
    """arXiv:1901.09847, algorithm 1 with the compressions of the authors' code."""
    s["b"] = momentum * s["b"] + g
    whole = lr * s["b"] + s["e"]
    step = np.sign(whole) * (np.sum(np.abs(whole)) / whole.size if comp == "scaled_sign" else lr)
    s["e"] = (whole - step) * memory
    return step


LARS = every(MOMENTA, [{"trust_coefficient": 1e-3}, {"trust_coefficient": 0.5}])
NOVOGRAD = every([{"betas": (0.95, 0.98), "eps": 1e-8}, {"betas": (0.8, 0.25), "eps": 1e-2}], both("grad_averaging"))
# The authors' threshold; all rows are projected and some tensors are; nothing is.
ADAMP = every(
    BETAS,
    [{"delta": 0.1, "wd_ratio": 0.1}, {"delta": 1.0, "wd_ratio": 0.5}, {"delta": 10.0, "wd_ratio": 0.0}],
    both("nesterov"),
)
BLOCKS = [{"num_blocks": num} for num in (1, None)]
EF = every(both("memory"), [{"comp": "scaled_sign"}, {"comp": "sign"}], MOMENTA)
EQUATIONS = [
    *cases("LARS", every(LARS, AROUND), lars),
    *cases("LARS", every(LARS, INSIDE), lars, {"inside": DECAY}),
    *cases("NovoGrad", every(NOVOGRAD, AROUND), novograd),
    *cases("NovoGrad", every(NOVOGRAD, INSIDE), novograd, {"inside": DECAY}),
    *cases("AdamP", every(ADAMP, DECOUPLED), adamp, {"decoupled": True}),
    *cases("AdamP", every(ADAMP, decay("l2")), adamp, {"decoupled": False}),
    *cases("Signum", every(MOMENTA, AROUND), signum),
    # pytorch_optimizer holds Adam-mini's averages in float32 whatever the parameters are, so it is no oracle here.
    *cases("AdamMini", every(BETAS, BLOCKS, AROUND), adam_mini),
    *cases("OptimisticAdam", every(BETAS, both("amsgrad"), AROUND), optimistic_adam),
    *cases("OMD", AROUND, omd),
    # Error feedback is in no library here.
    *cases("EFSGD", every(EF, AROUND), ef_sgd),
]


@pytest.mark.parametrize("case", EQUATIONS, ids=str)
def test_equations(case: Case):
    assert_together(case.drive_ours(), case.drive_equations())


# pytorch_optimizer


NO_EPS = {"betas": (0.8, 0.9), "eps": 0.0}  # it has AdamP's eps beside the uncorrected root
NO_AVERAGING = [{**options, "grad_averaging": False} for options in NOVOGRAD[::2]]
PYTORCH_OPTIMIZER = [
    # What it calls l2 is NovoGrad's decay inside the rule. It averages all but the first gradient.
    *cases("NovoGrad", every(NO_AVERAGING, decay("update", "decoupled", "absolute")), "NovoGrad"),
    # The decay that it adds to AdamP's gradient comes too late to be seen.
    *[
        Case("AdamP", {**NO_EPS, **options}, "AdamP", growing=True)
        for options in every(
            [{"delta": delta, "wd_ratio": 0.3} for delta in (0.1, 0.5, 1.0, 10.0)],
            both("nesterov"),
            decay("decoupled", "absolute"),
        )
    ],
    *cases("Signum", every(MOMENTA, decay("l2", "decoupled")), "SignSGD"),
]


@pytest.mark.parametrize("case", PYTORCH_OPTIMIZER, ids=str)
def test_pytorch_optimizer(case: Case):
    library = pytest.importorskip("pytorch_optimizer")
    options = {key: value for key, value in case.options.items() if key != "weight_decay_mode"}
    options |= {"weight_decouple": case.mode not in ("l2", "update"), "fixed_decay": case.mode == "absolute"}
    make = partial(getattr(library, case.theirs), **options, **case.their_options)
    assert_together(case.drive_ours(), drive(make, case.growing, lambda lr, t: {"lr": lr}))


# optax


def halved_at_first(o: Options, lr: float, t: int) -> Options:
    """Where it takes an optimistic method's first step once, ours takes it twice."""
    return {"lr": lr / 2 if t == 1 else lr}


def optax_lars(ox: Any, lr: Callable[[Any], float], mode: str, o: Options) -> Any:
    return ox.lars(lr, DECAY, **o)


def optax_novograd(ox: Any, lr: Callable[[Any], float], mode: str, o: Options) -> Any:
    if mode == "update":
        return ox.novograd(lr, **o, weight_decay=DECAY)
    return around(ox, ox.scale_by_novograd(**o), lr, mode)


def optax_signum(ox: Any, lr: Callable[[Any], float], mode: str, o: Options) -> Any:
    return around(ox, ox.chain(ox.ema(o["momentum"], debias=False), ox.scale_by_sign()), lr, mode)


def optax_optimistic_adam(ox: Any, lr: Callable[[Any], float], mode: str, o: Options) -> Any:
    parts = ox.scale_by_adam(**o), ox.scale_by_optimistic_gradient()
    return around(ox, ox.chain(*parts), lr, mode)


def optax_omd(ox: Any, lr: Callable[[Any], float], mode: str, o: Options) -> Any:
    return around(ox, ox.scale_by_optimistic_gradient(), lr, mode)


WITHOUT_LR, NO_MAXIMUM = decay("l2", "l1", "absolute"), [{"amsgrad": False}]
OPTAX = [
    # Its ‖g + λ p‖ is our l2.
    *optax_s("LARS", every(LARS, decay("l2")), optax_lars, "momentum", "trust_coefficient"),
    *cases("NovoGrad", every(NO_AVERAGING, [*AROUND, *INSIDE]), optax_novograd),
    *optax_s("Signum", every(MOMENTA, AROUND), optax_signum, "momentum"),
    # By the modes that do not know the lr, which differs in the first step.
    *cases("OptimisticAdam", every(BETAS, NO_MAXIMUM, WITHOUT_LR), optax_optimistic_adam, at=halved_at_first),
    *cases("OMD", WITHOUT_LR, optax_omd, at=halved_at_first),
]


@pytest.mark.parametrize("case", OPTAX, ids=str)
def test_optax(case: Case, elsewhere: ProcessPoolExecutor):
    pytest.importorskip("optax")
    assert_together(case.drive_ours(), elsewhere.submit(drive_optax, __name__, OPTAX.index(case)).result())


# Where gradients depend on the parameters, and on the batch.


def slopes(params: Arrays, drawn: Arrays) -> Arrays:
    """The gradient of Σ (p² / 2 - cos(p) + g p) with the batch's g."""
    return [p + np.sin(p) + g for p, g in zip(params, drawn, strict=True)]


def drive_with_closure(make: Callable[..., Any], steps: Callable[..., None], zero: bool = True) -> Iterator[Arrays]:
    params = [torch.tensor(values, requires_grad=True) for values in start(not zero)]
    optimizer = make(params, lr=PEAK)
    for t, drawn in enumerate(gradients(False), 1):
        optimizer.param_groups[0]["lr"] = lr_at(t)

        def closure(drawn: Arrays = drawn) -> None:
            for param, slope in zip(params, slopes([p.detach().numpy() for p in params], drawn), strict=True):
                param.grad = torch.tensor(slope)

        steps(optimizer, params, closure)
        yield [param.detach().numpy().copy() for param in params]


def in_one(optimizer: Any, params: Any, closure: Any) -> None:
    optimizer.step(closure)


def in_two(optimizer: Any, params: Any, closure: Any) -> None:
    """As where the gradients are at hand."""
    for _ in range(2):
        closure()
        optimizer.step()


def ahead_and_back(optimizer: Any, params: list[torch.Tensor], closure: Any) -> None:
    """What extragradient is, with any optimizer of torch's."""
    before = [param.detach().clone() for param in params]
    closure()
    optimizer.step()
    closure()
    for param, value in zip(params, before, strict=True):
        param.data.copy_(value)
    optimizer.step()


SGD, ADAM, ADAMW = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW
EXTRA = [
    *[("ExtraSGD", options, SGD) for options in ({}, {"momentum": 0.9}, {"momentum": 0.5, "nesterov": True})],
    *[("ExtraAdam", options, ADAM) for options in every(BETAS, both("amsgrad"))],
    *[("ExtraAdam", {**options, **DECOUPLED[0]}, ADAMW) for options in BETAS],
]


@pytest.mark.parametrize("steps", [in_one, in_two])
@pytest.mark.parametrize(("ours", "options", "theirs"), EXTRA, ids=str)
def test_extragradient_is_torch_s_optimizer_ahead_and_back(ours, options, theirs, steps):
    their_options = {key: value for key, value in options.items() if key != "weight_decay_mode"}
    assert_together(
        drive_with_closure(partial(getattr(optim, ours), **options), steps),
        drive_with_closure(partial(theirs, **their_options), ahead_and_back),
    )


def drive_storm(w: float, c: float, mode: str) -> Iterator[Arrays]:
    """arXiv:1905.10018, algorithm 1, by coordinate as in the authors' code."""
    params, before, d, total = start(False), None, None, [0.0] * len(SHAPES)
    for t, drawn in enumerate(gradients(False), 1):
        lr, now = lr_at(t), slopes(params, drawn)
        if mode == "l2":
            now = [g + DECAY * p for g, p in zip(now, params, strict=True)]
        if before is None:
            d = now
        else:
            old = slopes(before, drawn)
            if mode == "l2":
                old = [g + DECAY * p for g, p in zip(old, before, strict=True)]
            a = [np.minimum(1, c * (lr / (w + each) ** (1 / 3)) ** 2) for each in total]
            d = [g + (1 - a) * (d - o) for g, a, d, o in zip(now, a, d, old, strict=True)]
        total = [each + g**2 for each, g in zip(total, now, strict=True)]
        shrink = lr * DECAY if mode == "decoupled" else 0.0
        etas = [lr / (w + each) ** (1 / 3) for each in total]
        before, params = params, [(1 - shrink) * p - e * g for p, e, g in zip(params, etas, d, strict=True)]
        yield list(params)


@pytest.mark.parametrize("steps", [in_one, in_two])
@pytest.mark.parametrize("mode", ["l2", "decoupled"])
@pytest.mark.parametrize(("w", "c"), [(10.0, 100.0), (0.1, 20.0), (0.1, 1e5)])
def test_storm_s_equations(w, c, mode, steps):
    """No library here has it."""
    options = {"w": w, "c": c, "weight_decay": DECAY, "weight_decay_mode": mode}
    assert_together(drive_with_closure(partial(optim.STORM, **options), steps), drive_storm(w, c, mode))


# Prodigy's d is one for all tensors. It starts large enough to grow here, as it does.

PRODIGY = {"d0": 1e-2, "betas": (0.9, 0.99)}
PRODIGY_OPTIONS = [
    {},
    {"bias_correction": True},
    {"safeguard_warmup": True, "d_coef": 2.0},
    {"beta3": 0.8, "growth_rate": 1.1},
]


def prodigy(o: Options, mode: str = "decoupled") -> Iterator[Arrays]:
    """arXiv:2306.06101, algorithm 4, with the options of the authors' code."""
    (b1, b2), d, d_max = o["betas"], o["d0"], o["d0"]
    b3, growth = o.get("beta3") or math.sqrt(b2), o.get("growth_rate") or math.inf
    params, first, r = start(True), start(True), 0.0
    m, v, s = ([np.zeros_like(p) for p in params] for _ in range(3))
    for t, drawn in enumerate(gradients(False), 1):
        lr, unit = lr_at(t) / PEAK, d * (math.sqrt(1 - b2**t) / (1 - b1**t) if o.get("bias_correction") else 1)
        shrink = {"decoupled": lr * unit, "absolute": 1.0, "corrected": lr**2 * unit}.get(mode, 0.0) * DECAY
        grads = [g + DECAY * p if mode == "l2" else g for p, g in zip(params, slopes(params, drawn), strict=True)]
        r = b3 * r + d / o["d0"] * lr * unit * sum(
            np.sum(g * (q - p)) for p, q, g in zip(params, first, grads, strict=True)
        )
        for i, g in enumerate(grads):
            m[i], v[i] = b1 * m[i] + (1 - b1) * d * g, b2 * v[i] + (1 - b2) * (d * g) ** 2
            s[i] = b3 * s[i] + d / o["d0"] * (d if o.get("safeguard_warmup") else lr * unit) * g
        estimate = o.get("d_coef", 1.0) * r / sum(np.sum(np.abs(each)) for each in s)
        before, d_max = d, max(d_max, estimate)
        d = min(d_max, growth * (max(d, estimate) if d == o["d0"] else d))
        below = o["eps"] * before
        params = [(1 - shrink) * p - lr * unit * m / (np.sqrt(v) + below) for p, m, v in zip(params, m, v, strict=True)]
        yield list(params)
    assert d > 1.5 * o["d0"]


def one_by_one(optimizer: Any, params: Any, closure: Any) -> None:
    optimizer.param_groups[0]["lr"] /= PEAK  # Prodigy's is 1
    closure()
    optimizer.step()


def drive_prodigy(o: Options, make: Callable[..., Any] = optim.Prodigy, **more: Any) -> Iterator[Arrays]:
    def at_1(params: Any, lr: float) -> Any:
        return make(params, lr=1.0, weight_decay=DECAY, **o, **more)

    return drive_with_closure(at_1, one_by_one, zero=False)


@pytest.mark.parametrize("mode", ["decoupled", "l2", "absolute", "corrected"])
@pytest.mark.parametrize("options", PRODIGY_OPTIONS, ids=str)
def test_prodigy_s_equations(options, mode):
    o = {**PRODIGY, **options, "eps": 1e-3}
    assert_together(drive_prodigy(o, weight_decay_mode=mode), prodigy(o, mode))


@pytest.fixture
def double() -> Iterator[None]:
    """pytorch_optimizer adds up in the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


# It multiplies eps by the next d.
@pytest.mark.parametrize("options", PRODIGY_OPTIONS, ids=str)
def test_prodigy_of_pytorch_optimizer(options, double):
    library = pytest.importorskip("pytorch_optimizer")
    o = {**PRODIGY, **options, "eps": 0.0}
    assert_together(drive_prodigy(o), drive_prodigy(o, library.Prodigy))


def prodigy_of_optax(safeguard: bool) -> list[Arrays]:
    import jax
    from optax import apply_updates, contrib

    jax.config.update("jax_enable_x64", True)
    given = {"betas": PRODIGY["betas"], "estim_lr0": PRODIGY["d0"], "eps": 0.0, "weight_decay": DECAY}
    rule = contrib.prodigy(lambda count: lr_at(int(count) + 1) / PEAK, **given, safeguard_warmup=safeguard)
    params = [jax.numpy.asarray(values) for values in start(True)]
    state, path = rule.init(params), []
    for drawn in gradients(False):
        grads = [jax.numpy.asarray(g) for g in slopes([np.asarray(p) for p in params], drawn)]
        updates, state = rule.update(grads, state, params)
        params = apply_updates(params, updates)
        path.append([np.asarray(p) for p in params])
    return path


@pytest.mark.parametrize("safeguard", [False, True])
def test_prodigy_of_optax(safeguard, elsewhere: ProcessPoolExecutor):
    pytest.importorskip("optax")
    o = {**PRODIGY, "eps": 0.0, "bias_correction": True, "safeguard_warmup": safeguard}
    assert_together(drive_prodigy(o), elsewhere.submit(prodigy_of_optax, safeguard).result())


# The Hessian comes from outside.


class Fed(optim.SophiaG):
    """Takes the gradient for that of sampled labels too, in every third step."""

    def step(self, closure=None):
        (count,) = {int(state["step"]) for state in self.state.values()} or {0}
        if count % 3 == 0:
            self.update_hessian(num_samples=20)
        return super().step(closure)


def sophia_g(p, g, t, s, *, lr, betas, rho, eps):
    """arXiv:2305.14342, algorithm 3 as in the authors' code; the only other one here, optax's, corrects for bias."""
    (b1, b2), raw = betas, s["raw"].pop()
    s["m"] = b1 * s["m"] + (1 - b1) * g
    if t % 3 == 1:
        s["h"] = b2 * s["h"] + (1 - b2) * 20 * raw**2
    return lr * np.sign(s["m"]) * np.minimum(np.abs(s["m"]) / (rho * s["h"] + eps), 1)


@pytest.mark.parametrize("mode", ["decoupled", "l2"])
@pytest.mark.parametrize("rho", [0.04, 0.5])
@pytest.mark.parametrize("eps", [1e-15, 0.01])
def test_sophia_s_equations(mode, rho, eps):
    options = {"betas": (0.9, 0.95), "rho": rho, "eps": eps}
    script = list(gradients(False))
    clipped = []

    def rule(p, g, t, s, *, lr):
        s["raw"] = [script[t - 1][SHAPES.index(p.shape)]]
        step = sophia_g(p, g, t, s, lr=lr, **options)
        clipped.extend(np.ravel(np.abs(step) == lr))
        return step

    make = partial(Fed, **options, weight_decay=DECAY, weight_decay_mode=mode)
    assert_together(drive(make, False, lambda lr, t: {"lr": lr}), drive_equations(rule, mode, False))
    assert 0.01 < np.mean(clipped) < 0.99  # so that both are seen


# What is right of some of them beside.


def test_adamp_projected_some_tensors_and_not_others():
    """So that the comparisons above see both."""
    states = []

    def rule(p, g, t, s, *, lr):
        states.append(s)
        return adamp(p, g, t, s, lr=lr, decoupled=True, **{**SHORT, "delta": 1.0, "wd_ratio": 0.5, "nesterov": False})

    list(drive_equations(rule, "decoupled", False))
    assert [len(SHAPES[i]) > 1 for i in range(4)] == [0 < states[i]["projected"] < 50 for i in range(4)]


@pytest.mark.parametrize("options", BETAS, ids=str)
def test_adam_mini_of_blocks_of_one_is_torch_s_adamw(options):
    """A vector's rows are its elements."""

    def paths(make, **more):
        path = drive(partial(make, **options, weight_decay=DECAY, **more), False, lambda lr, t: {"lr": lr})
        return [[arrays[1]] for arrays in path]

    for ours, theirs in zip(paths(optim.AdamMini, num_blocks=None), paths(torch.optim.AdamW), strict=True):
        assert np.abs(ours[0] - theirs[0]).max() < 1e-13


def test_adam_mini_s_heads_are_equal_slices_of_the_rows():
    weight = torch.nn.Parameter(torch.zeros(4, 2, dtype=torch.double))
    optimizer = optim.AdamMini([weight], lr=1.0, num_blocks=2, betas=(0.0, 0.9), eps=0.0)
    weight.grad = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.5, 0.5]], dtype=torch.double)
    optimizer.step()
    rms = torch.tensor([2.5, 0.25], dtype=torch.double).sqrt().repeat_interleave(2).unsqueeze(1)
    torch.testing.assert_close(weight.data, -weight.grad / rms, rtol=1e-15, atol=0)


def test_a_late_parameter_of_prodigy_s_has_the_d_there_is():
    """In float64, through a checkpoint too."""
    early, late = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    optimizer = optim.Prodigy([early], d0=1e-3)
    for _ in range(30):
        early.grad = early.detach().clone()
        optimizer.step()
    d = optimizer.state[early]["d"]
    assert d > 2e-3 and type(d) is float
    other = optim.Prodigy([early], d0=1e-3)
    other.load_state_dict(through_a_file(optimizer.state_dict()))
    other.add_param_group({"params": [late]})
    for param in (early, late):
        param.grad = torch.ones(2)
    other.step()
    assert other.state[late]["d"] == other.state[early]["d"] >= d
    assert (1 - late).min() > d  # Adam's first step without bias correction is √10 of it


def test_cautious_decay_of_adamp_is_a_part_of_the_decay_too():
    """Where the step does not oppose it; all rows are projected here."""
    weight = torch.nn.Parameter(torch.ones(2, 2, dtype=torch.double))
    given = {"weight_decay": 0.5, "weight_decay_mode": "absolute", "cautious_decay": True, "wd_ratio": 0.25}
    optimizer = optim.AdamP([weight], lr=1e-9, delta=10.0, **given)
    weight.grad = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.double)
    optimizer.step()
    shrunk = torch.where(weight.grad > 0, 1 - 0.5 * 0.25, 1.0)
    torch.testing.assert_close(weight.data, shrunk.double(), rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ["extra_sgd", "extra_adam", "storm"])
def test_what_evaluates_the_model_twice_stands_alone(name):
    rule = {"hidden": {"params": "*", "optimizer": name}}
    with pytest.raises(ConfigError, match="evaluates the model several times a step"):
        OptimizerFactory("adamw", groups=rule)
    with pytest.raises(ConfigError, match="evaluates the model several times a step"):
        OptimizerFactory(name, groups={"hidden": {"params": "*", "optimizer": "adamw"}})
