"""A decay that a schedule drives: in a fit, its table and TensorBoard, under stages, after a resume, in `explain`."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger

import lightning_optim.callbacks.print_table
from lightning_optim import (
    ConfigError,
    OptimizerFactory,
    OptimizerMonitor,
    SchedulerFactory,
    StagedUnfreeze,
    configure_optimizers,
)
from lightning_optim.cli.run_length import RunLength
from lightning_optim.cli.simulate import simulate
from lightning_optim.stages.stages import claim
from tests.support.tensorboard_events import at_steps, read_curves, read_events
from tests.support.training import BATCHES, Net, StepTrace, fit

EPOCHS = 3
STEPS = BATCHES * EPOCHS
FACTORY = OptimizerFactory(
    "adamw", lr=0.01, weight_decay=0.04, groups={"no_decay": {"kinds": ["bias", "norm"], "weight_decay": 0}}
)
SCHEDULE = SchedulerFactory("warmup_cosine", warmup_steps=2, also={"weight_decay": {"name": "cosine", "final": 0.4}})
STAGES = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"epoch": 1}, "lr_scale": 0.1}}
EXPECTED = [0.4 + 0.5 * (0.04 - 0.4) * (1 + math.cos(math.pi * t / STEPS)) for t in range(STEPS)]


def configure(module: Any) -> Any:
    return configure_optimizers(module, FACTORY, SCHEDULE)


def live_decays(trainer: Any, module: Any) -> dict[str, float]:
    return {group["name"]: group["weight_decay"] for group in trainer.optimizers[0].param_groups}


def train(folder: Path, *callbacks: Any, **arguments: Any) -> tuple[list[Any], Net]:
    trace, net = StepTrace(live_decays), Net(configure)
    fit(net, folder, trace, *callbacks, epochs=EPOCHS, **arguments)
    return trace.steps, net


def read_table(folder: Path, stages: Any) -> str:
    """The table of groups as TensorBoard has it; under stages, that of the plan."""
    tag = f"optim/{'plan' if stages else 'groups'}/text_summary"
    return read_events(folder).Tensors(tag)[0].tensor_proto.string_val[0].decode()


@pytest.mark.slow
@pytest.mark.parametrize("stages", [None, STAGES], ids=["whole", "stages"])
def test_values_of_a_fit_are_the_formula_in_tensorboard_too_and_after_a_resume(tmp_path, stages) -> None:
    def callbacks() -> list[Any]:
        return [OptimizerMonitor(every_n_steps=1), *([StagedUnfreeze(stages)] if stages else [])]

    logger = TensorBoardLogger(tmp_path / "full", name="", version="")
    steps, whole = train(tmp_path, *callbacks(), save=True, logger=logger, log_every_n_steps=1)
    names = ("head", "head.no_decay") if stages else ("default", "no_decay")
    assert [step[names[0]] for step in steps] == pytest.approx(EXPECTED, rel=1e-14)
    assert {step[names[1]] for step in steps} == {0.0}
    if stages:
        assert [step["backbone"] for step in steps[BATCHES:]] == pytest.approx(EXPECTED[BATCHES:], rel=1e-14)
    curves = read_curves(tmp_path / "full")
    logged = [value for _, value in at_steps(curves[f"optim/weight_decay/{names[0]}"], range(STEPS))]
    assert logged == pytest.approx(EXPECTED, rel=1e-6)  # event files hold float32
    assert "0.04 → 0.4" in read_table(tmp_path / "full", stages)
    for at in (2, BATCHES + 1):
        logger = TensorBoardLogger(tmp_path / f"from {at}", name="", version="")
        again = {"logger": logger, "log_every_n_steps": 1, "ckpt_path": tmp_path / f"step={at}.ckpt"}
        resumed, net = train(tmp_path / "again", *callbacks(), **again)
        assert resumed == steps[at:]
        assert "0.04 → 0.4" in read_table(tmp_path / f"from {at}", stages)
        curve = read_curves(tmp_path / f"from {at}")[f"optim/weight_decay/{names[0]}"]
        assert [value for _, value in at_steps(curve, range(at, STEPS))] == logged[at:]
        assert all(map(torch.equal, net.state_dict().values(), whole.state_dict().values()))


def test_the_table_shows_both_ends_and_the_curve(monkeypatch, tmp_path) -> None:
    printed: list[str] = []
    monkeypatch.setattr(lightning_optim.callbacks.print_table, "rank_zero_info", printed.append)
    fit(Net(configure), tmp_path, epochs=1)
    assert re.search(r"default .*│ +0\.04 → 0\.4 │", printed[0]) and re.search(r"no_decay .*│ +0\.0 │", printed[0])
    assert "weight_decay: cosine over the run" in printed[0]


def test_a_stage_that_sets_what_the_schedule_drives_is_refused_unless_it_is_0(tmp_path) -> None:
    stages = {**STAGES, "backbone": {**STAGES["backbone"], "weight_decay": 0.1}}
    with pytest.raises(ConfigError, match=r"stages\.backbone\.weight_decay: the scheduler drives it .*rule"):
        train(tmp_path, StagedUnfreeze(stages))
    zero = {**STAGES, "backbone": {**STAGES["backbone"], "weight_decay": 0}}
    steps, _ = train(tmp_path, StagedUnfreeze(zero))
    assert {step["backbone"] for step in steps[BATCHES:]} == {0.0}


@pytest.mark.parametrize("stages", [None, STAGES], ids=["whole", "stages"])
def test_explain_simulates_and_draws_it(tmp_path, stages) -> None:
    from lightning_optim.cli.draw import draw

    net = Net(configure)
    length = RunLength(max_epochs=EPOCHS, max_steps=math.inf, steps_per_epoch=BATCHES)
    claimed = claim(StagedUnfreeze(stages).stages, net) if stages else ()
    simulation = simulate(net, FACTORY, SCHEDULE, claimed, length=length)
    curves = {curve.group: curve.also["weight_decay"] for curve in simulation.curves}
    steps, _ = train(tmp_path, *([StagedUnfreeze(stages)] if stages else []))
    for name, values in curves.items():
        assert [value for value in values if not math.isnan(value)] == [step[name] for step in steps if name in step]
    draw(simulation, tmp_path / "plot.svg")
    texts = re.findall(r"<text [^>]*>([^<]*)</text>", (tmp_path / "plot.svg").read_text(encoding="utf-8"))
    assert "weight_decay" in texts and "0.4" in texts
