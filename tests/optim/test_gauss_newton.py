"""Labels sampled from a model's own output, and the estimate of the Gauss-Newton matrix that they give."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_optim import ConfigError
from lightning_optim.optim.gauss_newton import LOSSES, SampledGradients
from tests.support.cases import every

IGNORED = -100


def log_likelihood(inputs: Tensor, targets: Tensor) -> Tensor:
    return functional.nll_loss(inputs.log_softmax(dim=1), targets)


NUM_DRAWS = 500
# The loss, its targets, and the samples that count. The Hessian of the loss in the outputs is H of `diagonal`.
CASES = {
    "cross_entropy": (functional.cross_entropy, torch.tensor([0, 2, 1, 2, 0]), range(5)),
    "ignored": (functional.cross_entropy, torch.tensor([0, IGNORED, 1, IGNORED, 0]), (0, 2, 4)),
    "soft": (functional.cross_entropy, torch.full((5, 3), 1 / 3), range(5)),
    "module": (nn.CrossEntropyLoss(label_smoothing=0.1), torch.tensor([0, 2, 1, 2, 0]), range(5)),
    "nll_loss": (log_likelihood, torch.tensor([0, 2, 1, 2, 0]), range(5)),
    "binary": (functional.binary_cross_entropy_with_logits, torch.zeros(5, 3), range(5)),
    "mse_loss": (functional.mse_loss, torch.zeros(5, 3), range(5)),
}


def model_and_inputs() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)), torch.randn(5, 4)


def diagonal(net: nn.Module, inputs: Tensor, loss, targets: Tensor) -> Tensor:
    """Of the Gauss-Newton matrix Jᵀ H J, by its definition: H is the Hessian of the loss in the outputs."""
    outputs = net(inputs).flatten()
    rows = [torch.autograd.grad(o, list(net.parameters()), retain_graph=True) for o in outputs]
    jacobian = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
    hessian = torch.autograd.functional.hessian(lambda o: loss(o.reshape(5, 3), targets), outputs.detach())
    return torch.einsum("ip,ij,jp->p", jacobian, hessian, jacobian)


@pytest.mark.parametrize("case", every(CASES, fast=["cross_entropy", "binary"]))
def test_the_mean_estimate_is_the_diagonal_of_the_gauss_newton_matrix(case) -> None:
    loss, targets, _ = CASES[case]
    net, inputs = model_and_inputs()
    params, estimates, outputs = list(net.parameters()), [], net(inputs)

    def collect(num_samples, grads) -> None:
        estimates.append(torch.cat([num_samples * grads[p].square().flatten() for p in params]))

    for seed in range(NUM_DRAWS):
        with SampledGradients(params, seed, 8.0 if seed % 2 else 1.0, collect):
            loss(outputs, targets)
    estimate, expected = torch.stack(estimates), diagonal(net, inputs, loss, targets)
    # Five standard errors of the mean: none of 27 numbers is beyond that by chance.
    error = estimate.std(dim=0) / NUM_DRAWS**0.5
    assert ((estimate.mean(dim=0) - expected).abs() <= 5 * error + 1e-7).all()
    assert (error < 0.2 * expected.max()).all()


@pytest.mark.parametrize("case", CASES)
def test_samples_are_counted(case) -> None:
    loss, targets, rows = CASES[case]
    net, inputs = model_and_inputs()
    counts = []
    with SampledGradients(list(net.parameters()), 0, 1.0, lambda n, _: counts.append(n)):
        loss(net(inputs), targets)
    # For a loss over numbers, each number is a sample.
    assert counts == [len(rows) * (3 if case in ("binary", "mse_loss") else 1)]


def test_every_loss_is_tried() -> None:
    assert {loss.__name__ for loss in LOSSES} == {
        "cross_entropy", "nll_loss", "binary_cross_entropy_with_logits", "mse_loss"
    }  # fmt: skip


def test_each_pixel_is_a_sample() -> None:
    output = torch.zeros(2, 3, 4, 5, requires_grad=True)
    output.data[:, 1] = 50.0  # so that only one label is likely
    sampled = []
    with SampledGradients([output], 0, 1.0, lambda *given: sampled.append(given)):
        functional.cross_entropy(output, torch.zeros(2, 4, 5, dtype=torch.long))
    ((num_samples, grads),) = sampled
    assert num_samples == 40
    assert grads[output].abs().max() < 1e-6


def test_sampling_has_no_other_effect() -> None:
    def step(mode) -> list[Tensor]:
        net, inputs = model_and_inputs()
        net.insert(1, nn.Dropout(0.5))
        net.insert(1, nn.BatchNorm1d(3))
        net[0].weight.grad = torch.ones(3, 4)
        torch.manual_seed(1)
        with mode(list(net.parameters())):
            loss = functional.cross_entropy(net(inputs), CASES["cross_entropy"][1])
        loss.backward()
        return [loss.detach(), *net.buffers(), *(p.grad for p in net.parameters()), torch.get_rng_state()]

    class Nothing:
        def __init__(self, params) -> None: ...
        def __enter__(self) -> None: ...
        def __exit__(self, *_) -> None: ...

    sampled: list[float] = []
    ours = step(lambda params: SampledGradients(params, 0, 1.0, lambda n, _: sampled.append(n)))
    assert all(torch.equal(a, b) for a, b in zip(ours, step(Nothing), strict=True))
    assert sampled == [5]


@pytest.mark.parametrize("case", CASES)
def test_the_seed_determines_the_labels(case) -> None:
    loss, targets, _ = CASES[case]
    net, inputs = model_and_inputs()
    found: list[list[Tensor]] = []
    for seed in (3, 3, 4):
        torch.rand(seed)
        with SampledGradients(list(net.parameters()), seed, 1.0, lambda _, grads: found.append(list(grads.values()))):
            loss(net(inputs), targets)
    same = [all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True)) for other in found[1:]]
    assert same == [True, False]


def test_a_metric_does_not_count_as_a_loss() -> None:
    net, inputs = model_and_inputs()
    sampled: list[float] = []
    with SampledGradients(list(net.parameters()), 0, 1.0, lambda n, _: sampled.append(n)):
        output = net(inputs)
        functional.mse_loss(output.detach(), torch.zeros(5, 3))
        with torch.no_grad():
            functional.mse_loss(output, torch.zeros(5, 3))
        functional.cross_entropy(output, CASES["cross_entropy"][1])
    assert sampled == [5]


def test_one_sample_without_a_batch_dimension() -> None:
    output = torch.tensor([0.0, 50.0, 0.0], requires_grad=True)
    sampled = []
    with SampledGradients([output], 0, 1.0, lambda *given: sampled.append(given)):
        functional.cross_entropy(output, torch.tensor(0))
    ((num_samples, grads),) = sampled
    assert num_samples == 1
    assert grads[output].abs().max() < 1e-6


@pytest.mark.parametrize("case", CASES)
def test_with_16_bit_outputs_labels_are_sampled_in_float32(case) -> None:
    loss, targets, _ = CASES[case]
    net, inputs = model_and_inputs()
    net, targets = net.bfloat16(), targets.bfloat16() if targets.is_floating_point() else targets
    sampled: list[dict] = []
    with SampledGradients(list(net.parameters()), 0, 1.0, lambda _, grads: sampled.append(grads)):
        loss(net(inputs.bfloat16()), targets)
    assert all(grad.dtype == torch.bfloat16 and grad.isfinite().all() for grad in sampled[0].values())


def test_parameters_that_the_loss_does_not_depend_on_are_left_out() -> None:
    net, inputs = model_and_inputs()
    unused, sampled = nn.Parameter(torch.ones(2)), []
    with SampledGradients([unused, *net.parameters()], 0, 1.0, lambda _, grads: sampled.append(list(grads))):
        functional.cross_entropy(net(inputs), CASES["cross_entropy"][1])
    assert [id(p) for p in sampled[0]] == [id(p) for p in net.parameters()]


SUM = {"reduction": "sum"}
OLD = pytest.mark.filterwarnings("ignore:size_average and reduce args")


@OLD
@pytest.mark.parametrize(
    ("loss", "given", "message"),
    [
        ("cross_entropy", SUM, r"cross_entropy with reduction='sum' is not a plain mean"),
        ("cross_entropy", {"reduction": "none"}, r"with reduction='none' is not"),
        (
            "cross_entropy",
            {"weight": torch.ones(3)},
            r"cross_entropy with weight= is not .* Remove that argument, or call",
        ),
        ("cross_entropy", {"size_average": False}, r"with size_average= is not"),
        ("cross_entropy", {"reduce": True}, r"with reduce= is not"),
        ("binary_cross_entropy_with_logits", {"pos_weight": torch.ones(3)}, r"with pos_weight= is not"),
        ("binary_cross_entropy_with_logits", {"weight": torch.ones(3)}, r"with weight= is not"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_loss_that_is_not_a_plain_mean_is_refused(loss, given, message) -> None:
    net, inputs = model_and_inputs()
    targets = CASES["cross_entropy" if loss == "cross_entropy" else "binary"][1]
    with (
        pytest.raises(ConfigError, match=message),
        SampledGradients(list(net.parameters()), 0, 1.0, lambda *_: None),
    ):
        getattr(functional, loss)(net(inputs), targets, **given)


def test_a_second_loss_is_refused() -> None:
    net, inputs = model_and_inputs()
    with SampledGradients(list(net.parameters()), 0, 1.0, lambda *_: None):
        functional.cross_entropy(net(inputs), CASES["cross_entropy"][1])
        with pytest.raises(ConfigError, match=r"training_step computes a second loss, mse_loss, .* wrap the loss"):
            functional.mse_loss(net(inputs), torch.zeros(5, 3))
