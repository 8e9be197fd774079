"""The four runs to read curves by: each shows, in its event file, what the README tells the reader to look for."""

from __future__ import annotations

from statistics import median
from typing import Any

import pytest

from recipes.curves import GROUPS, RUNS, main, read, train
from recipes.finetune import quiet

STEPS = 40
EPS = 1e-8

Curves = dict[str, list[float]]


@pytest.fixture(scope="module")
def curves(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Curves]:
    folder = tmp_path_factory.mktemp("curves")
    quiet()
    for name in RUNS:
        train(name, folder, STEPS)
    return {name: read(folder / name) for name in RUNS}


def ratio(curves: Curves, group: str) -> list[float]:
    return curves[f"optim/ratio/update_param/{group}"]


def test_every_run_has_every_point(curves) -> None:
    for found in curves.values():
        assert {len(found[f"optim/{s}/{g}"]) for s in ("lr", "norm/param", "rms/exp_avg_sq") for g in GROUPS} == {STEPS}


@pytest.mark.parametrize("group", GROUPS)
def test_healthy_moves_by_a_thousandth_or_so_and_learns(curves, group) -> None:
    healthy = curves["healthy"]
    assert 1e-4 < min(ratio(healthy, group)[1:]) < median(ratio(healthy, group)) < 1e-2
    assert min(healthy[f"optim/rms/exp_avg_sq/{group}"]) > 1000 * EPS
    assert healthy[f"optim/norm/param/{group}"][-1] < 2 * healthy[f"optim/norm/param/{group}"][0]
    assert healthy["train/loss"][-1] < 0.8 * healthy["train/loss"][0]


@pytest.mark.parametrize("group", GROUPS)
def test_lr_too_high_replaces_the_weights_at_first_and_blows_them_up(curves, group) -> None:
    sick, healthy = curves["lr_too_high"], curves["healthy"]
    assert min(ratio(sick, group)[:10]) > 0.05
    assert ratio(sick, group)[0] > 0.9
    assert sick[f"optim/norm/param/{group}"][-1] > 100 * healthy[f"optim/norm/param/{group}"][-1]
    assert max(sick["train/loss"]) > 5 * sick["train/loss"][0]


@pytest.mark.parametrize("group", GROUPS)
def test_second_moment_near_eps_takes_the_updates_away(curves, group) -> None:
    sick, healthy = curves["second_moment_near_eps"], curves["healthy"]
    assert max(sick[f"optim/rms/exp_avg_sq/{group}"]) < EPS / 10
    assert median(ratio(sick, group)) < median(ratio(healthy, group)) / 20
    assert sick["train/loss"][-1] == pytest.approx(sick["train/loss"][0], rel=0.05)  # it stays where it began


def test_group_that_does_not_move_stands_apart_from_the_other(curves) -> None:
    sick, healthy = curves["group_that_does_not_move"], curves["healthy"]
    assert max(ratio(sick, "backbone")) < 1e-5
    assert median(ratio(sick, "head")) > 1000 * median(ratio(sick, "backbone"))
    assert 0.3 < median(ratio(sick, "head")) / median(ratio(healthy, "head")) < 3
    # Its gradient is there: it is the lr that is not.
    assert min(sick["optim/norm/grad/backbone"]) > 0.1
    assert sick["optim/lr/backbone"][-1] == pytest.approx(1e-4 * sick["optim/lr/head"][-1])


def test_prints_a_table_and_leaves_no_curves_of_a_run_before(tmp_path, capsys: Any) -> None:
    for _ in range(2):
        main(["--folder", str(tmp_path), "--steps", "3"])
    out = capsys.readouterr().out
    for name in RUNS:
        assert len(read(tmp_path / name)["optim/lr/head"]) == 3
        for group in GROUPS:
            assert f"| {name} | {group} |" in out
    assert out.rstrip().endswith(f"tensorboard --logdir {tmp_path}")
