"""Parameters as matrices: shapes, stacks, Newton-Schulz, and what Muon has beyond torch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_optim import ConfigError, OptimizerFactory, optim
from lightning_optim.optim import newton_schulz
from lightning_optim.optim.iterations import find_iterations
from lightning_optim.optim.matrices import find_shape_problem, join_matrices, matrix_shape, separate_matrices
from lightning_optim.optim.members.matrix_member import lr_ratio
from lightning_optim.optim.tensor_list import TensorList
from tests.support.cases import every
from tests.support.equality import equal
from tests.support.optimizer_runs import MATRIX_MEMBERS, native_class
from tests.support.save_and_load import save_and_load

SHAPES = [(64, 64), (64, 64), (32, 128), (128, 32), (10, 64), (3, 4), (1, 7), (7, 1)]
TORCH_OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "no nesterov": {"nesterov": False},
    "as AdamW": {"adjust_lr_fn": "match_rms_adamw"},
    "other numbers": {"ns_steps": 3, "momentum": 0.5, "weight_decay": 0.0, "eps": 0.1, "ns_coefficients": (3, -4, 2)},
}


def random_params(dtype: torch.dtype = torch.float32, shapes: Any = SHAPES) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def train(optimizer: torch.optim.Optimizer, num_steps: int = 4, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    params = [param for group in optimizer.param_groups for param in group["params"]]
    for _ in range(num_steps):
        for param in params:
            param.grad = torch.randn(param.shape, generator=generator).to(param.dtype)
        optimizer.step()
    return params


def same(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


# torch's Muon


@pytest.mark.parametrize("foreach", [False, None], ids=["loop", "stacks"])
@pytest.mark.parametrize("options", every(list(TORCH_OPTIONS), fast=["default", "other numbers"]))
@pytest.mark.parametrize(
    "dtype", every([torch.float32, torch.bfloat16, torch.float64], fast=["torch.float32"]), ids=str
)
def test_2d_matrices_are_stepped_as_by_torch_bit_by_bit(dtype, options, foreach):
    given = {"lr": 0.02, **TORCH_OPTIONS[options]}
    if dtype == torch.bfloat16 and options == "no nesterov":
        pytest.skip("torch divides its momentum buffer by its norm: see the next test")
    theirs = train(torch.optim.Muon(random_params(dtype), **given))
    assert same(train(optim.Muon(random_params(dtype), foreach=foreach, **given)), theirs)


def test_the_momentum_is_not_overwritten_where_torch_overwrites_it():
    """In bfloat16 without Nesterov, torch 2.13 divides the momentum buffer itself by its norm."""
    gradient = torch.full((4, 4), 2.0, dtype=torch.bfloat16)
    buffers = []
    for cls in (torch.optim.Muon, optim.Muon):
        param = nn.Parameter(torch.zeros(4, 4, dtype=torch.bfloat16))
        optimizer = cls([param], momentum=0.5, nesterov=False)
        param.grad = gradient.clone()
        optimizer.step()
        buffers.append(optimizer.state[param]["momentum_buffer"])
    assert torch.equal(buffers[1], gradient / 2)
    assert not torch.equal(buffers[0], buffers[1]), "torch has been mended: `_torch_takes` may be too"
    layer = nn.Linear(4, 4, bias=False).to(torch.bfloat16)
    assert type(OptimizerFactory("muon", nesterov=False)(layer)) is optim.Muon
    assert type(OptimizerFactory("muon")(layer)) is torch.optim.Muon


@pytest.mark.parametrize("first", [torch.optim.Muon, optim.Muon], ids=["torch to own", "own to torch"])
def test_a_checkpoint_crosses_over_mid_run_bit_by_bit(first):
    then = optim.Muon if first is torch.optim.Muon else torch.optim.Muon
    whole = torch.optim.Muon(random_params(), lr=0.02)
    train(whole, 2)
    expected = train(whole, 3, seed=2)
    before = first(random_params(), lr=0.02)
    after = then([nn.Parameter(param.detach().clone()) for param in train(before, 2)], lr=0.5)
    after.load_state_dict(save_and_load(before.state_dict()))
    assert same(train(after, 3, seed=2), expected)


def test_auto_is_torchs_class_for_2d_matrices_and_ours_for_others_and_options():
    linear, conv = nn.Linear(4, 3, bias=False), nn.Conv2d(2, 4, 3, bias=False)
    assert type(OptimizerFactory("muon")(linear)) is torch.optim.Muon
    assert type(OptimizerFactory("muon", implementation="own")(linear)) is optim.Muon
    for given in ({"split": 3}, {"coefficients": "polar_express"}, {"weight_decay_mode": "l2"}, {"maximize": True}):
        assert type(OptimizerFactory("muon", **given)(linear)) is optim.Muon
    assert type(OptimizerFactory("muon")(conv)) is optim.Muon
    with pytest.raises(
        ConfigError, match=r"^name: muon of torch takes 2-D parameters only; weight has the shape \[4, 2"
    ):
        OptimizerFactory("muon", implementation="torch")(conv)
    with pytest.raises(ConfigError, match=r"^split: our muon takes it, torch's does not"):
        OptimizerFactory("muon", implementation="torch", split=3)


class Classifier(nn.Module):
    """A small network with what torch's Muon does not take: kernels and stacked experts."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 6, 3, padding=1)
        self.experts = nn.Parameter(torch.randn(3, 6, 6) / 3)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).tanh().mean(-1)
        return self.head(torch.einsum("bi,eij->bj", x, self.experts))


@pytest.mark.parametrize("rules", ["conv", "experts", "both", "linear"])
def test_auto_by_rules_steps_kernels_and_experts_as_an_optimizer_made_by_hand(rules):
    """`linear` has only what torch's class takes, and gets it."""
    torch.manual_seed(0)
    configured = Classifier()
    by_hand = Classifier()
    by_hand.load_state_dict(configured.state_dict())
    names = {"conv": "conv.weight", "experts": "experts", "linear": "head.weight"}
    chosen = ["conv", "experts"] if rules == "both" else [rules]
    groups = {key: {"params": names[key], "optimizer": "muon", "lr": 0.02} for key in chosen}
    optimizer = OptimizerFactory("adamw", lr=0.01, groups=groups)(configured)
    assert {type(child) for child in optimizer.children.values()} == {
        torch.optim.AdamW, torch.optim.Muon if rules == "linear" else optim.Muon,
    }  # fmt: skip
    weights = dict(by_hand.named_parameters())
    matrix = {"conv": "flatten", "experts": "batch", "linear": None}
    hidden = [{"params": [weights.pop(names[key])], "matrix": matrix[key]} for key in chosen]
    hands = (optim.Muon(hidden, lr=0.02), torch.optim.AdamW(weights.values(), lr=0.01, fused=True))
    x, y = torch.randn(8, 2, 5), torch.randint(4, (8,))
    for _ in range(3):
        for model, optimizers in ((configured, [optimizer]), (by_hand, hands)):
            model.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            for one in optimizers:
                one.step()
    assert equal(configured.state_dict(), by_hand.state_dict())


def test_a_key_of_ours_in_one_rule_is_not_seen_in_the_other_groups():
    """One class runs all groups of an algorithm. By ours, the group without the key takes torch's steps."""
    models = [nn.Sequential(nn.Linear(6, 5, bias=False), nn.Linear(5, 4, bias=False)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    ours = OptimizerFactory("muon", lr=0.02, groups={"up": {"params": "1.weight", "maximize": True}})(models[0])
    assert type(ours) is optim.Muon
    unset = OptimizerFactory("muon", lr=0.02, groups={"down": {"params": "1.weight", "maximize": False}})(models[1])
    assert type(unset) is torch.optim.Muon
    start = models[0][1].weight.detach().clone()
    for model, optimizer in zip(models, (ours, unset), strict=True):
        for seed, layer in enumerate(model):
            layer.weight.grad = torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(seed))
        optimizer.param_groups[0]["weight_decay"] = optimizer.param_groups[1]["weight_decay"] = 0.0
        optimizer.step()
    assert torch.equal(models[0][0].weight, models[1][0].weight)
    up, down = (model[1].weight.detach() - start for model in models)
    assert up.norm() > 0 and torch.allclose(up, -down, atol=1e-7)  # a sum with the start rounds


# Stacks


def test_stacks_are_one_by_one_up_to_rounding_in_the_parameters_dtype():
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-13)):
        loop, stacks = (
            train(optim.Muon(random_params(dtype), lr=0.02, ns_dtype="parameter", foreach=foreach), 2)
            for foreach in (False, None)
        )
        assert max((a - b).abs().max() for a, b in zip(loop, stacks, strict=True)) < tolerance


def test_matrices_of_one_shape_are_orthogonalized_together(monkeypatch):
    shapes = []

    def record(stack: Tensor, *, by_kernel: bool) -> Any:
        shapes.append(tuple(stack.shape))
        return find_iterations(stack, by_kernel=by_kernel)

    monkeypatch.setattr(newton_schulz, "find_iterations", record)
    params = random_params(shapes=[(18, 20), (18, 20), (18, 4, 5), (36, 20), (3, 18, 20), (20, 18)])
    groups = [{"params": params[:3], "matrix": "flatten"}, {"params": params[3:4], "split": 2}]
    groups += [{"params": params[4:], "matrix": "batch"}]
    train(optim.Muon(groups, ns_steps=1), 1)
    # Three in the first group, of which one is a convolution's; a split one; a stack of three, and one by itself.
    assert shapes == [(3, 18, 20), (2, 18, 20), (3, 18, 20), (1, 18, 20)]


@pytest.mark.parametrize(("limit", "parts"), [("_MAX_ELEMENTS", [2, 2, 1]), ("_ELEMENTS_PER_THREAD", [2, 2, 1])])
def test_a_large_stack_is_worked_on_in_parts_with_the_same_result(monkeypatch, limit, parts):
    """A part has as many matrices as there is room for; on a CPU as many for each thread."""
    stack = torch.randn(5, 18, 20, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    given = {"polynomials": newton_schulz.polynomials("jordan", (3.4445, -4.775, 2.0315), 5), "eps": 0.0, "safety": 1.0}
    together = newton_schulz.orthogonalize(stack, **given)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(newton_schulz, limit, 2 * 360 if limit == "_MAX_ELEMENTS" else 360)
    lengths = []
    norms = newton_schulz.matrix_norms
    monkeypatch.setattr(newton_schulz, "matrix_norms", lambda stack: (lengths.append(len(stack)), norms(stack))[1])
    assert torch.equal(newton_schulz.orthogonalize(stack, **given), together)
    assert lengths == parts


@pytest.mark.parametrize("name", ["muon", "normuon", "adamuon"])
def test_a_step_takes_as_many_tensors_at_once_as_fit_a_cpus_caches_with_the_same_result(monkeypatch, name):
    results, lengths = [], []
    norms = newton_schulz.matrix_norms
    monkeypatch.setattr(newton_schulz, "matrix_norms", lambda stack: (lengths.append(len(stack)), norms(stack))[1])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    for limit in (2**18, 360):
        monkeypatch.setattr(newton_schulz, "_ELEMENTS_PER_THREAD", limit)
        lengths.clear()
        results.append(train(native_class(name)(random_params(shapes=[(18, 20)] * 5), lr=0.1), 1))
        assert lengths == ([5] if limit > 360 else [2, 2, 1])
    assert same(*results)


def test_small_matrices_have_the_bits_of_one_by_one():
    """torch multiplies stacks of small matrices in another way than single ones, with other roundings (CPU, 2.13)."""
    given = {"polynomials": newton_schulz.polynomials("jordan", (3.4445, -4.775, 2.0315), 5), "eps": 0.0, "safety": 1.0}
    generator = torch.Generator().manual_seed(0)
    for rows, columns in [(2, 5), (3, 6), (6, 3), (4, 6), (5, 5), (7, 9), (16, 16), (12, 40), (17, 16), (17, 17)] * 20:
        stack = torch.randn(2 if rows < 8 else 8, rows, columns, generator=generator).to(torch.bfloat16)
        one_by_one = torch.cat([newton_schulz.orthogonalize(one, **given) for one in stack.split(1)])
        assert torch.equal(newton_schulz.orthogonalize(stack, **given), one_by_one), (rows, columns)


def test_what_is_joined_separates_into_the_same_tensors():
    tensors = TensorList([torch.randn(4, 3, 2), torch.randn(2, 2, 6), torch.randn(8, 3).to(torch.bfloat16)])
    stack = join_matrices(tensors, 4, 6, torch.float32)
    assert stack.shape == (3, 4, 6)
    parts = separate_matrices(stack, tensors)
    assert [(part.shape, part.dtype) for part in parts.tensors] == [(t.shape, t.dtype) for t in tensors.tensors]
    assert same(parts.tensors, tensors.tensors)


@pytest.mark.parametrize(
    ("shape", "matrix", "split", "expected"),
    [
        ((6, 4), None, 1, (6, 4)),
        ((6, 4), None, 3, (2, 4)),
        ((8, 3, 3, 3), None, 1, (8, 27)),
        ((8, 3, 5), "flatten", 2, (4, 15)),
        ((8, 6, 5), "batch", 3, (2, 5)),
        ((2, 8, 6, 5), "batch", 1, (6, 5)),
    ],
)
def test_matrix_shape(shape, matrix, split, expected):
    group = {"matrix": matrix, "split": split}
    assert find_shape_problem("w", torch.empty(shape), group) is None
    assert matrix_shape(group, shape) == expected


def test_a_fused_qkv_is_stepped_as_its_three_matrices():
    (fused,) = random_params(shapes=[(12, 8)])
    parts = [nn.Parameter(part.detach().clone()) for part in fused.chunk(3)]
    one, three = optim.Muon([fused], lr=0.1, split=3), optim.Muon(parts, lr=0.1)
    for _ in range(3):
        fused.grad = torch.randn(fused.shape)
        for part, grad in zip(parts, fused.grad.chunk(3), strict=True):
            part.grad = grad.clone()
        one.step()
        three.step()
    assert torch.equal(fused, torch.cat(parts))


def test_experts_and_kernels_are_stepped_as_their_matrices():
    for matrix, to_matrices in (("batch", lambda w: list(w)), ("flatten", lambda w: [w.flatten(1)])):
        (stack,) = random_params(shapes=[(3, 4, 5)])
        parts = [nn.Parameter(part.detach().clone()) for part in to_matrices(stack)]
        one, several = optim.Muon([stack], lr=0.1, matrix=matrix), optim.Muon(parts, lr=0.1)
        stack.grad = torch.randn(stack.shape)
        for part, grad in zip(parts, to_matrices(stack.grad), strict=True):
            part.grad = grad.clone()
        one.step()
        several.step()
        assert same([part.detach() for part in to_matrices(stack)], parts)


# Newton-Schulz


@pytest.mark.parametrize(("coefficients", "low", "high"), [("jordan", 0.65, 1.21), ("polar_express", 0.9, 1.1)])
def test_singular_values_come_near_1_and_singular_vectors_stay(coefficients, low, high):
    generator = torch.Generator().manual_seed(0)
    for shape in ((40, 40), (20, 60), (60, 20)):
        u, _, v = torch.linalg.svd(torch.randn(shape, generator=generator, dtype=torch.float64), full_matrices=False)
        values = torch.logspace(0, -2, min(shape), dtype=torch.float64)
        polynomials = newton_schulz.polynomials(coefficients, (3.4445, -4.775, 2.0315), 8)
        given = {"polynomials": polynomials, "eps": 1e-7, "safety": newton_schulz.safety(coefficients)}
        result = newton_schulz.orthogonalize((u * values @ v)[None], **given)[0]
        diagonal = u.T @ result @ v.T
        assert low < diagonal.diagonal().min() and diagonal.diagonal().max() < high
        assert (diagonal - diagonal.diagonal().diag()).abs().max() < 1e-10


def test_polar_express_is_more_exact_than_jordans_in_as_many_steps():
    errors = {}
    matrix = torch.randn(1, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, _, v = torch.linalg.svd(matrix[0])
    for coefficients in ("jordan", "polar_express"):
        polynomials = newton_schulz.polynomials(coefficients, (3.4445, -4.775, 2.0315), 8)
        safety = newton_schulz.safety(coefficients)
        result = newton_schulz.orthogonalize(matrix, polynomials=polynomials, eps=0.0, safety=safety)
        errors[coefficients] = float((result[0] - u @ v).norm())
    assert errors["polar_express"] < errors["jordan"] / 3


def test_lr_ratios():
    assert (lr_ratio(None, 12, 3), lr_ratio("original", 3, 12)) == (2.0, 1.0)
    assert (lr_ratio("match_rms_adamw", 16, 25), lr_ratio("match_rms_adamw", 25, 16)) == (1.0, 1.0)
    assert lr_ratio("spectral_unclamped", 3, 12) == 0.5


# The paper's equations in float64


POLAR_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
)
"""The first five of the paper; all are divided by powers of 1.01."""


def equations(p: np.ndarray, g: np.ndarray, s: dict[str, Any], *, lr: float, polynomials: Any, safety: float) -> Any:
    """Jordan et al. 2024 with arXiv:2505.16932, algorithm 1: momentum 0.95 and Nesterov's."""
    s["b"] = 0.95 * s.get("b", 0) + 0.05 * g
    x = 0.05 * g + 0.95 * s["b"]
    x = x / max(safety * np.sqrt((x**2).sum()), 1e-7)
    for a, b, c in polynomials:
        a_matrix = x @ x.T
        x = a * x + (b * a_matrix + c * a_matrix @ a_matrix) @ x
    return p - lr * 0.2 * np.sqrt(max(p.shape)) * x


@pytest.mark.parametrize("coefficients", ["jordan", "polar_express"])
@pytest.mark.parametrize("foreach", [False, True], ids=["loop", "stacks"])
def test_equations_in_float64(coefficients, foreach):
    shapes = [(4, 6), (4, 6), (6, 4), (5, 3, 2)]
    params = random_params(torch.float64, shapes)
    matrices, states = [p.detach().numpy().reshape(len(p), -1).copy() for p in params], [{} for _ in params]
    given = {"coefficients": coefficients, "adjust_lr_fn": "match_rms_adamw", "ns_dtype": "parameter"}
    optimizer = optim.Muon(params, lr=0.05, weight_decay=0.0, matrix="flatten", foreach=foreach, **given)
    polynomials = [(3.4445, -4.775, 2.0315)] * 5
    if coefficients == "polar_express":
        polynomials = [(a / 1.01, b / 1.01**3, c / 1.01**5) for a, b, c in POLAR_EXPRESS]
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        for i, param in enumerate(params):
            param.grad = torch.randn(param.shape, generator=generator, dtype=torch.float64)
            given = {"polynomials": polynomials, "safety": 1.0 if coefficients == "jordan" else 1.01}
            matrices[i] = equations(
                matrices[i], param.grad.reshape(len(param), -1).numpy(), states[i], lr=0.05, **given
            )
        optimizer.step()
    for param, matrix in zip(params, matrices, strict=True):
        assert np.abs(param.detach().numpy().reshape(len(param), -1) - matrix).max() < 1e-10


# What is refused


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        (
            (3,),
            {},
            r"^param_groups\[0\]\.params: Muon takes matrices, parameters of two or more.*params\[0\] has the sh",
        ),
        (
            (2, 3, 4),
            {},
            r"^param_groups\[0\]\.matrix: params\[0\] has the shape \[2, 3, 4\]: .* Type matrix: flatten or",
        ),
        ((4, 4), {"split": 3}, r"^param_groups\[0\]\.split: got 3, but the 4 rows of params\[0\]"),
        ((4, 4), {"fused": True}, r"^param_groups\[0\]\.fused: Muon multiplies matrices"),
        ((4, 4), {"matrix": "stack"}, r"^matrix: got 'stack', which is not one of flatten, batch"),
        (
            (4, 4),
            {"coefficients": "polar_express", "ns_coefficients": (1.0, 2.0, 3.0)},
            r"^param_groups\[0\]\.ns_coefficients: coefficients: polar_express has its own",
        ),
    ],
    ids=["vector", "three dimensions", "rows that cannot be split", "fused", "unknown matrix", "two coefficients"],
)
def test_refusals(shape, options, message):
    with pytest.raises(ConfigError, match=message):
        optim.Muon([nn.Parameter(torch.ones(shape))], **options)


def test_complex_matrices_are_refused_by_both_classes():
    with pytest.raises(ConfigError, match=r"params: Muon takes matrices of real numbers; params\[0\] is complex"):
        optim.Muon([nn.Parameter(torch.ones(2, 2, dtype=torch.complex64))])
    layer = nn.Linear(2, 2, bias=False, dtype=torch.complex64)
    with pytest.raises(ConfigError, match=r"^name: muon of torch takes no complex parameters; weight is one"):
        OptimizerFactory("muon")(layer)


# The class of the module says what a parameter is


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 8, 3)
        self.experts = nn.Parameter(torch.randn(4, 6, 5))
        self.linear = nn.Linear(6, 9)


def test_kernels_are_flattened_and_other_parameters_are_stacks_and_the_table_says_so():
    rule = {"kinds": ["matrix"], "optimizer": "muon"}
    rules = {"kernels": {"classes": ["Conv1d"], **rule}, "experts": {"params": "experts", **rule}}
    factory = OptimizerFactory("adamw", groups={**rules, "qkv": {"params": "linear", **rule, "split": 3}})
    rows = {row["group"]: row for row in factory.explain(Mixed()).rows()}
    assert {name: rows[name].get("matrix") for name in ("kernels", "experts", "qkv", "default")} == {
        "kernels": "flatten", "experts": "batch", "qkv": None, "default": None,
    }  # fmt: skip
    assert "flatten" in factory.explain(Mixed()).text() and "batch" in factory.explain(Mixed()).text()
    groups = {group["name"]: group for group in factory(Mixed()).param_groups}
    assert (groups["kernels"]["matrix"], groups["experts"]["matrix"]) == ("flatten", "batch")
    alone = OptimizerFactory("adamw", groups={"kernels": rules["kernels"]}).explain(Mixed())
    assert "matrix" in alone.columns() and "flatten" in alone.text()
    rules["experts"]["matrix"] = "flatten"
    groups = {group["name"]: group for group in OptimizerFactory("adamw", groups=rules)(Mixed()).param_groups}
    assert groups["experts"]["matrix"] == "flatten"


def test_kernels_and_stacks_in_one_group_are_refused():
    rule = {"params": ["conv.weight", "experts"], "optimizer": "muon"}
    with pytest.raises(ConfigError, match=r"^groups\.all_of_them\.matrix: conv\.weight is the kernel .* experts would"):
        OptimizerFactory("adamw", groups={"all_of_them": rule})(Mixed())
    with pytest.raises(ConfigError, match=r"^groups\.x\.split: got 2, but the 9 rows of linear\.weight"):
        OptimizerFactory("adamw", groups={"x": {"params": "linear.weight", "optimizer": "muon", "split": 2}})(Mixed())
    pairs = list(Mixed().named_parameters())
    with pytest.raises(ConfigError, match=r"^groups\.x\.matrix: experts has the shape \[4, 6, 5\]: one matrix"):
        OptimizerFactory("adamw", groups={"x": {"params": "experts", "optimizer": "muon"}})(pairs)


@pytest.mark.parametrize("name", ["soap", "shampoo"])
def test_products_without_eigenvectors_are_refused_with_the_parameter_and_what_to_type(name):
    model = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(2, 3, bias=False))
    optimizer = OptimizerFactory(name, foreach=False)(model)
    for layer, value in zip(model, (1.0, float("nan")), strict=True):
        layer.weight.grad = torch.full_like(layer.weight, value)
    with pytest.raises(ConfigError, match=r"^skip_nonfinite: the gradient of 1\.weight is not finite.*: true to skip"):
        optimizer.step()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", MATRIX_MEMBERS)
def test_a_gradient_that_is_not_finite_is_seen_in_the_parameter_or_refused_or_skipped(name, value):
    """Sign(NaN) is 0 in torch: by it AdaMuon would go on as if nothing had happened."""
    for foreach in (False, True):
        for skips in (False, True):
            param = random_params(shapes=[(6, 4)])[0]
            optimizer = native_class(name)([param], lr=0.1, foreach=foreach, skip_nonfinite=skips)
            train(optimizer, 2)
            before = param.detach().clone()
            param.grad[1, 2] = value
            if name == "shampoo" and not skips:
                with pytest.raises(ConfigError, match=r"^skip_nonfinite: the gradient of params\[0\] is not finite"):
                    optimizer.step()
                continue
            optimizer.step()
            assert torch.equal(param, before) if skips else param.isnan().all()


def test_products_that_overflow_are_refused_with_what_to_type(monkeypatch):
    def fail(_: Tensor) -> Any:
        raise torch.linalg.LinAlgError("linalg.eigh: The algorithm failed to converge")  # as LAPACK sometimes does

    monkeypatch.setattr(torch.linalg, "eigh", fail)
    model = nn.Linear(3, 2, bias=False)
    model.weight.grad = torch.full_like(model.weight, 1e30)
    with pytest.raises(ConfigError, match=r"^param group 'default': .* overflow.* trainer\.gradient_clip_val=1\.0"):
        OptimizerFactory("shampoo")(model).step()


def test_a_fused_qkv_whose_rows_are_its_inputs_is_not_split():
    class Conv1D(nn.Module):  # as GPT-2's in transformers
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(6, 18))

    rules = {"qkv": {"params": "c_attn", "optimizer": "muon", "split": 3}}
    model = nn.ModuleDict({"c_attn": Conv1D(), "c_proj": Conv1D()})
    with pytest.raises(ConfigError, match=r"^groups\.qkv\.split: c_attn\.weight belongs to a Conv1D .*Remove split"):
        OptimizerFactory("adamw", groups=rules)(model)
    del rules["qkv"]["split"]
    OptimizerFactory("adamw", groups=rules)(model)
