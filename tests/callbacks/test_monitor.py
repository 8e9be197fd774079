"""OptimizerMonitor: what it logs for a step, at which steps, under which tags, and to which loggers.

On several ranks: `test_ddp.py` and `test_sharded.py`.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import nn

from lightning_optim import (
    ConfigError,
    OptimizerFactory,
    OptimizerMonitor,
    RNGState,
    SchedulerFactory,
    StagedUnfreeze,
    configure_optimizers,
    list_optimizers,
    optimizer_info,
)
from tests.support.cases import every
from tests.support.tensorboard_events import at_steps, fit_with_events, from_step, read_curves, read_events, read_texts
from tests.support.training import BATCHES, Net, StepTrace, fit

PLAN = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"epoch": 1}, "lr_scale": 0.1}}
GROUPS = {"no_decay": {"kinds": ["bias"], "weight_decay": 0.0}, "head": {"params": "head", "lr_scale": 2}}


def configured(name: str = "adamw", scheduler: Any = None, **arguments: Any) -> Any:
    factory = OptimizerFactory(name, lr=0.01, **arguments)
    return lambda module: configure_optimizers(module, factory, scheduler)


def norm(tensors: Any) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))


@pytest.mark.parametrize(
    "name",
    every(
        [n for n in list_optimizers() if n not in ("lbfgs", "sparse_adam") and not optimizer_info(n).matrices_only],
        # One of each kind of state: two moments, factored, one momentum, scalars, a value per block, a saved point.
        fast=["adamw", "adafactor", "signum", "prodigy", "adam_mini", "extra_adam"],
    ),
)
def test_norms_equal_a_float64_computation(tmp_path, name) -> None:
    def read(trainer: Any, module: Any) -> dict[str, float]:
        optimizer, norms = trainer.optimizers[0], {}
        for group in optimizer.param_groups:
            signals = defaultdict(list)
            for p in group["params"]:
                signals["grad"].append(p.grad)
                signals["param"].append(p.detach())
                for key, value in optimizer.state[p].items():
                    if isinstance(value, torch.Tensor) and value.shape != ():
                        signals[key].append(value)
            norms |= {f"optim/norm/{signal}/{group['name']}": norm(tensors) for signal, tensors in signals.items()}
        return norms

    trace = StepTrace(read)
    module = Net(configured(name, groups={"head": GROUPS["head"]}))
    curves = fit_with_events(tmp_path, module, OptimizerMonitor(), trace, epochs=2)
    tags = {tag for tag in curves if tag.startswith("optim/norm/") and not tag.endswith("/all")}
    assert tags == set(trace.steps[0])
    for tag in tags:
        assert [step for step, _ in curves[tag]] == list(range(2 * BATCHES))
        # Relative, for float32 sums; event files hold float32 as well.
        assert [v for _, v in curves[tag]] == pytest.approx([norms[tag] for norms in trace.steps], rel=1e-5, abs=1e-30)


def test_all_is_the_norm_over_every_group(tmp_path) -> None:
    curves = fit_with_events(tmp_path, Net(configured(groups=GROUPS)), OptimizerMonitor())
    parts = [
        values for tag, values in curves.items() if tag.startswith("optim/norm/grad/") and not tag.endswith("/all")
    ]
    assert len(parts) == 4
    for (_, total), *points in zip(curves["optim/norm/grad/all"], *parts, strict=True):
        assert total == pytest.approx(math.sqrt(sum(value**2 for _, value in points)), rel=1e-6)


def test_hyperparameters_are_those_of_the_step(tmp_path) -> None:
    trace = StepTrace(lambda trainer, _: [dict(g, params=None) for g in trainer.optimizers[0].param_groups])
    scheduler = SchedulerFactory("one_cycle")
    curves = fit_with_events(tmp_path, Net(configured(scheduler=scheduler, groups=GROUPS)), OptimizerMonitor(), trace)
    for number, name in enumerate(["default", "no_decay", "head", "head.no_decay"]):
        for signal, value in {
            "lr": lambda g: g["lr"],
            "weight_decay": lambda g: g["weight_decay"],
            "beta1": lambda g: g["betas"][0],
            "beta2": lambda g: g["betas"][1],
        }.items():
            expected = [(t, torch.tensor(value(groups[number])).item()) for t, groups in enumerate(trace.steps)]
            assert at_steps(curves[f"optim/{signal}/{name}"], range(4 * BATCHES)) == expected
        assert curves[f"optim/step/{name}"] == [(t, t + 1.0) for t in range(4 * BATCHES)]


@pytest.mark.parametrize("accumulate", [2, 3])
def test_there_is_one_point_per_optimizer_step_where_lightning_logs_its_metrics(tmp_path, accumulate) -> None:
    curves = fit_with_events(tmp_path, Net(configured()), OptimizerMonitor(), accumulate_grad_batches=accumulate)
    steps = [step for step, _ in curves["loss"]]
    assert steps == list(range(4 * -(-BATCHES // accumulate)))
    assert [step for step, _ in curves["optim/lr/default"]] == steps


@pytest.mark.parametrize(
    ("own", "trainers"), [(None, 3), (5, 1)], ids=["log_every_n_steps of the trainer", "every_n_steps"]
)
def test_logs_every_nth_step(tmp_path, own, trainers) -> None:
    curves = fit_with_events(tmp_path, Net(configured()), OptimizerMonitor(own), log_every_n_steps=trainers)
    n = own or trainers
    assert [step for step, _ in curves["optim/norm/exp_avg/default"]] == list(range(n - 1, 4 * BATCHES, n))


def test_a_group_that_joins_gets_new_curves_and_no_curve_is_renamed(tmp_path) -> None:
    curves = fit_with_events(tmp_path, Net(configured()), OptimizerMonitor(), StagedUnfreeze(PLAN), epochs=2)
    for group, step in (("head", 0), ("backbone", BATCHES)):
        assert curves[f"optim/weight_decay/{group}"] == [(step, pytest.approx(0.01))]
    for signal in ("lr", "norm/exp_avg", "norm/grad"):
        assert [step for step, _ in curves[f"optim/{signal}/head"]] == list(range(2 * BATCHES))
        assert [step for step, _ in curves[f"optim/{signal}/backbone"]] == list(range(BATCHES, 2 * BATCHES))
    assert {tag.rpartition("/")[2] for tag in curves if tag.startswith("optim/lr")} == {"head", "backbone"}


def test_the_curves_of_a_resumed_run_are_those_of_the_uninterrupted_one(tmp_path) -> None:
    def run(folder: Path, **arguments: Any) -> dict[str, list[tuple[int, float]]]:
        module = Net(configured(scheduler=SchedulerFactory("cosine_annealing")), dropout=0.2)
        callbacks = (OptimizerMonitor(), StagedUnfreeze(PLAN), RNGState())
        logger = TensorBoardLogger(folder / "events")
        fit(module, folder, *callbacks, logger=logger, log_every_n_steps=1, epochs=3, **arguments)
        return read_curves(folder / "events")

    torch.manual_seed(0)
    full = run(tmp_path / "full", save=True)
    for done in (3, BATCHES, BATCHES + 1):
        checkpoint = next((tmp_path / "full").glob(f"step={done}.ckpt"))
        rest = run(tmp_path / f"from{done}", ckpt_path=checkpoint)
        optim = {tag: points for tag, points in full.items() if tag.startswith("optim/")}
        assert {tag: rest[tag] for tag in optim} == from_step(optim, done)


def test_gradients_are_those_that_the_optimizer_uses(tmp_path) -> None:
    curves = fit_with_events(tmp_path, Net(configured()), OptimizerMonitor(), gradient_clip_val=0.01)
    assert [v for _, v in curves["optim/norm/grad/all"]] == pytest.approx([0.01] * 4 * BATCHES, rel=1e-4)


def test_update_norm_and_cosine_are_exact(tmp_path) -> None:
    before: dict[str, Any] = {}

    def read(trainer: Any, module: Any) -> dict[str, float]:
        state, p = trainer.optimizers[0].state, module.head.weight
        found = {"update": norm([p.detach() - before["p"]])}
        if "m" in before:
            found["cos"] = nn.functional.cosine_similarity(p.grad.double().flatten(), before["m"].double().flatten(), 0)
        before.update(p=p.detach().clone(), m=state[p]["exp_avg"].clone())
        return found

    module = Net(configured(groups={"one": {"params": "head.weight", "lr_scale": 1}}))
    before["p"] = module.head.weight.detach().clone()
    trace = StepTrace(read)
    curves = fit_with_events(tmp_path, module, OptimizerMonitor(update_norm=True, cosine=True), trace)
    updates = [value for _, value in curves["optim/norm/update/one"]]
    assert updates == pytest.approx([step["update"] for step in trace.steps], rel=1e-5)
    cosines = [value for _, value in curves["optim/cos/grad_momentum/one"]]
    assert cosines == pytest.approx([float(step["cos"]) for step in trace.steps[1:]], rel=1e-5)


@pytest.mark.slow
def test_per_parameter_and_histograms_have_a_tag_for_each_parameter(tmp_path) -> None:
    module = Net(configured())
    curves = fit_with_events(tmp_path, module, OptimizerMonitor(per_parameter=True, histograms=True), epochs=1)
    names = {tag.rpartition("/")[2] for tag in curves if tag.startswith("optim_param/norm/exp_avg/")}
    assert names == {name for name, _ in module.named_parameters()}
    events = read_events(tmp_path)
    assert "optim_param/norm/grad/head.weight" in events.Tags()["histograms"]


def test_groups_and_thaws_are_logged_as_text_and_curves_arranged(tmp_path) -> None:
    fit_with_events(tmp_path, Net(configured()), OptimizerMonitor(), StagedUnfreeze(PLAN), epochs=2)
    assert ["| backbone |" in text for _, text in read_texts(tmp_path, "optim/groups")] == [False, True]
    assert read_texts(tmp_path, "optim/thaw") == [(BATCHES, "epoch 1, step 4: 'backbone' thaws (backbone)")]
    events = read_events(tmp_path)
    layout = events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    assert rb"^optim/norm/exp_avg(/[^/]+)?$" in layout


def test_other_loggers_get_the_same_values(tmp_path) -> None:
    fit(Net(configured()), tmp_path, OptimizerMonitor(), epochs=1, logger=CSVLogger(tmp_path), log_every_n_steps=1)
    with next(tmp_path.rglob("metrics.csv")).open() as file:
        rows = [row for row in csv.DictReader(file) if row["optim/lr/default"]]
    assert [(int(row["step"]), float(row["optim/lr/default"])) for row in rows] == [(t, 0.01) for t in range(BATCHES)]


def test_to_callback_metrics_sets_the_trainer_s_metrics(tmp_path) -> None:
    trainer = fit(Net(configured()), tmp_path, OptimizerMonitor(1, to_callback_metrics=True), epochs=1)
    assert trainer.callback_metrics["optim/lr/default"] == torch.tensor(0.01)
    assert trainer.callback_metrics["optim/norm/exp_avg_sq/all"] > 0


def test_steps_outside_a_batch_are_not_logged(tmp_path) -> None:
    class ExtraStep(OptimizerMonitor):
        def on_train_epoch_end(self, trainer: Any, *args: Any) -> None:
            trainer.optimizers[0].step()

    curves = fit_with_events(tmp_path, Net(configured()), ExtraStep(), epochs=2, accumulate_grad_batches=2)
    assert [step for step, _ in curves["optim/lr/default"]] == list(range(BATCHES))


def test_each_of_several_optimizers_has_its_own_section(tmp_path) -> None:
    class Manual(Net):
        automatic_optimization = False

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(self.head.parameters(), 0.1), torch.optim.SGD(self.backbone.parameters(), 0.2)]

        def training_step(self, batch: Any, batch_idx: int) -> None:
            loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
            for optimizer in self.optimizers():
                optimizer.zero_grad()
            self.manual_backward(loss)
            for optimizer in self.optimizers():
                optimizer.step()

    curves = fit_with_events(tmp_path, Manual(lambda module: None), OptimizerMonitor(), epochs=1)
    lrs = {tag: values[0][1] for tag, values in curves.items() if "/lr/" in tag}
    assert lrs == pytest.approx({"optim_sgd-1/lr/default": 0.1, "optim_sgd-2/lr/default": 0.2})
    events = read_events(tmp_path)
    layout = events.Tensors("custom_scalars__config__")[-1].tensor_proto.string_val[0]
    assert rb"^optim_sgd-1/lr(/[^/]+)?$" in layout
    assert rb"^optim_sgd-2/lr(/[^/]+)?$" in layout


def test_sparse_gradients_are_measured(tmp_path) -> None:
    class Sparse(Net):
        def __init__(self) -> None:
            super().__init__(lambda module: torch.optim.SparseAdam(module.table.parameters(), 0.1))
            self.table = nn.Embedding(5, 2, sparse=True)

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return self.table(torch.tensor([1, 1, 3])).sum()

    curves = fit_with_events(tmp_path, Sparse(), OptimizerMonitor(), epochs=1)
    # Rows 1 and 3 have gradients of 2 and 1 in both columns.
    assert curves["optim/norm/grad/default"][0][1] == pytest.approx(math.sqrt(2 * (4 + 1)))


def test_a_second_monitor_is_refused_since_it_would_write_each_curve_twice(tmp_path) -> None:
    with pytest.raises(ConfigError, match="two OptimizerMonitors.*Remove one"):
        fit_with_events(tmp_path, Net(configured()), OptimizerMonitor(), OptimizerMonitor(every_n_steps=7))


def test_a_trainer_without_logger_is_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"the trainer has no logger to write to\. Type trainer\.logger=true"):
        fit(Net(configured()), tmp_path, OptimizerMonitor())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"every_n_steps": 0}, "every_n_steps: got 0, .* >= 1"), ({"update_norm": "yes"}, "update_norm: got 'yes'")],
    ids=["number", "flag"],
)
def test_a_wrong_argument_is_refused(arguments, message) -> None:
    with pytest.raises(ConfigError, match=message):
        OptimizerMonitor(**arguments)
