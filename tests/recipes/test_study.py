"""The study: the lr is chosen inside a grid, intervals are right, and an interrupted study goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from lightning_optim import ConfigError
from recipes import study
from recipes.finetune import finetune
from recipes.studies import run as study_run
from recipes.studies.choose_lr import best_lr, choose_lrs, lr_at
from recipes.studies.design import ARMS, OPTIMIZERS, TASKS, build_overrides, find_arms
from recipes.studies.peak_memory import peak_since, reset_peak
from recipes.studies.records import Measured, Run
from recipes.studies.report import Cell, Final, draw, format_table
from recipes.studies.results import Results
from recipes.studies.run import measure
from recipes.studies.statistics import mean_interval, paired_difference
from tests.support.cases import every
from tests.support.equality import equal
from tests.support.processes import ROOT

RUN = Run(("optimizer.lr=1",), "val")


def measured(accuracy: float) -> Measured:
    return Measured(accuracy, wall_s=1.0, cpu_s=2.0, peak_mb=3.0)


# Choosing the lr


def test_the_grid_is_widened_until_the_best_is_inside() -> None:
    best = {"low": 1e-5, "middle": 1e-2, "high": 3.0}
    asked = []

    def evaluate(wanted):
        asked.append(wanted)
        return [-abs(np.log10(lr / best[cell])) for cell, lr in wanted]

    searched = choose_lrs(dict.fromkeys(best, 1e-2), evaluate)
    assert {cell: best_lr(by_lr) for cell, by_lr in searched.items()} == best
    assert list(searched["low"]) == [3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]
    assert list(searched["middle"]) == [3e-3, 1e-2, 3e-2]
    assert sum(asked, []) == list(dict.fromkeys(sum(asked, [])))  # nothing is asked for twice


def test_an_accuracy_that_rises_for_ever_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="the best lr is at the edge of the grid after 8 rounds"):
        choose_lrs({"cell": 1e-2}, lambda wanted: [lr for _, lr in wanted])


def test_of_equal_lrs_one_inside_is_taken_then_the_lowest() -> None:
    assert best_lr({0.1: 0.5, 0.3: 0.5, 1.0: 0.5, 3.0: 0.5}) == 0.3
    assert best_lr({0.1: 0.5, 0.3: 0.4, 1.0: 0.5}) == 0.1
    assert [lr_at(index) for index in (-3, -2, -1, 0, 1, 2)] == [0.03, 0.1, 0.3, 1.0, 3.0, 10.0]


# Statistics


def test_intervals_are_students() -> None:
    interval = mean_interval([1.0, 2.0, 3.0, 4.0])
    # 3.182446 is the quantile of t with three degrees of freedom, 1.290994 the standard deviation.
    assert (interval.mean, interval.half_width) == (2.5, pytest.approx(3.182446 * 1.290994 / 2, rel=1e-5))
    assert (interval.low + interval.high) / 2 == 2.5


def test_nineteen_of_twenty_intervals_hold_the_mean() -> None:
    samples = np.random.default_rng(0).normal(size=(2000, 5))
    intervals = [mean_interval(sample.tolist()) for sample in samples]
    # 2000 trials of probability 0.95 have a standard deviation of 0.005.
    assert np.mean([interval.low < 0 < interval.high for interval in intervals]) == pytest.approx(0.95, abs=0.015)


def test_paired_differences_have_no_spread_that_seeds_share() -> None:
    difference = paired_difference([1.5, 11.5, 21.75], [1.0, 11.0, 21.0])
    assert difference.mean == pytest.approx(0.583333, rel=1e-5) and difference.half_width < 0.5


# Results


def test_an_interrupted_study_goes_on_where_it_was(tmp_path) -> None:
    file, runs = tmp_path / "study" / "digits.jsonl", [Run((f"seed={seed}",), "test") for seed in range(4)]
    done = []

    def stop_at_third(run):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(run)
        return measured(len(done) / 10)

    with pytest.raises(KeyboardInterrupt):
        Results(file, 0, stop_at_third).get(runs)
    with file.open("a") as lines:
        lines.write('{"split": "test", "overr')  # as a kill leaves it
    again = []
    results = Results(file, 0, lambda run: again.append(run) or measured(0.9)).get([*runs, runs[0]])
    assert again == runs[2:]
    assert [result.accuracy for result in results] == [0.1, 0.2, 0.9, 0.9, 0.1]
    assert len([json.loads(line) for line in file.read_text().splitlines()]) == 4


def test_a_line_that_is_no_result_is_an_error(tmp_path) -> None:
    (tmp_path / "digits.jsonl").write_text('{"split": "test"}\n{}\n')
    with pytest.raises(ConfigError, match=r"digits\.jsonl: line 1 is not a result of this study"):
        Results(tmp_path / "digits.jsonl", 0)


@pytest.mark.slow
def test_a_worker_has_one_thread_and_ends_with_the_study(tmp_path) -> None:
    command = [sys.executable, "-m", "tests.support.runs.study", str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "2"}, stdout=subprocess.PIPE)
    while not (tmp_path / "worker").exists():
        assert process.poll() is None
        time.sleep(0.02)
    assert (tmp_path / "worker").read_text() == "1 thread"
    process.kill()
    process.communicate(timeout=60)  # until both have ended, as both may print


# The design


DEPTH = {"layer_decay": 0.75}
RULES = {
    "full, backbone at lr/10": {"backbone": {"params": "backbone", "lr_scale": 0.1}},
    "LoRA": {"base": {"kinds": ["frozen"], "frozen": True}},
}
"""By arm: its rules beside the one that all have."""


@pytest.mark.slow
@pytest.mark.parametrize("task", every(TASKS, fast=["text"]))
def test_every_arm_composes_and_has_a_place_to_begin(task) -> None:
    arms, every_override = [arm for arm in ARMS if task in arm.tasks], set()
    for arm, optimizer in [*((arm, "adamw") for arm in arms), *((arms[1], optimizer) for optimizer in OPTIMIZERS)]:
        overrides = build_overrides(task, arm, optimizer, 1e-3, 5)
        with initialize_config_dir(str(ROOT / "recipes" / "conf"), version_base="1.3"):
            config = compose("finetune", overrides)
        assert (config.optimizer.lr, config.seed) == (1e-3, 5)
        assert bool(config.unfreeze) == (arm.is_staged or arm.name == "head only")
        assert TASKS[task].first_lr[optimizer] * TASKS[task].lr_factors[arm.name] > 0
        groups = OmegaConf.to_container(config.optimizer.groups)
        assert groups.pop("no_decay") == {"kinds": ["bias", "norm"], "weight_decay": 0}
        assert groups == RULES.get(arm.name, {}) | ({"depth": {**DEPTH, "layers": TASKS[task].layers.strip('"')}}
            if arm.name == "staged, layer decay" else {})  # fmt: skip
        assert config.task.get("lora_rank") == (8 if arm.name == "LoRA" else None)
        every_override.add(tuple(overrides))
    assert len(every_override) == len(arms) + len(OPTIMIZERS) - 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_a_run_evaluates_its_split_and_head_only_leaves_the_backbone_as_it_was_pretrained(monkeypatch) -> None:
    fits = []

    def record(config, run_dir, pretrained):
        fits.append((finetune(config, run_dir, pretrained), pretrained))
        return fits[-1][0]

    monkeypatch.setattr(study_run, "finetune", record)
    (head_only,) = (arm for arm in find_arms("digits") if arm.name == "head only")
    short = ["pretrain.max_epochs=1", "trainer.max_epochs=2", "task.labels_per_class=2", "task.pretrain_batch_size=500"]
    overrides = (*build_overrides("digits", head_only, "adamw", 3e-3, 0), *short)
    splits = ("val", "test")
    results = [measure(Run(overrides, split)) for split in splits]
    for split, result, ((trainer, module, data), pretrained) in zip(splits, results, fits, strict=True):
        evaluate = trainer.validate if split == "val" else trainer.test
        assert result.accuracy == evaluate(module, data, verbose=False)[0][f"{split}/accuracy"]
        assert result.cpu_s > 0 and result.wall_s > 0 and (result.peak_mb is None) == (reset_peak() is None)
        assert equal(module.backbone.state_dict(), pretrained.backbone.state_dict())
    assert results[0].accuracy != results[1].accuracy and fits[0][1] is fits[1][1]


def test_a_pretrained_network_is_shared_by_runs_of_its_seed_and_data() -> None:
    overrides = build_overrides("digits", ARMS[1], "adamw", 3e-3, 7)
    kept = [part for part in overrides if study_run._is_of_pretraining(part)]
    assert {"task=digits", "seed=7"} < set(kept)
    assert not [part for part in kept if "optimizer" in part or "unfreeze" in part]


def test_the_clock_counts_the_fit_and_all_its_threads(monkeypatch) -> None:
    clocks = SimpleNamespace(perf_counter=iter([10.0, 13.0]).__next__, process_time=iter([1.0, 6.0]).__next__)
    monkeypatch.setattr(study_run, "time", clocks)
    clock = study_run.FitClock()
    clock.on_fit_start(None, None)
    clock.on_fit_end(None, None)
    assert (clock.wall_s, clock.cpu_s) == (3.0, 5.0)


@pytest.mark.slow
def test_peak_memory_is_that_of_the_part() -> None:
    if (start := reset_peak()) is None:
        pytest.skip("needs Linux")
    block = np.ones(12_000_000)
    del block
    assert 95 < peak_since(start) < 108  # MB: 96 and a little
    assert peak_since(reset_peak()) < 20


# The command


def test_the_command_chooses_tests_and_prints(tmp_path, monkeypatch, capsys) -> None:
    """With accuracies that depend on the config only: the best lr is 0.01, and the full arm is worse by 0.1."""

    def accuracy_of(run: Run) -> Measured:
        config = dict(override.split("=", 1) for override in run.overrides if "=" in override)
        off = abs(np.log10(float(config["optimizer.lr"]) / 0.01)) / 10
        return measured(0.7 - off - 0.1 * ("unfreeze=none" in run.overrides) + int(config["seed"]) / 1000)

    monkeypatch.setattr(study, "Results", lambda file, workers: Results(file, 0, accuracy_of))
    arguments = ["digits", "--seeds", "3", "--optimizers", "adamw", "--arms", "full", "staged"]
    study.main([*arguments, "--folder", str(tmp_path), "--plot", str(tmp_path / "study.png")])
    out = capsys.readouterr().out
    assert "adamw, staged: 0.003: 0.749, 0.01: 0.801, 0.03: 0.753" in out and out.count("chosen 0.01") == 2
    assert "| adamw | full | 0.01 | 0.601 | 0.599 to 0.603 |  | 2.0 | 3 |" in out
    assert "| adamw | staged | 0.01 | 0.701 | 0.699 to 0.703 | +0.100 ± 0.000 | 2.0 | 3 |" in out
    lines = [json.loads(line) for line in (tmp_path / "digits.jsonl").read_text().splitlines()]
    assert {line["split"] for line in lines if "seed=0" in line["overrides"]} == {"test"}
    assert {line["split"] for line in lines if "seed=100" in line["overrides"]} == {"val"}
    assert (tmp_path / "study.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digit"], "invalid choice: 'digit'"),
        (["digits", "--arms", "stage"], "there is no arm 'stage'. Did you mean 'staged'?"),
        (["digits", "--optimizers", "adam"], "there is no optimizer 'adam'. Did you mean 'adamw'?"),
        (["digits", "--plot", "nowhere/plot.png"], "there is no folder nowhere"),
    ],
    ids=["task", "arm", "optimizer", "plot"],
)
def test_wrong_arguments_are_refused(arguments, message, capsys) -> None:
    with pytest.raises(SystemExit):
        study.main(arguments)
    assert message in capsys.readouterr().err


def test_a_cell_without_runs_is_left_out_of_the_picture(tmp_path) -> None:
    finals = {
        Cell("full", "adamw"): Final(1e-3, [measured(0.5), measured(0.6)]),
        Cell("staged", "sgd"): Final(1e-2, [measured(0.6), measured(0.7)]),
    }
    draw(finals, "accuracy", tmp_path / "plot.svg")
    assert "minus 'full'" in format_table(finals) and (tmp_path / "plot.svg").exists()
