"""The benchmark: fair measuring, correct statistics, refused arguments, its table and its JSON."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from itertools import count

import pytest
import torch
from rich.console import Console

from recipes import benchmark
from recipes.benchmarks.arm import Arm
from recipes.benchmarks.measure import Case, Timing, exponent, measure


class FakeClock:
    """Records the calls; its time advances only by the seconds that a case is given."""

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

    def read(self) -> float:
        self.log.append("clock")
        return self.now

    def runs(self) -> list[str]:
        return [event for event in self.log if event not in ("synchronize", "clock")]


def _measure(clock: FakeClock, cases: list[Case], repeats: int, **options: int) -> dict[str, Timing]:
    return measure(cases, repeats, synchronize=clock.synchronize, clock=clock.read, **options)


def _rounds(seed: int) -> list[tuple[str, ...]]:
    clock = FakeClock()
    _measure(clock, [clock.case(name) for name in "abcd"], 9, seed=seed)
    runs = clock.runs()
    return [tuple(runs[start : start + 4]) for start in range(0, len(runs), 4)]


def test_every_repeat_runs_every_case_once_in_a_new_order() -> None:
    rounds = _rounds(seed=0)
    assert len(rounds) == 10  # nine and the warm-up
    assert all(sorted(order) == list("abcd") for order in rounds)
    assert len(set(rounds)) > 5
    assert rounds == _rounds(seed=0) != _rounds(seed=1)


def test_device_is_synchronized_before_each_reading_of_the_clock() -> None:
    clock = FakeClock()
    _measure(clock, [clock.case("a")], 2)
    assert clock.log == ["synchronize", "clock", "a", "synchronize", "clock"] * 3


def test_warm_up_is_not_counted() -> None:
    clock = FakeClock()
    cases = [clock.case("a", iter([1000.0, 0.001, 0.002, 0.005])), clock.case("b", iter([1000.0, 1.0, 1.0, 1.0]))]
    timings = _measure(clock, cases, 3)
    assert list(timings) == ["a", "b"]
    assert timings["a"].median_ms == pytest.approx(2)  # the clock's sums are rounded
    assert timings["b"].high_ms == pytest.approx(1000)


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collection_is_off_while_measuring_and_restored_after_an_error(enabled: bool) -> None:
    enabled_in_case = []

    def fail() -> None:
        enabled_in_case.append(gc.isenabled())
        raise RuntimeError("expected")

    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(RuntimeError, match="expected"):
            measure([Case(name="a", run=fail)], 2, synchronize=lambda: None)
        assert enabled_in_case == [False]
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
    assert Timing.from_seconds(seconds) == Timing(low_ms=low, median_ms=median, high_ms=high)


@pytest.mark.parametrize("power", [0.0, 1.0, 1.5, 2.0])
def test_exponent(power: float) -> None:
    sizes = [10, 40, 50, 700]
    # Logarithms are rounded.
    assert exponent(sizes, [0.3 * size**power for size in sizes]) == pytest.approx(power, abs=1e-12)


@pytest.fixture
def arms(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces the real arms by two with empty cases; the list names those that have built their cases."""
    built: list[str] = []

    def arm(name: str) -> Arm:
        def make_cases(device: torch.device) -> list[Case]:
            built.append(f"{name} on {device}")
            return [Case(name=f"{name}{index}", run=lambda: None) for index in range(2)]

        return Arm(
            title=f"The arm {name}",
            make_cases=make_cases,
            reference=f"{name}1",
            uses_device=True,
            findings=lambda timings: {f"cases of {name}": float(len(timings))},
        )

    monkeypatch.setattr(benchmark, "ARMS", {"steps": arm("steps"), "rules": arm("rules")})
    return built


def test_json_has_the_numbers_of_the_table(arms, tmp_path, monkeypatch, capsys) -> None:
    ticks = count()
    clock: Callable[[], float] = lambda: 0.001 * next(ticks) ** 2  # noqa: E731

    def measure_by_fake_clock(cases, repeats, **options):
        return measure(cases, repeats, clock=clock, **options)

    monkeypatch.setattr(benchmark, "measure", measure_by_fake_clock)
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
            median, low, high = (benchmark._format_ms(row[f"{key}_ms"]) for key in ("median", "low", "high"))
            assert ["", row["case"], median, f"{low} to {high}", f"{row['ratio']:.2f}", ""] in lines
        assert [f"cases of {name}: 2.00"] in lines and arm["findings"] == {f"cases of {name}": 2}


def test_json_identifies_no_machine(arms, tmp_path) -> None:
    benchmark.main(["steps", "--repeats", "2", "--json", str(tmp_path / "times.json")])
    written = json.loads((tmp_path / "times.json").read_text(encoding="utf-8"))
    assert set(written) == {"torch", "python", "threads", "repeats", "arms"}
    assert set(written["arms"]["steps"]) == {"title", "device", "reference", "rows", "findings"}


def test_only_the_named_arms_run_and_each_once(arms) -> None:
    benchmark.main(["rules", "rules", "--repeats", "2"])
    assert arms == ["rules on cpu"]


def test_arm_that_does_not_use_the_device_runs_on_the_cpu() -> None:
    devices = []

    def make_cases(device: torch.device) -> list[Case]:
        devices.append(device.type)
        return [Case(name="a", run=lambda: None)]

    arm = Arm(title="", make_cases=make_cases, reference="a", uses_device=False)
    assert benchmark.run(arm, torch.device("cuda"), 2).device == benchmark.device_name(torch.device("cpu"))
    assert devices == ["cpu"]


def test_cuda_is_synchronized(monkeypatch) -> None:
    waits = []
    monkeypatch.setattr(torch.cuda, "synchronize", waits.append)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"the GPU {device}")
    arm = Arm(title="", make_cases=lambda d: [Case(name="a", run=lambda: None)], reference="a", uses_device=True)
    assert benchmark.run(arm, torch.device("cuda"), 2).device == "the GPU cuda"
    assert waits == [torch.device("cuda")] * 2 * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ruels"], "there is no arm 'ruels'. Did you mean 'rules'? Available: steps, rules"),
        (["rules", "x"], "there is no arm 'x'. Available: steps, rules"),
        (["--repeats", "1"], "--repeats 1: a spread needs two or more"),
        (["--device", "cuda"], "--device cuda: torch sees no CUDA device here. Type --device cpu"),
        (["--json", "nowhere/times.json"], "--json nowhere/times.json: there is no folder nowhere"),
    ],
    ids=["misspelt arm", "unknown arm", "one repeat", "no cuda", "no folder"],
)
def test_wrong_arguments_are_refused_before_anything_runs(
    arms, arguments, message, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stop:
        benchmark.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not arms


@pytest.mark.parametrize(
    ("milliseconds", "text"), [(0.01234, "0.012"), (1.2345, "1.23"), (12.345, "12.3"), (1234.5678, "1,234.6")]
)
def test_numbers_are_rounded_by_their_magnitude(milliseconds: float, text: str) -> None:
    assert benchmark._format_ms(milliseconds) == text


def test_result_is_printed_as_a_table(capsys) -> None:
    rows = benchmark.build_rows({"a": Timing(median_ms=2, low_ms=1, high_ms=3)}, "a")
    result = benchmark.Result(title="A title", device="a device", reference="a", rows=rows, findings={})
    benchmark.print_result(result, Console(width=100))
    out = capsys.readouterr().out
    assert "A title" in out and "a device" in out and "ratio to a" in out
