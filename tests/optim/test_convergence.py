"""Each member minimizes what it should, and the counter-example that Adam fails on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_optim import optim
from tests.support.cases import every
from tests.support.optimizer_runs import KINDS, MATRIX_MEMBERS, MEMBERS, give_hessian, native_class

FAST = ("adamw", "sophia_g")
each_member = pytest.mark.parametrize("name", every(MEMBERS, fast=FAST))


@pytest.mark.parametrize(("name", "end"), [pytest.param("adam", 1.0, marks=pytest.mark.slow), ("amsgrad", -1.0)])
def test_amsgrad_converges_on_the_counter_example_to_adam(name, end):
    """Reddi et al. (arXiv:1904.09237, theorem 1): f_t(x) = C x every third step, else -x, on [-1, 1], with C > 2.

    The slopes add up to C - 2 > 0, so x should go to -1; with β1 = 0 and β2 = 1 / (1 + C²) Adam goes to +1.
    """
    x = nn.Parameter(torch.zeros((), dtype=torch.float64))
    optimizer = native_class(name)([x], lr=0.1, betas=(0.0, 1 / (1 + 3**2)))
    for t in range(1, 3001):
        x.grad = torch.tensor(3.0 if t % 3 == 1 else -1.0, dtype=torch.float64)
        optimizer.param_groups[0]["lr"] = 0.1 / t**0.5
        optimizer.step()
        x.data.clamp_(-1, 1)
    assert x.item() == pytest.approx(end, abs=0.01)


def rosenbrock(p: Tensor) -> float:
    x, y = p.tolist()
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def rosenbrock_gradient(p: Tensor) -> Tensor:
    x, y = p.tolist()
    return torch.tensor([-2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)], dtype=torch.float64)


ON_ROSENBROCK = {
    # An SGD step at the start would leave the valley: the slopes there are in the hundreds.
    "adabelief": {"degenerate_to_sgd": False},
    "radam": {"degenerate_to_sgd": False},
    "adadelta": {"lr": 3.0},
    "adai": {"lr": 3e-3},
    "adamax": {"lr": 1.0},
    "adagrad": {"lr": 2.0},
    "lars": {"lr": 5.0},
    "lion": {"lr": 0.05},
    "ef_sgd": {"lr": 2e-3},
    "extra_sgd": {"lr": 1.5e-3},
    "omd": {"lr": 1e-3},
    "prodigy": {"lr": 1.0},
    "signum": {"lr": 0.05},
    "sophia_g": {"lr": 0.05},
    "madgrad": {"lr": 0.1},
    "rmsprop": {"lr": 0.01},
    "sgd": {"lr": 1.5e-3},
}
NUM_STEPS = {"adagrad": 4000, "omd": 6000, "extra_sgd": 6000, "adamax": 2000, "adopt": 2000, "ef_sgd": 2000}
NUM_STEPS |= {"sgd": 6000}


@pytest.mark.parametrize("name", every([m for m in KINDS if m not in MATRIX_MEMBERS], fast=FAST))
def test_rosenbrocks_valley_is_followed(name):
    p = nn.Parameter(torch.tensor([-1.5, 2.0], dtype=torch.float64))
    at_start = rosenbrock(p)
    options = {"lr": 0.3, "weight_decay": 0.0, **ON_ROSENBROCK.get(name, {})}
    optimizer = native_class(name)([p], **options)
    give_hessian(optimizer, [p], 0.0)
    num_steps = NUM_STEPS.get(name, 1000)
    for step in range(num_steps):
        p.grad = rosenbrock_gradient(p)
        optimizer.step()
        # Sign steps need a falling lr; Adagrad's falls by itself.
        if name != "adagrad":
            optimizer.param_groups[0]["lr"] = options["lr"] * (1 - (step + 1) / num_steps)
    assert rosenbrock(p) < 0.01 * at_start


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images / 16 - 0.3, dtype=torch.float32), torch.tensor(labels)


LR_ON_DIGITS = {
    "adadelta": 2.0,
    "adagrad": 0.05,
    "adai": 1.0,
    "ef_sgd": 0.5,
    "extra_sgd": 0.3,
    "lamb": 0.02,
    "lars": 5.0,
    "lion": 3e-3,
    "omd": 0.3,
    "padam": 0.3,
    "prodigy": 1.0,
    "sgd": 0.3,
    "shampoo": 0.3,
    "storm": 1.0,
}


@each_member
def test_real_digits_are_learned(name, digits):
    torch.manual_seed(0)
    images, labels = digits
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    params = [p for p in model.parameters() if p.ndim > 1 or name not in MATRIX_MEMBERS]
    optimizer = native_class(name)(params, lr=LR_ON_DIGITS.get(name, 0.01), weight_decay=1e-4)
    biases = optim.AdamW([p for p in model.parameters() if p.ndim == 1 and name in MATRIX_MEMBERS] or [model[0].bias])
    give_hessian(optimizer, model.parameters(), 0.0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        rows = torch.randint(1400, (64,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
        optimizer.step()
        if name in MATRIX_MEMBERS:
            biases.step()
    accuracy = (model(images[1400:]).argmax(1) == labels[1400:]).float().mean().item()
    assert accuracy > 0.85


def test_all_members_are_exported():
    for name in MEMBERS:
        assert getattr(optim, native_class(name).__name__) is native_class(name)
