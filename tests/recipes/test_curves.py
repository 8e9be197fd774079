"""The six runs of `recipes.curves`: the event file of each shows what docs/curves.md tells the reader to look for."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from torch.utils.tensorboard import SummaryWriter

import recipes
from lightning_optim.report.find_runs import find_runs
from lightning_optim.report.page import Checked, check_run
from lightning_optim.report.read_run import read_run
from lightning_optim.report.sicknesses import RULES
from recipes.curves import FIRST_NAN_STEP, GROUPS, RUNS, main, read_curves, train
from recipes.finetune import finetune, pretrain, silence_warnings

STEPS = 40
EPS = 1e-8

Curves = dict[str, list[float]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("curves")


class Trained(dict[str, Curves]):
    """The curves of each run, which is trained when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __missing__(self, name: str) -> Curves:
        silence_warnings()  # pytest restores the filters after each test
        self[name] = train(name, self.folder, STEPS)
        return self[name]


@pytest.fixture(scope="module")
def curves(folder: Path) -> Trained:
    return Trained(folder)


def check(run: Path) -> Checked:
    (files,) = find_runs([run])
    return check_run(read_run(files), RULES)


def ratios(curves: Curves, group: str) -> list[float]:
    return curves[f"optim/ratio/update_param/{group}"]


@pytest.mark.slow
def test_every_run_has_a_point_for_each_step(curves) -> None:
    for run in map(curves.__getitem__, RUNS):
        assert {len(run[f"optim/{signal}/{group}"]) for signal in ("lr", "norm/param") for group in GROUPS} == {STEPS}
        assert len(run["optim/rms/exp_avg_sq/head"]) == STEPS


@pytest.mark.slow
def test_the_report_names_the_mistake_of_each_run_and_is_silent_on_the_healthy_one(curves, folder) -> None:
    found = {}
    for name in RUNS:
        assert curves[name]
        checked = check(folder / name)
        found[name] = {one.rule: one.step for one in reversed(checked.findings)}
        assert checked.unchecked == {}
    assert found == {
        "healthy": {},
        "lr_too_high": {"lr_too_high": 0},
        "second_moment_near_eps": {"second_moment_near_eps": 0},
        "no_gradient": {"no_gradient": 0},
        "group_that_does_not_move": {"does_not_move": 0},
        "nonfinite": {"nonfinite": FIRST_NAN_STEP},
    }
    (first, *_) = check(folder / "nonfinite").findings
    assert first.text == "nonfinite is 1: head.1.bias"


@pytest.mark.slow
def test_the_report_is_the_same_where_groups_are_runs_of_their_own(tmp_path) -> None:
    silence_warnings()
    curves = {}
    for overlay in ("false", "true"):
        name = "group_that_does_not_move"
        curves[overlay] = train(name, tmp_path / overlay, STEPS, [f"monitor.overlay={overlay}"])
        (found,) = check(tmp_path / overlay / name).findings
        assert (found.rule, found.group) == ("does_not_move", "backbone")
    assert (tmp_path / "true" / name / "optim" / "backbone").is_dir()
    assert curves["false"] == curves["true"]


HEALTHY_RUNS = {
    "in stages": ["optimizer=adamw", "optimizer.lr=3e-3", "scheduler=warmup_cosine", "scheduler.warmup_steps=10"],
    "layer by layer": [
        "optimizer=adamw_llrd",
        "optimizer.lr=1e-2",
        "unfreeze=none",
        "optimizer.groups.depth.layers='backbone.{i}'",
    ],
    "lion": ["optimizer=lion", "optimizer.lr=1e-3", "unfreeze=none"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HEALTHY_RUNS)
def test_the_report_is_silent_on_other_healthy_runs(tmp_path, name) -> None:
    silence_warnings()
    overrides = ["monitor.update_norm=true", "trainer.enable_progress_bar=false", *HEALTHY_RUNS[name]]
    with initialize_config_dir(str(Path(recipes.__file__).parent / "conf"), version_base="1.3"):
        config = compose("finetune", overrides)
    finetune(config, tmp_path, pretrain(config, None))
    (run,) = find_runs([tmp_path])
    loss = read_run(run).losses["train/loss"].values
    assert median(loss[-20:]) < 0.8 * median(loss[:5])
    assert check(tmp_path).findings == [] and check(tmp_path).unchecked == {}


@pytest.mark.parametrize("group", GROUPS)
def test_healthy_run_updates_by_a_thousandth_and_learns(curves, group) -> None:
    healthy = curves["healthy"]
    assert 1e-4 < min(ratios(healthy, group)[1:]) < median(ratios(healthy, group)) < 1e-2
    assert min(healthy[f"optim/rms/exp_avg_sq/{group}"]) > 1000 * EPS
    assert healthy[f"optim/norm/param/{group}"][-1] < 2 * healthy[f"optim/norm/param/{group}"][0]
    assert healthy["train/loss"][-1] < 0.8 * healthy["train/loss"][0]


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_lr_too_high_replaces_the_weights_and_inflates_their_norm(curves, group) -> None:
    sick, healthy = curves["lr_too_high"], curves["healthy"]
    assert min(ratios(sick, group)[:10]) > 0.05
    assert ratios(sick, group)[0] > 0.9
    assert sick[f"optim/norm/param/{group}"][-1] > 100 * healthy[f"optim/norm/param/{group}"][-1]
    assert max(sick["train/loss"]) > 5 * sick["train/loss"][0]


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_second_moment_near_eps_makes_the_updates_vanish(curves, group) -> None:
    sick, healthy = curves["second_moment_near_eps"], curves["healthy"]
    assert max(sick[f"optim/rms/exp_avg_sq/{group}"]) < EPS / 10
    assert median(ratios(sick, group)) < median(ratios(healthy, group)) / 20
    assert sick["train/loss"][-1] == pytest.approx(sick["train/loss"][0], rel=0.05)  # it does not fall


@pytest.mark.slow
def test_group_that_does_not_move_has_a_far_smaller_ratio_than_the_other(curves) -> None:
    sick, healthy = curves["group_that_does_not_move"], curves["healthy"]
    assert max(ratios(sick, "backbone")) < 1e-5
    assert median(ratios(sick, "head")) > 1000 * median(ratios(sick, "backbone"))
    assert 0.3 < median(ratios(sick, "head")) / median(ratios(healthy, "head")) < 3
    # The gradient arrives; the lr is too small.
    assert min(sick["optim/norm/grad/backbone"]) > 0.1
    assert sick["optim/lr/backbone"][-1] == pytest.approx(1e-4 * sick["optim/lr/head"][-1])


@pytest.mark.slow
def test_a_detached_backbone_gets_no_gradient_and_has_no_state(curves) -> None:
    sick = curves["no_gradient"]
    assert set(sick["optim/norm/grad/backbone"]) == set(sick["optim/state_mib/backbone"]) == {0.0}
    assert "optim/rms/exp_avg_sq/backbone" not in sick
    assert min(sick["optim/norm/grad/head"]) > 0.1 and sick["train/loss"][-1] < sick["train/loss"][0]


@pytest.mark.slow
def test_a_nan_shows_first_in_the_group_where_it_begins(curves) -> None:
    sick = curves["nonfinite"]
    assert [sick[f"optim/nonfinite/{group}"][FIRST_NAN_STEP] for group in GROUPS] == [0, 1]
    assert [sick[f"optim/nonfinite/{group}"][FIRST_NAN_STEP + 1] for group in GROUPS] == [9, 2]
    assert max(sick["optim/nonfinite/all"][:FIRST_NAN_STEP]) == 0


@pytest.mark.slow
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
    assert f"lightning-optim report {tmp_path} --out report.html" in out
    assert out.rstrip().endswith(f"tensorboard --logdir {tmp_path}")
