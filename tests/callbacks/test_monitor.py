"""OptimizerMonitor: what it says of a step is what the step was."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
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
)
from tests.support.tensorboard_events import curves_of, fit_with_events
from tests.support.training import BATCHES, Net, Witness, fit

PLAN = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"epoch": 1}, "lr_scale": 0.1}}
GROUPS = {"no_decay": {"kinds": ["bias"], "weight_decay": 0.0}, "head": {"params": "head", "lr_scale": 2}}


def _configure(name: str = "adamw", scheduler: Any = None, **arguments: Any) -> Any:
    factory = OptimizerFactory(name, lr=0.01, **arguments)
    return lambda module: configure_optimizers(module, factory, scheduler)


def _norm(tensors: Any) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))


@pytest.mark.parametrize("name", [n for n in list_optimizers() if n not in ("lbfgs", "sparse_adam", "muon")])
def test_norms_equal_a_float64_computation(tmp_path, name) -> None:
    def look(trainer: Any, module: Any) -> dict[str, float]:
        optimizer, norms = trainer.optimizers[0], {}
        for group in optimizer.param_groups:
            signals = defaultdict(list)
            for p in group["params"]:
                signals["grad"].append(p.grad)
                signals["param"].append(p.detach())
                for key, value in optimizer.state[p].items():
                    if isinstance(value, torch.Tensor) and value.shape != ():
                        signals[key].append(value)
            norms |= {f"optim/norm/{signal}/{group['name']}": _norm(held) for signal, held in signals.items()}
        return norms

    witness = Witness(look)
    curves = fit_with_events(
        tmp_path, Net(_configure(name, groups={"head": GROUPS["head"]})), OptimizerMonitor(), witness
    )
    tags = {tag for tag in curves if tag.startswith("optim/norm/") and not tag.endswith("/all")}
    assert tags == set(witness.seen[0])
    for tag in tags:
        assert [step for step, _ in curves[tag]] == list(range(4 * BATCHES))
        # Relative, for float32 sums; event files hold float32 as well.
        assert [v for _, v in curves[tag]] == pytest.approx([seen[tag] for seen in witness.seen], rel=1e-5, abs=1e-30)


def test_all_is_the_norm_over_every_group(tmp_path) -> None:
    curves = fit_with_events(tmp_path, Net(_configure(groups=GROUPS)), OptimizerMonitor())
    parts = [
        values for tag, values in curves.items() if tag.startswith("optim/norm/grad/") and not tag.endswith("/all")
    ]
    assert len(parts) == 4
    for (_, total), *each in zip(curves["optim/norm/grad/all"], *parts, strict=True):
        assert total == pytest.approx(math.sqrt(sum(value**2 for _, value in each)), rel=1e-6)


def test_settings_are_those_in_force_at_the_step(tmp_path) -> None:
    witness = Witness(lambda trainer, _: [dict(g, params=None) for g in trainer.optimizers[0].param_groups])
    scheduler = SchedulerFactory("one_cycle")
    curves = fit_with_events(tmp_path, Net(_configure(scheduler=scheduler, groups=GROUPS)), OptimizerMonitor(), witness)
    for number, name in enumerate(["default", "no_decay", "head", "head.no_decay"]):
        for signal, value in {
            "lr": lambda g: g["lr"],
            "weight_decay": lambda g: g["weight_decay"],
            "beta1": lambda g: g["betas"][0],
            "beta2": lambda g: g["betas"][1],
        }.items():
            expected = [(t, torch.tensor(value(seen[number])).item()) for t, seen in enumerate(witness.seen)]
            assert curves[f"optim/{signal}/{name}"] == expected
        assert curves[f"optim/step/{name}"] == [(t, t + 1.0) for t in range(4 * BATCHES)]


@pytest.mark.parametrize("accumulate", [2, 3])
def test_one_point_an_optimizer_step_where_lightnings_own_metrics_have_it(tmp_path, accumulate) -> None:
    curves = fit_with_events(tmp_path, Net(_configure()), OptimizerMonitor(), accumulate_grad_batches=accumulate)
    steps = [step for step, _ in curves["loss"]]
    assert steps == list(range(4 * -(-BATCHES // accumulate)))
    assert [step for step, _ in curves["optim/lr/default"]] == steps


@pytest.mark.parametrize(("every", "trainers"), [(None, 3), (5, 1)], ids=["the trainer's", "its own"])
def test_cadence(tmp_path, every, trainers) -> None:
    curves = fit_with_events(tmp_path, Net(_configure()), OptimizerMonitor(every), log_every_n_steps=trainers)
    n = every or trainers
    assert [step for step, _ in curves["optim/norm/exp_avg/default"]] == list(range(n - 1, 4 * BATCHES, n))


def test_a_group_that_joins_adds_curves_and_renames_none(tmp_path) -> None:
    curves = fit_with_events(tmp_path, Net(_configure()), OptimizerMonitor(), StagedUnfreeze(PLAN), epochs=2)
    for signal in ("lr", "norm/exp_avg", "norm/grad", "weight_decay"):
        assert [step for step, _ in curves[f"optim/{signal}/head"]] == list(range(2 * BATCHES))
        assert [step for step, _ in curves[f"optim/{signal}/backbone"]] == list(range(BATCHES, 2 * BATCHES))
    assert {tag.rpartition("/")[2] for tag in curves if tag.startswith("optim/lr")} == {"head", "backbone"}


def test_a_resumed_runs_curves_are_the_uninterrupted_ones(tmp_path) -> None:
    def run(folder: Path, **arguments: Any) -> dict[str, list[tuple[int, float]]]:
        module = Net(_configure(scheduler=SchedulerFactory("cosine_annealing")), dropout=0.2)
        callbacks = (OptimizerMonitor(), StagedUnfreeze(PLAN), RNGState())
        logger = TensorBoardLogger(folder / "events")
        fit(module, folder, *callbacks, logger=logger, log_every_n_steps=1, epochs=3, **arguments)
        return curves_of(folder / "events")

    torch.manual_seed(0)
    whole = run(tmp_path / "whole", save=True)
    for done in (3, BATCHES, BATCHES + 1):
        checkpoint = next((tmp_path / "whole").glob(f"step={done}.ckpt"))
        rest = run(tmp_path / f"from{done}", ckpt_path=checkpoint)
        optim = {tag: points for tag, points in whole.items() if tag.startswith("optim/")}
        assert {tag: rest[tag] for tag in optim} == {tag: [p for p in ps if p[0] >= done] for tag, ps in optim.items()}


def test_gradients_are_those_the_optimizer_saw(tmp_path) -> None:
    curves = fit_with_events(tmp_path, Net(_configure()), OptimizerMonitor(), gradient_clip_val=0.01)
    assert [v for _, v in curves["optim/norm/grad/all"]] == pytest.approx([0.01] * 4 * BATCHES, rel=1e-4)


def test_update_norm_and_cosine(tmp_path) -> None:
    before: dict[str, Any] = {}

    def note(trainer: Any, module: Any) -> dict[str, float]:
        state, p = trainer.optimizers[0].state, module.head.weight
        found = {"update": _norm([p.detach() - before["p"]])}
        if "m" in before:
            found["cos"] = nn.functional.cosine_similarity(p.grad.double().flatten(), before["m"].double().flatten(), 0)
        before.update(p=p.detach().clone(), m=state[p]["exp_avg"].clone())
        return found

    module = Net(_configure(groups={"one": {"params": "head.weight", "lr_scale": 1}}))
    before["p"] = module.head.weight.detach().clone()
    witness = Witness(note)
    curves = fit_with_events(tmp_path, module, OptimizerMonitor(update_norm=True, cosine=True), witness)
    updates = [value for _, value in curves["optim/norm/update/one"]]
    assert updates == pytest.approx([seen["update"] for seen in witness.seen], rel=1e-5)
    cosines = [value for _, value in curves["optim/cos/grad_momentum/one"]]
    assert cosines == pytest.approx([float(seen["cos"]) for seen in witness.seen[1:]], rel=1e-5)


def test_per_parameter_and_histograms(tmp_path) -> None:
    module = Net(_configure())
    curves = fit_with_events(tmp_path, module, OptimizerMonitor(per_parameter=True, histograms=True), epochs=1)
    names = {tag.rpartition("/")[2] for tag in curves if tag.startswith("optim_param/norm/exp_avg/")}
    assert names == {name for name, _ in module.named_parameters()}
    events = EventAccumulator(str(next(tmp_path.rglob("events.*")))).Reload()
    assert "optim_param/norm/grad/head.weight" in events.Tags()["histograms"]


def test_text_and_layout(tmp_path) -> None:
    fit_with_events(tmp_path, Net(_configure()), OptimizerMonitor(), StagedUnfreeze(PLAN), epochs=2)
    events = EventAccumulator(str(next(tmp_path.rglob("events.*")))).Reload()
    texts = [e.tensor_proto.string_val[0].decode() for e in events.Tensors("optim/groups/text_summary")]
    assert ["| backbone |" in text for text in texts] == [False, True]
    (thaw,) = events.Tensors("optim/thaw/text_summary")
    assert thaw.tensor_proto.string_val[0].decode() == "epoch 1, step 4: 'backbone' thaws (backbone)"
    layout = events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    assert rb"^optim/norm/exp_avg/[^/]+$" in layout


def test_other_loggers_get_the_same_dict(tmp_path) -> None:
    fit(Net(_configure()), tmp_path, OptimizerMonitor(), epochs=1, logger=CSVLogger(tmp_path), log_every_n_steps=1)
    with next(tmp_path.rglob("metrics.csv")).open() as file:
        rows = [row for row in csv.DictReader(file) if row["optim/lr/default"]]
    assert [(int(row["step"]), float(row["optim/lr/default"])) for row in rows] == [(t, 0.01) for t in range(BATCHES)]


def test_to_callback_metrics(tmp_path) -> None:
    trainer = fit(Net(_configure()), tmp_path, OptimizerMonitor(1, to_callback_metrics=True), epochs=1)
    assert trainer.callback_metrics["optim/lr/default"] == torch.tensor(0.01)
    assert trainer.callback_metrics["optim/norm/exp_avg_sq/all"] > 0


def test_steps_outside_a_batch_are_not_counted(tmp_path) -> None:
    class Phantom(OptimizerMonitor):
        def on_train_epoch_end(self, trainer: Any, *args: Any) -> None:
            trainer.optimizers[0].step()

    curves = fit_with_events(tmp_path, Net(_configure()), Phantom(), epochs=2, accumulate_grad_batches=2)
    assert [step for step, _ in curves["optim/lr/default"]] == list(range(BATCHES))


def test_several_optimizers_have_a_section_each(tmp_path) -> None:
    class Manual(Net):
        automatic_optimization = False

        def configure_optimizers(self) -> Any:
            make = torch.optim.SGD
            return [make(self.head.parameters(), 0.1), make(self.backbone.parameters(), 0.2)]

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
    events = EventAccumulator(str(next(tmp_path.rglob("events.*")))).Reload()
    layout = events.Tensors("custom_scalars__config__")[-1].tensor_proto.string_val[0]
    assert rb"^optim_sgd-1/lr/[^/]+$" in layout
    assert rb"^optim_sgd-2/lr/[^/]+$" in layout


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


def test_a_trainer_without_logger_is_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"the trainer has no logger to write to\. Type trainer\.logger=true"):
        fit(Net(_configure()), tmp_path, OptimizerMonitor())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"every_n_steps": 0}, "every_n_steps: got 0, .* >= 1"), ({"update_norm": "yes"}, "update_norm: got 'yes'")],
    ids=["cadence", "flag"],
)
def test_wrong_arguments_are_refused(arguments, message) -> None:
    with pytest.raises(ConfigError, match=message):
        OptimizerMonitor(**arguments)
