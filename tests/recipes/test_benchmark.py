"""The benchmark: what it measures is fair, its numbers are right, and the arm `rules` holds what it says."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from itertools import count

import pytest
import torch
from rich.console import Console

from lightning_optim import OptimizerFactory
from recipes import benchmark
from recipes.benchmarks.arm import Arm
from recipes.benchmarks.measure import Case, Timing, exponent, measure
from recipes.benchmarks.rules import (
    HEADLINE,
    RULES,
    SIZES,
    Size,
    exponents,
    first_match,
    make_cases,
    patterns_for,
    rules_for,
    transformer,
)

TINY = Size(200, 12)


class Events:
    """Records who did what; its clock moves by what each case is said to take, and by nothing else."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.now = 0.0

    def case(self, name: str, seconds: Iterator[float] | None = None) -> Case:
        def run() -> None:
            self.log.append(name)
            self.now += next(seconds) if seconds else 1.0

        return Case(name=name, run=run)

    def synchronize(self) -> None:
        self.log.append("synchronize")

    def clock(self) -> float:
        self.log.append("clock")
        return self.now

    def runs(self) -> list[str]:
        return [event for event in self.log if event not in ("synchronize", "clock")]


def _measure(events: Events, cases: list[Case], repeats: int, **options: int) -> dict[str, Timing]:
    return measure(cases, repeats, synchronize=events.synchronize, clock=events.clock, **options)


def _rounds(seed: int) -> list[tuple[str, ...]]:
    events = Events()
    _measure(events, [events.case(name) for name in "abcd"], 9, seed=seed)
    runs = events.runs()
    return [tuple(runs[start : start + 4]) for start in range(0, len(runs), 4)]


def test_every_repeat_runs_every_case_once_in_an_order_of_its_own() -> None:
    rounds = _rounds(seed=0)
    assert len(rounds) == 10  # nine, and the one that warms up
    assert all(sorted(each) == list("abcd") for each in rounds)
    assert len(set(rounds)) > 5
    assert rounds == _rounds(seed=0) != _rounds(seed=1)


def test_the_device_is_waited_for_before_each_look_at_the_clock() -> None:
    events = Events()
    _measure(events, [events.case("a")], 2)
    assert events.log == ["synchronize", "clock", "a", "synchronize", "clock"] * 3


def test_the_repeat_that_warms_up_is_not_counted() -> None:
    events = Events()
    cases = [events.case("a", iter([1000.0, 0.001, 0.002, 0.005])), events.case("b", iter([1000.0, 1.0, 1.0, 1.0]))]
    timings = _measure(events, cases, 3)
    assert list(timings) == ["a", "b"]
    assert timings["a"].median_ms == pytest.approx(2)  # the clock's sums round
    assert timings["b"].high_ms == pytest.approx(1000)


@pytest.mark.parametrize("enabled", [True, False])
def test_no_garbage_is_collected_meanwhile_and_then_as_before(enabled: bool) -> None:
    seen = []

    def fail() -> None:
        seen.append(gc.isenabled())
        raise RuntimeError("as a case may")

    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(RuntimeError, match="as a case may"):
            measure([Case(name="a", run=fail)], 2, synchronize=lambda: None)
        assert seen == [False]
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()


@pytest.mark.parametrize(
    ("seconds", "low", "median", "high"),
    [
        ([5, 1, 4, 2, 3], 2000, 3000, 4000),
        ([4, 1, 3, 2], 1750, 2500, 3250),
        ([1, 2], 1250, 1500, 1750),
    ],
    ids=["five", "four", "two"],
)
def test_median_and_quartiles(seconds: list[float], low: float, median: float, high: float) -> None:
    assert Timing.of(seconds) == Timing(low_ms=low, median_ms=median, high_ms=high)


@pytest.mark.parametrize("power", [0.0, 1.0, 1.5, 2.0])
def test_exponent(power: float) -> None:
    sizes = [10, 40, 50, 700]
    # Logarithms round.
    assert exponent(sizes, [0.3 * size**power for size in sizes]) == pytest.approx(power, abs=1e-12)


def test_exponents_of_the_rules() -> None:
    def timing(size: Size) -> Timing:
        median = 1e-5 * size.parameters**1.25 * size.rules**0.5
        return Timing(median_ms=median, low_ms=0, high_ms=2 * median)

    in_parameters, in_rules = exponents({str(size): timing(size) for size in SIZES}).values()
    assert (in_parameters, in_rules) == pytest.approx((1.25, 0.5))  # logarithms round


@pytest.mark.parametrize("number", [24, 39, 200, 2_500])
def test_the_model_has_so_many_parameters_and_no_memory_for_them(number: int) -> None:
    names = dict(transformer(number).named_parameters())
    assert len(names) == number
    assert all(parameter.is_meta for parameter in names.values())
    assert {"backbone.encoder.layer.0.attention.query.weight", "head.classifier.bias"} < set(names)


def test_too_small_a_model_is_refused() -> None:
    with pytest.raises(ValueError, match="23 parameters are no model: at least 24"):
        transformer(23)


@pytest.mark.parametrize("size", [TINY, Size(2_500, 50)], ids=str)
def test_all_rules_match_and_each_parameter_is_in_one_group(size: Size) -> None:
    module, groups = transformer(size.parameters), rules_for(size)
    assert len(groups) == size.rules
    plan = OptimizerFactory("adamw", lr=1e-3, groups=groups).plan(module)  # raises where two conflict
    assert {rule for group in plan.groups for rule in group.made_by} == set(groups)
    held = [name for group in plan.groups for name in group.params]
    assert len(held) == size.parameters and set(held) == {name for name, _ in module.named_parameters()}
    assert any(len(group.made_by) > 2 for group in plan.groups)  # they do compose


def test_the_rules_mix_every_way_to_select() -> None:
    groups = rules_for(TINY).values()
    patterns = [rule["params"] for rule in groups if isinstance(rule.get("params"), str)]
    assert any(pattern.startswith("re:") for pattern in patterns)
    assert any(pattern.startswith("*") for pattern in patterns)
    assert any(pattern.replace(".", "").isalnum() for pattern in patterns)
    assert {"params", "classes", "kinds", "lr_scale", "weight_decay", "weight_decay_scale"} == set().union(*groups)
    assert not any("{" in str(rule[key]) for rule in groups for key in rule)


def test_no_two_of_fifty_rules_are_the_same() -> None:
    rules = [json.dumps(rule) for rule in rules_for(Size(2_500, 50)).values()]
    assert len(set(rules)) == 50


def test_the_hand_written_loop() -> None:
    module = transformer(TINY.parameters)
    patterns = patterns_for(Size(TINY.parameters, 3))
    assert patterns == [rf"encoder\.layer\.{depth}\." for depth in (0, 4, 8)]
    matched, others = first_match(module, patterns)
    assert (len(matched), len(others)) == (3 * 16, 200 - 3 * 16)


def test_the_arm_compares_plans_with_the_loop() -> None:
    cases = make_cases([TINY, Size(200, 5)], TINY)
    assert [case.name for case in cases] == ["200 × 12", "200 × 5", "hand-written 200 × 12"]
    plan, fewer, (matched, others) = (case.run() for case in cases)
    assert len(plan.groups) > len(fewer.groups) > 1
    assert len(matched) + len(others) == 200
    assert RULES.reference == f"hand-written {HEADLINE}"


@pytest.fixture
def arms(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Instead of the real arms, two that do next to nothing; returns those that made their cases."""
    made: list[str] = []

    def arm(name: str) -> Arm:
        def make_cases(device: torch.device) -> list[Case]:
            made.append(f"{name} on {device}")
            return [Case(name=f"{name}{index}", run=lambda: None) for index in range(2)]

        return Arm(
            title=f"The arm {name}",
            make_cases=make_cases,
            reference=f"{name}1",
            uses_device=True,
            findings=lambda timings: {f"cases of {name}": float(len(timings))},
        )

    monkeypatch.setattr(benchmark, "ARMS", {"steps": arm("steps"), "rules": arm("rules")})
    return made


def test_the_json_holds_what_the_table_shows(arms, tmp_path, monkeypatch, capsys) -> None:
    ticks = count()
    clock: Callable[[], float] = lambda: 0.001 * next(ticks) ** 2  # noqa: E731

    def known(cases, repeats, **options):
        return measure(cases, repeats, clock=clock, **options)

    monkeypatch.setattr(benchmark, "measure", known)
    benchmark.main(["--repeats", "3", "--json", str(tmp_path / "times.json")])
    written = json.loads((tmp_path / "times.json").read_text(encoding="utf-8"))
    assert (written["torch"], written["repeats"]) == (torch.__version__, 3)
    assert written["threads"] == torch.get_num_threads()
    assert list(written["arms"]) == ["steps", "rules"]
    lines = [[cell.strip() for cell in line.split("│")] for line in capsys.readouterr().out.splitlines()]
    for name, arm in written["arms"].items():
        assert arm["device"] and arm["reference"] == f"{name}1"
        assert [row["case"] for row in arm["rows"]] == [f"{name}0", f"{name}1"]
        assert arm["rows"][1]["ratio"] == 1
        assert arm["rows"][0]["ratio"] == arm["rows"][0]["median_ms"] / arm["rows"][1]["median_ms"]
        for row in arm["rows"]:
            assert row["low_ms"] < row["median_ms"] < row["high_ms"]
            median, low, high = (benchmark._shown(row[f"{what}_ms"]) for what in ("median", "low", "high"))
            assert ["", row["case"], median, f"{low} to {high}", f"{row['ratio']:.2f}", ""] in lines
        assert [f"cases of {name}: 2.00"] in lines and arm["findings"] == {f"cases of {name}": 2}


def test_the_json_names_no_machine(arms, tmp_path) -> None:
    benchmark.main(["steps", "--repeats", "2", "--json", str(tmp_path / "times.json")])
    written = json.loads((tmp_path / "times.json").read_text(encoding="utf-8"))
    assert set(written) == {"torch", "python", "threads", "repeats", "arms"}
    assert set(written["arms"]["steps"]) == {"title", "device", "reference", "rows", "findings"}


def test_only_the_arms_that_are_named_run_and_each_once(arms) -> None:
    benchmark.main(["rules", "rules", "--repeats", "2"])
    assert arms == ["rules on cpu"]


def test_an_arm_without_use_for_a_device_is_on_the_cpu(monkeypatch) -> None:
    seen = []

    def make_cases(device: torch.device) -> list[Case]:
        seen.append(device.type)
        return [Case(name="a", run=lambda: None)]

    arm = Arm(title="", make_cases=make_cases, reference="a", uses_device=False)
    assert benchmark.run(arm, torch.device("cuda"), 2).device == benchmark.device_name(torch.device("cpu"))
    assert seen == ["cpu"]


def test_cuda_is_waited_for(monkeypatch) -> None:
    waits = []
    monkeypatch.setattr(torch.cuda, "synchronize", waits.append)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"the GPU {device}")
    arm = Arm(title="", make_cases=lambda d: [Case(name="a", run=lambda: None)], reference="a", uses_device=True)
    assert benchmark.run(arm, torch.device("cuda"), 2).device == "the GPU cuda"
    assert waits == [torch.device("cuda")] * 2 * 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ruels"], "there is no arm 'ruels'. Did you mean 'rules'? There are: steps, rules"),
        (["rules", "x"], "there is no arm 'x'. There are: steps, rules"),
        (["--repeats", "1"], "--repeats 1: a spread needs two or more"),
        (["--device", "cuda"], "--device cuda: torch sees no CUDA device here. Type --device cpu"),
        (["--json", "nowhere/times.json"], "--json nowhere/times.json: there is no folder nowhere"),
    ],
    ids=["misspelt arm", "unknown arm", "one repeat", "no cuda", "no folder"],
)
def test_refused_before_anything_runs(arms, arguments, said, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stop:
        benchmark.main(arguments)
    assert stop.value.code == 2
    assert said in capsys.readouterr().err
    assert not arms


@pytest.mark.parametrize(
    ("milliseconds", "shown"), [(0.01234, "0.012"), (1.2345, "1.23"), (12.345, "12.3"), (1234.5678, "1,234.6")]
)
def test_numbers_are_shown_by_their_magnitude(milliseconds: float, shown: str) -> None:
    assert benchmark._shown(milliseconds) == shown


def test_a_result_is_one_table(capsys) -> None:
    rows = benchmark.rows({"a": Timing(median_ms=2, low_ms=1, high_ms=3)}, "a")
    result = benchmark.Result(title="A title", device="a device", reference="a", rows=rows, findings={})
    benchmark.show(result, Console(width=100))
    out = capsys.readouterr().out
    assert "A title" in out and "a device" in out and "ratio to a" in out
