"""The four runs of `recipes.curves`: the event file of each shows what the README tells the reader to look for."""

from __future__ import annotations

from statistics import median
from typing import Any

import pytest
from torch.utils.tensorboard import SummaryWriter

from recipes.curves import GROUPS, RUNS, main, read_curves, train
from recipes.finetune import silence_warnings

STEPS = 40
EPS = 1e-8

Curves = dict[str, list[float]]


@pytest.fixture(scope="module")
def curves(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Curves]:
    folder = tmp_path_factory.mktemp("curves")
    silence_warnings()
    return {name: train(name, folder, STEPS) for name in RUNS}


def ratios(curves: Curves, group: str) -> list[float]:
    return curves[f"optim/ratio/update_param/{group}"]


def test_every_run_has_a_point_for_each_step(curves) -> None:
    for run in curves.values():
        assert {
            len(run[f"optim/{signal}/{group}"]) for signal in ("lr", "norm/param", "rms/exp_avg_sq") for group in GROUPS
        } == {STEPS}


@pytest.mark.parametrize("group", GROUPS)
def test_healthy_run_updates_by_a_thousandth_and_learns(curves, group) -> None:
    healthy = curves["healthy"]
    assert 1e-4 < min(ratios(healthy, group)[1:]) < median(ratios(healthy, group)) < 1e-2
    assert min(healthy[f"optim/rms/exp_avg_sq/{group}"]) > 1000 * EPS
    assert healthy[f"optim/norm/param/{group}"][-1] < 2 * healthy[f"optim/norm/param/{group}"][0]
    assert healthy["train/loss"][-1] < 0.8 * healthy["train/loss"][0]


@pytest.mark.parametrize("group", GROUPS)
def test_lr_too_high_replaces_the_weights_and_inflates_their_norm(curves, group) -> None:
    sick, healthy = curves["lr_too_high"], curves["healthy"]
    assert min(ratios(sick, group)[:10]) > 0.05
    assert ratios(sick, group)[0] > 0.9
    assert sick[f"optim/norm/param/{group}"][-1] > 100 * healthy[f"optim/norm/param/{group}"][-1]
    assert max(sick["train/loss"]) > 5 * sick["train/loss"][0]


@pytest.mark.parametrize("group", GROUPS)
def test_second_moment_near_eps_makes_the_updates_vanish(curves, group) -> None:
    sick, healthy = curves["second_moment_near_eps"], curves["healthy"]
    assert max(sick[f"optim/rms/exp_avg_sq/{group}"]) < EPS / 10
    assert median(ratios(sick, group)) < median(ratios(healthy, group)) / 20
    assert sick["train/loss"][-1] == pytest.approx(sick["train/loss"][0], rel=0.05)  # it does not fall


def test_group_that_does_not_move_has_a_far_smaller_ratio_than_the_other(curves) -> None:
    sick, healthy = curves["group_that_does_not_move"], curves["healthy"]
    assert max(ratios(sick, "backbone")) < 1e-5
    assert median(ratios(sick, "head")) > 1000 * median(ratios(sick, "backbone"))
    assert 0.3 < median(ratios(sick, "head")) / median(ratios(healthy, "head")) < 3
    # The gradient arrives; the lr is too small.
    assert min(sick["optim/norm/grad/backbone"]) > 0.1
    assert sick["optim/lr/backbone"][-1] == pytest.approx(1e-4 * sick["optim/lr/head"][-1])


def test_command_prints_a_table_and_deletes_the_curves_of_an_earlier_run(tmp_path, capsys: Any) -> None:
    for name in RUNS:
        with SummaryWriter(tmp_path / name) as writer:
            writer.add_scalar("stale", 1.0, 0)
    main(["--folder", str(tmp_path), "--steps", "3"])
    out = capsys.readouterr().out
    for name in RUNS:
        curves = read_curves(tmp_path / name)
        assert "stale" not in curves
        assert len(curves["optim/lr/head"]) == 3
        for group in GROUPS:
            assert f"| {name} | {group} |" in out
    assert out.rstrip().endswith(f"tensorboard --logdir {tmp_path}")
