"""What a rule may do for a kernel, what is refused, and how many kernels it takes."""

from __future__ import annotations

import operator
from functools import partial

import numpy as np
import pytest
import torch

from lightning_optim import ConfigError, optim
from lightning_optim.optim.fused import kernels
from lightning_optim.optim.fused.arguments import Call
from lightning_optim.optim.fused.kernels import Kind, trace_call
from lightning_optim.optim.fused.program import Argument, Rank
from tests.support.example_rules import DeclaredMomentum, Momentum

ARGUMENTS = tuple(Argument(name, "float32", Rank.ELEMENT) for name in ("p", "g", "m"))


def program_of(update, ndim=2, **numbers):
    """The program of `update(p, g, m, *numbers)`."""

    def rule(*arguments):
        *numbers, p, g, buffers = arguments
        update(p, g, *buffers, *numbers)

    return trace_call(
        Call.of(partial(rule, *numbers.values()))._replace(names=tuple(numbers)), Kind(ARGUMENTS, ndim, "cpu")
    )


def test_a_program_can_be_printed():
    def update(p, g, m, w, size):
        m.lerp_(g, w)
        unused = m.exp()
        del unused
        p.add_(m, alpha=-size)

    assert str(program_of(update, w=0.1, size=0.5)).splitlines() == [
        "t0: number = number(w)",
        "t1: number = number(size)",
        "t2: element = load(p)",
        "t3: element = load(g)",
        "t4: element = load(m)",
        "t5: element = lerp(t4, t3, t0)",
        "t7: number = neg(t1)",
        "t8: element = fma(t5, t7, t2)",
        "p <- t8",
        "m <- t5",
    ]


def test_equal_lines_are_computed_once():
    def update(p, g, m):
        p.add_(m * g).add_(m * g)

    assert [line.op for line in program_of(update).lines].count("mul") == 1


def stores_of(program):
    """For each pass, the names of the arguments that its loops store."""
    return [[ARGUMENTS[arg].name for loop in walk.loops for arg, _ in loop.stores] for walk in program.passes()]


def test_a_pass_ends_at_a_sum_and_stores_what_the_next_one_then_reads():
    def update(p, g, m):
        m.add_(g)
        p.sub_(m / m.norm())

    program = program_of(update)
    assert stores_of(program) == [["m"], ["p"]]
    _, last = program.passes()
    assert list(last.loops[0].stored.values()) == [2]
    assert [program.lines[i].value for i in last.loops[0].lines if program.lines[i].op == "load"] == [0]  # no gradient


def test_what_a_later_pass_needs_as_it_was_is_stored_in_the_last():
    def update(p, g, m):
        before = m.clone()
        m.add_(g)
        p.sub_(before / m.norm())

    assert stores_of(program_of(update)) == [[], ["p", "m"]]


def test_what_is_rounded_when_it_is_stored_is_stored_in_the_last_pass():
    def rule(p, g, buffers):
        buffers[0].add_(g)
        p.sub_(buffers[0] / buffers[0].norm())

    kind = Kind((*ARGUMENTS[:2], Argument("m", "bfloat16", Rank.ELEMENT)), 2, "cpu")
    assert stores_of(trace_call(Call.of(partial(rule)), kind)) == [[], ["p", "m"]]


def test_what_a_later_loop_of_the_same_rows_reads_is_stored_in_the_last_pass():
    def update(p, g, m):
        m.add_(g)
        rows = m.flatten(1)
        scaled = rows / rows.norm(dim=1, keepdim=True)
        p.sub_((scaled / scaled.square().sum()).view_as(p))

    first, last = program_of(update).passes()
    assert [len(loop.lines) > 0 for loop in first.loops] == [True, True]
    assert not [loop.stores for loop in first.loops if loop.stores]
    assert [arg for arg, _ in last.loops[-1].stores] == [0, 2]


def test_sums_of_rows_are_kept_for_the_next_pass():
    def update(p, g, m):
        norms = g.flatten(1).norm(dim=1, keepdim=True)
        p.sub_((m.flatten(1) / norms * norms.amax()).view_as(p))

    program = program_of(update)
    assert len(program.kept()) == 1
    _, last = program.passes()
    assert last.known == program.kept()
    assert len(last.loops) == 1


def test_a_sum_that_nothing_waits_for_takes_no_further_pass():
    arguments = (*ARGUMENTS[:2], Argument("r", "float32", Rank.TENSOR))

    def rule(p, g, buffers):
        buffers[0].add_((p * g).sum())
        p.sub_(g)

    program = trace_call(Call.of(partial(rule)), Kind(arguments, 2, "cpu"))
    assert len(program.passes()) == 1
    assert program.tensor_stores()[1]


REFUSED = {
    "branch on a number": (lambda p, g, m, k: p.add_(g) if k else None, "branch on a number"),
    "branch on a tensor": (lambda p, g, m, k: p.add_(g) if g.sum() > k else None, "branch on what is in a tensor"),
    "write to the gradient": (lambda p, g, m, k: g.mul_(k), "writes to the gradient"),
    "write through a view": (lambda p, g, m, k: p.flatten(1).mul_(k), "through a view"),
    "unknown method": (lambda p, g, m, k: m.cumsum(0), "Tensor.cumsum"),
    "unknown method in place": (lambda p, g, m, k: m.erfinv_(), "Tensor.erfinv_"),
    "another norm": (lambda p, g, m, k: m.copy_(g * g.norm(1)), "order 2"),
    "a tensor from elsewhere": (lambda p, g, m, k: m.add_(torch.ones(2)), "not with Tensor"),
    "an outer product": (lambda p, g, m, k: m.unsqueeze(-1) * g, "parameter's shape"),
    "columns": (lambda p, g, m, k: m.sub_(g.mean(0, keepdim=True)), "each of its rows"),
    "rows in two ways": (lambda p, g, m, k: (g.flatten(1), g.reshape(4, -1)), "in one way"),
    "a shape that grows": (lambda p, g, m, k: m.sum().add_(g), "another shape"),
    "augmented assignment": (lambda p, g, m, k: operator.iadd(m, g), "methods that end in _"),
    "another error": (lambda p, g, m, k: k.is_integer(), "cannot be traced: .*is_integer"),
    "a view of what was": (
        lambda p, g, m, k: (m.view_as(p), m.add_(g))[0].add(g),
        "after it has written to the tensor",
    ),
    "math of numbers": (lambda p, g, m, k: m.mul_(__import__("math").sqrt(k)), "real number"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_line_is_refused(case):
    update, message = REFUSED[case]
    with pytest.raises(TypeError, match=message):
        program_of(update, k=0.5)


def test_zeros_of_either_sign_are_two_constants():
    program = program_of(lambda p, g, m, k: p.copy_(g.maximum(-0.0) + m.maximum(0.0)), k=0.5)
    assert sorted(str(line.value) for line in program.lines if line.op == "constant") == ["-0.0", "0.0"]


class WithUpdate(DeclaredMomentum):
    """A rule whose `update` has one more number and one constant."""

    flag = False

    def coefficients(self, t, group):
        return {**super().coefficients(t, group), "k": float(t), "flag": self.flag}

    @staticmethod
    def update(p, g, m, *, mu, size, k, flag):
        return optim.Update(m.mul_(mu).add_(g), size * k * (2 if flag else 1))


def step(optimizer, times=1):
    for _ in range(times):
        optimizer.param_groups[0]["params"][0].grad = torch.ones(3)
        optimizer.step()


@pytest.fixture
def built(monkeypatch):
    """The programs that kernels are built of."""
    programs = []

    def record(*args):
        programs.append(trace_call(*args))
        return programs[-1]

    monkeypatch.setattr(kernels, "trace_call", record)
    return programs


def test_numbers_that_change_take_no_new_kernel(built):
    optimizer = WithUpdate([torch.nn.Parameter(torch.ones(3))], fused=True)
    for lr in (0.1, 0.2, 0.0):
        optimizer.param_groups[0]["lr"] = lr
        step(optimizer, 3)
    assert len(built) == 1
    optimizer.flag = True
    step(optimizer)
    assert len(built) == 2


def test_numpys_floats_are_numbers_too(built):
    optimizer = optim.Lion([torch.nn.Parameter(torch.ones(3))], fused=True)
    for beta in (0.9, 0.91, 0.92):
        optimizer.param_groups[0]["betas"] = (np.float64(beta), 0.99)
        step(optimizer)
    assert len(built) == 1


def test_a_schedule_groups_that_join_and_gradients_that_come_and_go_take_no_new_kernel(built):
    params = [torch.nn.Parameter(torch.ones(3)) for _ in range(4)]
    optimizer = optim.AdamW(params[:3], lr=0.1, fused=True)
    for number in range(200):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - number / 199)  # ends at 0
        if number == 100:
            optimizer.add_param_group({"params": [params[3]], "lr": 0.3})
        for index, param in enumerate(params):
            param.grad = None if (number + index) % 3 == 0 else torch.ones(3)
        optimizer.step()
    assert len(built) == 1


def test_a_comparison_of_numbers_decides_which_kernel_a_step_takes(built):
    class Clipped(WithUpdate):
        @staticmethod
        def update(p, g, m, *, mu, size, k, flag):
            return optim.Update(g, size * max(k, 3.0))

    runs = []
    for fused in (True, False):
        param = torch.nn.Parameter(torch.zeros(3))
        step(Clipped([param], lr=1.0, fused=fused), 6)
        runs.append(param)
    assert torch.equal(*runs)
    assert len(built) == 2


def test_a_division_that_was_decided_against_is_not_computed(built):
    class Divides(WithUpdate):
        k = 1.0

        def coefficients(self, t, group):
            return {**super().coefficients(t, group), "k": self.k}

        @staticmethod
        def update(p, g, m, *, mu, size, k, flag):
            return optim.Update(g * (1 / k) if k != 0 else g, size)

    optimizer = Divides([torch.nn.Parameter(torch.zeros(3))], lr=1.0, fused=True)
    for optimizer.k in (4.0, 0.0, 2.0):
        step(optimizer)
    assert len(built) == 2
    assert torch.equal(optimizer.param_groups[0]["params"][0], torch.full((3,), -0.25 - 1 - 0.5))


def test_a_power_that_is_a_root_now_is_computed_as_one(built):
    class Power(WithUpdate):
        k = 0.5

        def coefficients(self, t, group):
            return {**super().coefficients(t, group), "k": self.k}

        @staticmethod
        def update(p, g, m, *, mu, size, k, flag):
            return optim.Update(g.pow(k), size)

    optimizer = Power([torch.nn.Parameter(torch.ones(3))], fused=True)
    operations = {0.5: "sqrt", 1 / 3: "cube_root", 0.4: "pow"}
    for optimizer.k in (0.5, 1 / 3, 0.4, 0.5, 0.3):
        step(optimizer)
    assert [{line.op for line in program.lines} & {*operations.values()} for program in built] == [
        {operation} for operation in operations.values()
    ]


def test_a_constant_that_changes_all_the_time_is_refused(monkeypatch):
    class Counts(WithUpdate):
        def coefficients(self, t, group):
            return {**super().coefficients(t, group), "flag": int(t)}

    monkeypatch.setattr(kernels, "_MAX_KERNELS", 3)
    optimizer = Counts([torch.nn.Parameter(torch.ones(3))], fused=True)
    step(optimizer, 3)
    with pytest.raises(ConfigError, match="fused: .*one of its constants"):
        step(optimizer)


def test_parameters_of_several_kinds_have_kernels_of_their_own(monkeypatch):
    monkeypatch.setattr(kernels, "_MAX_KERNELS", 2)
    dtypes = (torch.float32, torch.float64, torch.bfloat16)
    params = [torch.nn.Parameter(torch.ones(3, dtype=dtype)) for dtype in dtypes]
    optimizer = optim.AdamW(params, lr=0.5, fused=True)
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer.step()
    assert all(param[0] < 1 for param in params)


class NotStatic(DeclaredMomentum):
    def update(self, p, g, m, *, mu, size):
        return optim.Update(m.mul_(mu).add_(g), size)


class Untraceable(DeclaredMomentum):
    @staticmethod
    def update(p, g, m, *, mu, size):
        return optim.Update(m.mul_(mu).add_(g).cumsum(0), size)


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Momentum, "declared rule"),
        (NotStatic, "staticmethod"),
        (Untraceable, r"Tensor\.cumsum"),
        (lambda params, **options: DeclaredMomentum(params, foreach=True, **options), "foreach: true"),
    ],
    ids=["hooks", "not static", "untraceable", "foreach"],
)
def test_fused_is_refused_when_the_optimizer_is_built(cls, message):
    with pytest.raises(ConfigError, match=rf"param_groups\[0\]\.fused: .*{message}"):
        cls([torch.nn.Parameter(torch.ones(3))], fused=True)


def test_each_kind_of_parameter_must_have_a_kernel():
    params = [torch.nn.Parameter(torch.ones(4, 4)), torch.nn.Parameter(torch.ones(4, 1))]
    with pytest.raises(ConfigError, match=r"param_groups\[0\]\.fused"):
        optim.AdamMini(params, num_blocks=None, fused=True)


def test_a_refused_group_is_not_added():
    optimizer = Untraceable([torch.nn.Parameter(torch.ones(3))])
    with pytest.raises(ConfigError, match="cumsum"):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(3))], "fused": True})
    assert len(optimizer.param_groups) == 1


def test_a_parameter_on_another_device_is_refused():
    with pytest.raises(ConfigError, match="no kernels for meta"):
        DeclaredMomentum([torch.nn.Parameter(torch.ones(3, device="meta"))], fused=True)


def test_null_takes_the_loop_where_there_can_be_no_kernel():
    for cls in (Untraceable, NotStatic):
        optimizer = cls([param := torch.nn.Parameter(torch.ones(1 << 20))])
        param.grad = torch.ones_like(param)
        optimizer.step()
        assert optimizer.state[param]["momentum_buffer"][0] == 1.0


def test_null_decides_for_a_group_as_a_whole(built):
    params = [torch.nn.Parameter(torch.ones(1 << 19)) for _ in range(2)]
    optimizer = optim.AdamW(params)
    for param in params:  # so that their steps are not in one bucket
        param.grad = torch.ones_like(param)
        optimizer.step()
    assert len(built) == 1
    assert optimizer._fused is not None


def test_null_takes_kernels_only_for_many_elements(built):
    for numel in (1 << 10, 1 << 20):
        param = torch.nn.Parameter(torch.ones(numel))
        param.grad = torch.ones(numel)
        optimizer = optim.AdamW([param])
        optimizer.step()
    assert len(built) == 1
