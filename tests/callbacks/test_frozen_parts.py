"""What is frozen stays frozen, whatever else runs beside StagedUnfreeze; what a model froze by design too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn

from lightning_optim import (
    ConfigError,
    OptimizerFactory,
    OptimizerMonitor,
    SchedulerFactory,
    StagedUnfreeze,
    configure_optimizers,
)
from lightning_optim.callbacks import unfreeze as unfreeze_module
from tests.support.training import Net, StepTrace, fit

PLAN: dict[str, Any] = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"epoch": 1}}}
NEVER: dict[str, Any] = {**PLAN, "backbone": {"params": "backbone", "at": {"epoch": 9}}}


def adamw(module: LightningModule, **groups: Any) -> Any:
    return configure_optimizers(module, OptimizerFactory("adamw", lr=0.01, groups=groups))


class TrainInStep(Net):
    """Samples from itself in evaluation mode, and then calls `train()`."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        self.eval()
        self(batch[0])
        self.train()
        return super().training_step(batch, batch_idx)


class TrainAtEpochStart(Net):
    def on_train_epoch_start(self) -> None:
        self.train()


class TrainAtBatchStart(Callback):
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        pl_module.backbone.train()


@pytest.mark.parametrize(
    ("module_class", "callbacks"),
    [(TrainInStep, []), (TrainAtEpochStart, []), (Net, [TrainAtBatchStart()])],
    ids=["training_step", "on_train_epoch_start", "another callback"],
)
def test_frozen_norms_keep_their_statistics_whoever_calls_train(tmp_path, module_class, callbacks) -> None:
    module = module_class(adamw)
    fit(module, tmp_path, StagedUnfreeze(NEVER), *callbacks, epochs=1)
    assert int(module.backbone[1].num_batches_tracked) == 0
    assert not module.backbone[1]._forward_pre_hooks


def test_a_thawed_norm_trains_again(tmp_path) -> None:
    module = TrainInStep(adamw)
    fit(module, tmp_path, StagedUnfreeze(PLAN), epochs=2)
    assert int(module.backbone[1].num_batches_tracked) == 4


def test_frozen_dropout_stays_inactive(tmp_path) -> None:
    class Dropped(TrainInStep):
        def __init__(self) -> None:
            super().__init__(adamw)
            self.backbone.append(nn.Dropout(0.5))
            self.zeros: list[int] = []
            self.backbone[-1].register_forward_hook(lambda _, inputs, out: self.zeros.append(out.ne(inputs[0]).sum()))

    module = Dropped()
    fit(module, tmp_path, StagedUnfreeze(NEVER, frozen_dropout="eval"), epochs=1)
    assert sum(map(int, module.zeros)) == 0


class MadeTrainable(Callback):
    """As an adapter library or a GAN's code does: makes the waiting part trainable in every batch."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        pl_module.backbone.requires_grad_(True)


class Manual(Net):
    """Manual optimization, with `zero_grad` after the step: what else has a gradient by then keeps it."""

    automatic_optimization = False

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        optimizer = self.optimizers()
        self.manual_backward(nn.functional.cross_entropy(self(batch[0]), batch[1]))
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("module_class", [Net, Manual], ids=["automatic", "manual"])
def test_a_waiting_stage_that_something_makes_trainable_does_not_train_or_keep_a_gradient(
    tmp_path, module_class
) -> None:
    grads: dict[bool, list[Tensor]] = {}
    for interfere in (False, True):
        callbacks = [MadeTrainable()] if interfere else []
        torch.manual_seed(0)
        module = module_class(adamw)
        before = module.backbone[0].weight.clone()
        fit(module, tmp_path, *callbacks, StagedUnfreeze(NEVER), epochs=1)
        assert torch.equal(module.backbone[0].weight, before)
        trace = StepTrace(
            lambda _, module: [p.grad.clone() for p in module.backbone.parameters() if p.grad is not None]
        )
        torch.manual_seed(0)
        fit(module_class(adamw), tmp_path, *callbacks, StagedUnfreeze(PLAN), trace, epochs=2)
        grads[interfere] = trace.steps[4]
    assert all(map(torch.equal, grads[False], grads[True])), (
        "the first gradient of the stage is that of its batch alone"
    )


class TableNet(Net):
    """With a table of positions that its author froze, beside parameters that train, and a quantized weight."""

    def __init__(self) -> None:
        super().__init__(adamw)
        self.backbone.register_parameter("positions", nn.Parameter(torch.ones(8), requires_grad=False))
        codes = torch.ones(8, dtype=torch.int8)
        self.backbone.register_parameter("codes", nn.Parameter(codes, requires_grad=False))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.backbone(inputs) + self.backbone.positions * self.backbone.codes)


@pytest.mark.parametrize("num_fits", [1, 2], ids=["one fit", "a second fit of the module"])
def test_what_the_model_froze_by_design_stays_frozen(tmp_path, num_fits) -> None:
    module = TableNet()
    for _ in range(num_fits):
        unfreeze = StagedUnfreeze(PLAN)
        fit(
            module, tmp_path, unfreeze, OptimizerMonitor(), epochs=1 if num_fits == 2 else 2, logger=CSVLogger(tmp_path)
        )
    fit(module, tmp_path, unfreeze, epochs=2)
    assert not module.backbone.positions.requires_grad
    assert module.backbone[0].weight.requires_grad
    row = next(row for row in unfreeze.explain(module).rows() if row["group"] == "(frozen by the model)")
    assert row["tensors"] == 2
    settings = unfreeze.settings_of("backbone.positions", module, OptimizerFactory("adamw"))
    assert settings.rows() == [("frozen", "true", "the model, which sets requires_grad=False")]


def test_a_stage_that_claims_only_what_was_frozen_by_hand_thaws_it(tmp_path) -> None:
    module = Net(adamw)
    module.prompt = nn.Parameter(torch.zeros(4), requires_grad=False)
    module.forward = lambda inputs: Net.forward(module, inputs + module.prompt)
    fit(module, tmp_path, StagedUnfreeze({**PLAN, "prompt": {"params": "prompt", "at": {"epoch": 1}}}), epochs=2)
    assert module.prompt.requires_grad and bool(module.prompt.any())


def test_a_stage_of_integers_is_refused(tmp_path) -> None:
    plan = {"codes": {"params": "backbone.codes", "at": {"epoch": 1}}, "rest": {"params": "*"}}
    with pytest.raises(ConfigError, match=r"^stages\.codes: all 1 parameters it claims are integers"):
        fit(TableNet(), tmp_path, StagedUnfreeze(plan))


def freezes_and_filters(module: LightningModule) -> Any:
    module.backbone.requires_grad_(False)
    return torch.optim.SGD([p for p in module.parameters() if p.requires_grad], 0.1)


def leaves_out(module: LightningModule) -> Any:
    return torch.optim.SGD(module.head.parameters(), 0.1)


def factory_of_the_head(module: LightningModule) -> Any:
    return OptimizerFactory("adamw", groups={"bias": {"params": "bias", "frozen": True}})(module.head)


@pytest.mark.parametrize("configure", [freezes_and_filters, leaves_out, factory_of_the_head])
def test_a_claimed_parameter_that_no_optimizer_holds_is_refused(tmp_path, configure) -> None:
    with pytest.raises(ConfigError, match=r"^stages\.backbone: no optimizer holds 6 .* whatever requires_grad is"):
        fit(Net(configure), tmp_path, StagedUnfreeze(PLAN))


def test_frozen_base_weights_of_adapters_are_left_out_by_kind(tmp_path) -> None:
    def adapters_only(module: LightningModule) -> Any:
        return adamw(module, base={"kinds": ["frozen"], "frozen": True})

    plan = {"head": {"params": "head"}, "adapter": {"params": "backbone.3", "at": {"epoch": 1}}}
    for configure in (adamw, adapters_only):
        module = Net(configure)
        module.backbone[0].requires_grad_(False)
        module.backbone[1].requires_grad_(False)
        if configure is adamw:
            with pytest.raises(ConfigError, match=r"optimizer\.groups\.base: {kinds: \[frozen\], frozen: true}"):
                fit(module, tmp_path, StagedUnfreeze(plan))
            continue
        before = module.backbone[0].weight.clone()
        fit(module, tmp_path, StagedUnfreeze(plan), epochs=2)
        assert torch.equal(module.backbone[0].weight, before)


def test_stages_that_never_thawed_are_named_at_the_end(tmp_path, monkeypatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(unfreeze_module, "rank_zero_info", lines.append)

    def end(*callbacks: Callback, **arguments: Any) -> list[str]:
        lines.clear()
        fit(Net(adamw), tmp_path, StagedUnfreeze(PLAN), *callbacks, **arguments)
        return [line for line in lines if "has ended" in line]

    class Stop(Callback):
        def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
            trainer.should_stop = True

    ended = ["StagedUnfreeze: the fit has ended before backbone could thaw"]
    assert [end(epochs=2), end(Stop(), epochs=3), end(epochs=3, max_steps=2)] == [[], ended, ended]
    assert [end(limit_train_batches=0), end(epochs=0)] == [ended, ended]
    end(epochs=1, save=True)
    last = max(tmp_path.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    assert end(epochs=1, ckpt_path=last) == ended, "nothing was left to train"


def test_the_learning_rate_of_a_fixed_table_has_no_group(tmp_path: Path) -> None:
    def scheduled(module: LightningModule) -> Any:
        return configure_optimizers(module, OptimizerFactory("adamw"), SchedulerFactory("cosine_annealing"))

    module = TableNet()
    module.configure = scheduled
    trainer = fit(module, tmp_path, StagedUnfreeze(PLAN), epochs=2)
    held = {name for group in trainer.optimizers[0].param_groups for name in group["param_names"]}
    assert held == {name for name, p in module.named_parameters() if p.requires_grad}
