"""The benchmark's arm `monitor`: each case does what its name says, on the same optimizer."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch

from recipes import benchmark
from recipes.benchmarks import monitor as arm
from recipes.benchmarks.measure import Case, Timing
from recipes.benchmarks.monitor import LARGE, MONITOR, NUM_STEPS, SMALL, Fit, Size, make_cases
from tests.support.tensorboard_events import read_curves

CPU = torch.device("cpu")
TINY, TINIER = Size(2, 16, 2, 32), Size(1, 8, 2, 16)
GROUPS = ("default", "no_decay")


@pytest.fixture
def fit() -> Fit:
    return Fit(TINY, CPU)


def written_curves(fit: Fit) -> dict[str, list[tuple[int, float]]]:
    """The points that each curve got after the fit, from all event files of its folder."""
    logger = fit.trainer.loggers[0]
    fit.flush()
    found = {
        tag: [point for point in points if point[0] > 0] for tag, points in read_curves(Path(logger.log_dir)).items()
    }
    return {tag: points for tag, points in found.items() if points}


@pytest.mark.parametrize("size", [TINY, TINIER], ids=str)
def test_size_computes_its_number_of_parameters(size: Size) -> None:
    assert size.parameters == sum(p.numel() for p in Fit(size, CPU).module.parameters())


def test_sizes_are_85_and_11_million_parameters() -> None:
    assert (str(LARGE), str(SMALL)) == ("85.1 M", "11.1 M")
    assert SMALL.parameters >= 10_000_000


def test_optimizer_is_fused_adamw_with_state_and_gradients(fit: Fit) -> None:
    assert type(fit.optimizer) is torch.optim.AdamW
    assert [(g["name"], g["fused"], g["weight_decay"] > 0) for g in fit.optimizer.param_groups] == [
        ("default", True, True),
        ("no_decay", True, False),
    ]
    for parameter in fit.module.parameters():
        assert parameter.grad is not None and parameter.grad.norm() > 0
        assert set(fit.optimizer.state[parameter]) == {"step", "exp_avg", "exp_avg_sq"}


def test_optimizer_step_runs_without_the_monitor(fit: Fit) -> None:
    before = [parameter.clone() for parameter in fit.module.parameters()]
    fit.optimizer.step()
    assert not any(torch.equal(old, new) for old, new in zip(before, fit.module.parameters(), strict=True))
    assert not written_curves(fit)


def test_logged_step_writes_all_default_telemetry(fit: Fit) -> None:
    run = fit.hook_calls(fit.monitor)
    run()
    run()
    written = written_curves(fit)
    for group in (*GROUPS, "all"):
        for signal in ("norm/grad", "norm/param", "norm/exp_avg", "norm/exp_avg_sq", "rms/exp_avg_sq"):
            assert [step for step, _ in written[f"optim/{signal}/{group}"]] == [1, 2]
    squares = sum(p.grad.square().sum() for p in fit.module.parameters())
    # TensorBoard stores float32.
    assert written["optim/norm/grad/all"][0][1] == pytest.approx(float(squares) ** 0.5, rel=1e-5)


def test_unlogged_steps_write_nothing(fit: Fit) -> None:
    fit.hook_calls(fit.monitor, num_steps=5, log_every=10**9)()
    assert not written_curves(fit)
    assert fit.trainer.fit_loop.epoch_loop._batches_that_stepped == 6


def test_alternatives_write_their_own_metrics_and_do_not_run_the_monitor(fit: Fit) -> None:
    fit.hook_calls(fit.lr_monitor)()
    assert set(written_curves(fit)) == {f"lr-AdamW/{group}" for group in GROUPS}
    fit.hook_calls(arm._ModuleHook())()
    names = [name for name, _ in fit.module.trunk.named_parameters()]
    gradient_norms = {f"grad_2.0_norm/{name}" for name in names} | {"grad_2.0_norm_total", "epoch"}
    assert set(written_curves(fit)) == gradient_norms | {f"lr-AdamW/{group}" for group in GROUPS}


def test_naive_norms_equal_those_of_the_monitor(fit: Fit) -> None:
    fit.hook_calls(fit.monitor)()
    fit.hook_calls(arm._NaiveNorms())()
    written = written_curves(fit)
    for group in GROUPS:
        for signal in ("grad", "param", "exp_avg", "exp_avg_sq"):
            (_, ours), (_, naive) = written[f"optim/norm/{signal}/{group}"][0], written[f"{signal}/{group}"][0]
            assert naive == pytest.approx(ours, rel=1e-5)  # float32, summed in another order


@pytest.mark.slow
def test_folder_is_deleted_with_the_last_case() -> None:
    fit = Fit(TINIER, CPU)
    run, folder = fit.hook_calls(fit.monitor), Path(fit.trainer.default_root_dir)
    del fit
    run()
    assert folder.is_dir()
    del run
    gc.collect()
    assert not folder.exists()


@pytest.mark.slow
def test_all_cases_run_and_the_findings_are_ratios_of_their_medians(monkeypatch) -> None:
    monkeypatch.setattr(arm, "LARGE", TINY)
    monkeypatch.setattr(arm, "SMALL", TINIER)
    monkeypatch.setattr(arm, "MANY_GROUPS", TINY)
    cases = make_cases(CPU, TINY, TINIER, TINY)
    for case in cases:
        case.run()
    medians = [4, 5, 2, 1, 6, 3, 10, 20, 4, 5, 2, 6, 8, 9, 4, 3]
    timings = {
        case.name: Timing(median_ms=median, low_ms=0, high_ms=0) for case, median in zip(cases, medians, strict=True)
    }
    of_steps, of_layouts = [5 / 4, (5 - 4) / 4, 20 / 10, (6 - 2) / 2], [4 / 8, 3 / 9]
    assert list(MONITOR.findings(timings).values()) == [*of_steps, *of_layouts, 1e3 * 2 / NUM_STEPS]


def test_benchmark_runs_the_arm(monkeypatch, capsys) -> None:
    assert benchmark.ARMS["monitor"] is MONITOR and MONITOR.uses_device
    of_size = (arm._step_case, arm._telemetry_case, arm._own_step_case, arm._logged_own_step_case)
    names = [arm._UNLOGGED_CASE, *(name(size) for size in (LARGE, SMALL) for name in of_size)]
    names += [name(overlay) for overlay in (False, True) for name in (arm._layout_case, arm._on_disk_case)]
    devices = []

    def make_tiny_cases(device: torch.device) -> list[Case]:
        devices.append(device.type)
        return [Case(name=name, run=lambda: None) for name in names]

    monkeypatch.setitem(benchmark.ARMS, "monitor", arm.Arm(**{**vars(MONITOR), "make_cases": make_tiny_cases}))
    benchmark.main(["monitor", "--repeats", "2"])
    assert devices == ["cpu"]
    assert "a logged step's telemetry / a step of our AdamW as a kernel, 85.1 M" in capsys.readouterr().out
