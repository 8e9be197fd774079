"""The benchmark's arms `step-...`: what their cases step, the bytes that they count, and what comes of the times."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import partial
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch
from torch import Tensor

from lightning_optim.optim.fused import compiler
from lightning_optim.optim.fused.compiler import CompileError, find_compiler
from recipes import benchmark
from recipes.benchmarks import step as arm
from recipes.benchmarks import step_costs as costs
from recipes.benchmarks.measure import Timing
from recipes.benchmarks.step import MEMBERS, REFERENCE, STEP, THEIRS, make_cases, our_case, their_case, torch_case

CPU = torch.device("cpu")
TINY = [(8, 4), (5,), (2, 3, 1, 1)]


@pytest.fixture
def kernels(tmp_path, monkeypatch):
    """A cache folder of kernels for one test; without a C compiler it is skipped."""
    try:
        find_compiler()
    except CompileError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def built(monkeypatch) -> dict[str, list[Tensor]]:
    """The parameters that pytorch_optimizer's classes were built for: here replaced by SGD."""
    found: dict[str, list[Tensor]] = {}

    def class_for(name):
        def build(params, lr, **options):
            found[name] = list(params)
            return torch.optim.SGD(params, lr=lr)

        return build

    module = ModuleType("pytorch_optimizer")
    module.__spec__ = ModuleSpec("pytorch_optimizer", None)
    module.__dict__.update({name: class_for(name) for name, _ in THEIRS.values()})
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", module)
    return found


def timings(medians: Mapping[str, float]) -> dict[str, Timing]:
    return {case: Timing(median_ms=ms, low_ms=0.5 * ms, high_ms=2 * ms) for case, ms in medians.items()}


# The lists


def test_lists_have_the_shapes_that_their_titles_say():
    expected = {"bert": (55, 28.1), "resnet": (161, 25.6), "matrices": (4, 33.6), "many": (360, 4.0)}
    lists = {"bert": arm.bert_for(CPU), "resnet": arm.resnet(), "matrices": arm.MATRICES, "many": arm.MANY}
    for name, shapes in lists.items():
        million = sum(torch.Size(shape).numel() for shape in shapes) / 1e6
        assert (len(shapes), round(million, 1)) == expected[name], name
    assert len(arm.bert()) == 199 and sum(torch.Size(shape).numel() for shape in arm.bert()) == 109_482_240
    assert arm.bert_for(torch.device("cuda")) == arm.bert()


# The bytes


def test_bytes_of_some_members():
    # float32: parameter 8, gradient 4, and 8 for each buffer; 4 for one that is only read.
    expected = {"adamw": 28, "lion": 20, "adan": 44, "madgrad": 8 + 4 + 8 + 8 + 4, "adam_mini": 20, "extra_sgd": 36}
    assert {name: round(arm.bytes_per_element(name), 1) for name in expected} == expected
    # The copy of the parameter and the parameter that is set back to it are only written.
    assert arm.bytes_per_element("extra_sgd", on_gpu=True) == pytest.approx(28, abs=0.01)


def test_bytes_of_torch_are_those_of_ours():
    build = partial(arm.build_torch, **arm.TORCH["loop"])
    assert costs.count_bytes(build, fetches_before_write=True) == pytest.approx(28, abs=0.01)
    assert arm.bytes_of(torch_case("foreach")) == arm.bytes_of(our_case("adamw", "lists"))
    assert arm.bytes_of(their_case("lion")) == arm.bytes_of(our_case("lion"))


@pytest.mark.slow
def test_no_member_moves_less_than_plain_gradient_descent():
    assert all(12 < arm.bytes_per_element(name) <= 68.1 for name in MEMBERS)


# The cases


def test_cases_step_the_same_parameters_and_share_buffers(kernels, built):
    buffers = []
    prepare = arm._prepare

    def record(optimizer, shared):
        step = prepare(optimizer, shared)
        param = optimizer.param_groups[0]["params"][0]
        if "exp_avg" in optimizer.state[param]:
            buffers.append((param.data_ptr(), optimizer.state[param]["exp_avg"].data_ptr()))
        return step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arm, "_prepare", record)
        cases = make_cases(TINY, CPU, members=["adamw", "lion"], theirs=["lion", "lamb"])
    assert [case.name for case in cases] == [
        "torch AdamW, fused",
        "torch AdamW, foreach",
        "torch AdamW, loop",
        "torch SGD, fused",
        "adamw, lists",
        "adamw, loop",
        "adamw, kernel",
        "lion, kernel",
        "lion, pytorch_optimizer",
        "lamb, pytorch_optimizer",
    ]
    assert list(built) == ["Lion", "Lamb"]
    assert len(buffers) == 7 and len(set(buffers)) == 1
    for case in cases:
        case.run()


def test_cases_do_without_pytorch_optimizer(kernels, monkeypatch):
    monkeypatch.setattr(arm, "find_spec", lambda name: None)
    cases = make_cases(TINY, CPU, members=["adamw"], theirs=["lion"])
    assert our_case("adamw") in {case.name for case in cases}
    assert not any("pytorch_optimizer" in case.name for case in cases)


def test_timed_step_is_past_the_first_ones(kernels):
    optimizer = arm.kernel("radam")(costs.build_params(TINY))
    arm._prepare(optimizer, {})()
    assert all(float(state["step"]) == costs.LATE + 2 for state in optimizer.state.values())


def test_step_of_a_rule_with_two_gradients_is_both_calls():
    params = costs.build_params(TINY)
    optimizer = arm.build_ours("extra_sgd", params, **arm.OURS["loop"])
    costs.whole_step(optimizer)()
    assert all(float(optimizer.state[param]["step"]) == 2 for param in params)


@pytest.mark.slow
def test_all_cases_run_and_leave_finite_parameters(kernels, monkeypatch):
    params: list[Tensor] = []
    build_params = costs.build_params

    def record(*args):
        params[:] = build_params(*args)
        return params

    monkeypatch.setattr(arm, "build_params", record)
    cases = make_cases(TINY, CPU)
    assert {our_case(name) for name in MEMBERS} <= {case.name for case in cases}
    for case in [*cases] * 3:
        case.run()
    assert all(bool(param.isfinite().all()) for param in params)


def test_kinds_are_those_of_the_rules():
    for name in MEMBERS:
        (param,) = params = costs.build_params([(4, 6)])
        optimizer = arm.build_ours(name, params)
        program = optimizer.trace_group(optimizer.param_groups[0], param)
        has_power = any(line.op in ("pow", "cube_root", "exp", "tanh") and line.rank for line in program.lines)
        is_later = name == "storm"  # the power is in what it does with the second gradient
        assert (has_power or is_later) == (name in arm.WITH_POWERS), name
        assert not program.mixes_elements() or name in arm.WITH_REDUCTIONS, name


# What comes of the times

MEDIANS = {
    torch_case("fused"): 10.0,
    torch_case("foreach"): 40.0,
    our_case("adamw"): 11.0,
    our_case("lion"): 9.0,
    our_case("adan"): 15.0,
    our_case("diffgrad"): 18.0,
    our_case("lamb"): 30.0,
    their_case("lion"): 36.0,
    their_case("adan"): 15.0,
}


def test_findings():
    findings = {key: round(value, 4) for key, value in arm.derive_findings(timings(MEDIANS)).items()}
    assert findings == {
        "our AdamW as a kernel / torch's fused": 1.1,
        "torch's foreach AdamW / our kernel": round(40 / 11, 4),
        "pytorch_optimizer / our kernel, geometric mean of 2 algorithms": 2.0,
        "largest ratio per byte, kernels element-wise (lion)": round(9 / 20 / (10 / 28), 4),
        "largest ratio per byte, kernels with a power or exponential (diffgrad)": 1.4,
        "largest ratio per byte, kernels with reductions (lamb)": 3.0,
    }


def test_findings_without_pytorch_optimizer():
    medians = {case: ms for case, ms in MEDIANS.items() if "pytorch_optimizer" not in case}
    assert not any("pytorch_optimizer" in finding for finding in arm.derive_findings(timings(medians)))


def test_columns():
    columns = arm.make_columns(timings(MEDIANS))
    assert list(columns) == ["bytes", "ratio per byte"]
    assert all(set(column) == set(MEDIANS) for column in columns.values())
    assert columns["ratio per byte"][REFERENCE] == 1
    assert columns["ratio per byte"][their_case("adan")] == pytest.approx(15 / 44 / (10 / 28), rel=1e-3)


def test_share_of_a_copy_on_a_gpu():
    # The copy moves 8 bytes in 4 ms; AdamW 28 in 28 ms, Adan 44 in 22 ms.
    given = timings({REFERENCE: 20, torch_case("foreach"): 1, our_case("adamw"): 28, our_case("adan"): 22, arm.COPY: 4})
    shares = arm.make_columns(given)["share of a copy's bandwidth"]
    assert shares[arm.COPY] == 1
    assert (shares[our_case("adamw")], shares[our_case("adan")]) == pytest.approx((0.5, 1.0), rel=1e-3)
    share = arm.derive_findings(given)["smallest share of a copy's bandwidth, kernels element-wise (adamw)"]
    assert share == pytest.approx(0.5, rel=1e-3)


# The other costs


@pytest.mark.slow
def test_compilation_is_measured_from_an_empty_and_from_a_full_cache(kernels, tmp_path, monkeypatch):
    events = []
    compile_source, time_first_step = compiler._compile, costs._time_first_step
    monkeypatch.setattr(compiler, "_compile", lambda *args: events.append("compile") or compile_source(*args))
    monkeypatch.setattr(costs, "_time_first_step", lambda *args: events.append("step") or time_first_step(*args))
    findings = costs.measure_compilation({"lion": arm.kernel("lion"), "adamw": arm.kernel("adamw")}, CPU)
    cold_and_warm = ["step", "compile"] * 2 + ["step"] * 2
    assert events[-6:] == cold_and_warm
    assert all(milliseconds > 0 for milliseconds in findings.values())
    assert os.environ["XDG_CACHE_HOME"] == str(tmp_path) and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_peak_memory_is_measured_above_what_is_there(monkeypatch):
    monkeypatch.setattr(costs, "ProcessPoolExecutor", _Here)
    shapes = [(1024, 1024)] * 4
    builds = {way: partial(arm.build_torch, **arm.TORCH[way]) for way in ("fused", "foreach")}
    peaks = costs.measure_peak_memory(builds, shapes, CPU)
    if not peaks:
        pytest.skip("the system does not tell the peak memory")
    # foreach keeps a temporary of each parameter: 16 MiB.
    assert peaks["foreach"] > 12 > 2 > peaks["fused"]


class _Here:
    """Runs what is submitted in this process: it takes seconds to start another one."""

    def __init__(self, *args, **options): ...
    def __enter__(self):
        return self

    def __exit__(self, *args): ...
    def submit(self, function, *args):
        self.result = partial(function, *args)
        return self


# In the benchmark


def test_one_name_selects_all_lists(monkeypatch, capsys):
    devices, measured = [], []

    def make_tiny_cases(device):
        devices.append(device.type)
        return make_cases([(4, 4)], device, members=[], theirs=[])

    def tiny(name):
        fields = {**vars(STEP[name]), "make_cases": make_tiny_cases, "findings": lambda timings: {"found": 2.0}}
        return arm.Arm(**{**fields, "measurements": lambda device: measured.append(name) or {f"{name} costs": 3.0}})

    for name in STEP:
        monkeypatch.setitem(benchmark.ARMS, f"step-{name}", tiny(name))
    benchmark.main(["step", "step-many", "--repeats", "2"])
    assert devices == ["cpu"] * 4 and measured == list(STEP)
    out = capsys.readouterr().out
    assert "ratio per byte" in out and "28.00" in out and "found: 2.00" in out and "many costs: 3.00" in out


def test_one_list_can_be_selected(monkeypatch):
    ran = []
    monkeypatch.setattr(benchmark, "run", lambda arm, device, repeats: ran.append(arm))
    monkeypatch.setattr(benchmark, "print_result", lambda result, console: None)
    benchmark.main(["step-matrices"])
    assert ran == [STEP["matrices"]]
