"""StagedUnfreeze under Lightning: freezing, thawing, resuming, and leaving everything as it was afterwards."""

from __future__ import annotations

import warnings
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, strategies
from lightning.pytorch.callbacks import BackboneFinetuning, Callback, LearningRateMonitor, StochasticWeightAveraging
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook

from lightning_optim import (
    ConfigError,
    OptimizerFactory,
    RNGState,
    SchedulerFactory,
    StagedUnfreeze,
    configure_optimizers,
)
from tests.support.cases import every
from tests.support.equality import equal
from tests.support.training import BATCHES, Loader, Net, StepTrace, fit

PLAN: dict[str, Any] = {
    "head": {"params": "head"},
    "backbone": {"params": "backbone", "at": {"epoch": 1}, "lr_scale": 0.1},
}
NO_DECAY = {"no_decay": {"kinds": ["bias", "norm"], "weight_decay": 0}}


def by_factory(scheduler: SchedulerFactory | None = None, name: str = "adamw", **arguments: Any) -> Any:
    factory = OptimizerFactory(name, lr=0.01, **{"groups": NO_DECAY, **arguments})
    return lambda module: configure_optimizers(module, factory, scheduler)


def test_a_stage_joins_as_its_own_groups(tmp_path) -> None:
    trace = StepTrace()
    fit(Net(by_factory()), tmp_path, StagedUnfreeze(PLAN), trace, epochs=2)
    head, backbone = ["head", "head.no_decay"], ["backbone", "backbone.no_decay"]
    assert [list(step) for step in trace.steps] == [head] * BATCHES + [head + backbone] * BATCHES
    assert trace.steps[-1] == {"head": 0.01, "head.no_decay": 0.01, "backbone": 0.001, "backbone.no_decay": 0.001}


def test_a_frozen_stage_has_no_gradient_no_state_and_no_updated_statistics(tmp_path) -> None:
    def read(trainer: Trainer, module: Any) -> Any:
        backbone = list(module.backbone.parameters())
        return {
            "requires_grad": [p.requires_grad for p in backbone],
            "gradients": [p.grad for p in backbone],
            "state": [p in trainer.optimizers[0].state for p in backbone],
            "norm": (module.backbone[1].training, module.backbone[1].running_mean.clone()),
        }

    trace, module = StepTrace(read), Net(by_factory())
    before = module.backbone[1].running_mean.clone()
    fit(module, tmp_path, StagedUnfreeze(PLAN), trace, epochs=2)
    for frozen in trace.steps[:BATCHES]:
        assert not any(frozen["requires_grad"]) and not any(frozen["state"])
        assert frozen["gradients"] == [None] * 6
        assert frozen["norm"][0] is False and torch.equal(frozen["norm"][1], before)
    for thawed in trace.steps[BATCHES:]:
        assert all(thawed["requires_grad"]) and all(thawed["state"])
        assert thawed["norm"][0] is True and not torch.equal(thawed["norm"][1], before)


@pytest.mark.parametrize(
    ("options", "norm", "dropout"),
    [({}, False, True), ({"frozen_norm": "train"}, True, True), ({"frozen_dropout": "eval"}, False, False)],
    ids=["default", "norm in train", "dropout in eval"],
)
def test_modes_of_the_layers_in_a_frozen_part(tmp_path, options, norm, dropout) -> None:
    class DropoutNet(Net):
        def __init__(self, configure: Any) -> None:
            super().__init__(configure, dropout=0.1)
            self.backbone = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8, affine=False), nn.Dropout(0.1))

    trace = StepTrace(
        lambda _, module: (module.backbone[1].training, module.backbone[2].training, module.dropout.training)
    )
    fit(DropoutNet(by_factory()), tmp_path, StagedUnfreeze(PLAN, **options), trace, epochs=2)
    assert trace.steps == [(norm, dropout, True)] * BATCHES + [(True, True, True)] * BATCHES


@pytest.mark.parametrize(
    ("at", "accumulate"),
    [({"step": 3}, 1), ({"step": 3}, 2), ({"epoch": 2}, 1), ({"epoch": 2}, 2)],
    ids=["step", "step, accumulating", "epoch", "epoch, accumulating"],
)
def test_triggers_count_optimizer_steps_and_epochs(tmp_path, at, accumulate) -> None:
    trace = StepTrace()
    plan = {**PLAN, "backbone": {**PLAN["backbone"], "at": at}}
    fit(Net(by_factory()), tmp_path, StagedUnfreeze(plan), trace, accumulate_grad_batches=accumulate)
    steps_per_epoch = BATCHES // accumulate
    thaw = at["step"] if "step" in at else at["epoch"] * steps_per_epoch
    assert [len(step) for step in trace.steps] == [2 if t < thaw else 4 for t in range(4 * steps_per_epoch)]


SETUPS = {
    "constant": by_factory(),
    "warm-up": by_factory(SchedulerFactory("warmup_cosine", warmup_steps=3)),
    "by epoch": by_factory(SchedulerFactory("exponential", interval="epoch", gamma=0.5)),
    "nadamw, one cycle": by_factory(SchedulerFactory("one_cycle"), "nadamw"),
    "amsbound, relative decay": by_factory(
        SchedulerFactory("warmup_cosine", warmup_steps=3), "amsbound", weight_decay=0.1, weight_decay_mode="relative"
    ),
}
"""The schedulers of torch: `test_every_scheduler.py`."""


@pytest.mark.parametrize(
    ("setup", "accumulate"),
    every(
        product(SETUPS, [1, 2]),
        fast=["by epoch, 2"],
        id=lambda case: f"{case[0]}, {case[1]}",
    ),
)
def test_resumes_bitwise_from_every_optimizer_step(tmp_path, setup, accumulate) -> None:
    plan = {**PLAN, "backbone": {**PLAN["backbone"], "warmup_steps": 3}}

    def run(folder: Path, ckpt_path: Path | None = None) -> tuple[Trainer, Net, StepTrace]:
        # Another seed when resuming: what is not restored shows.
        module, trace = Net(SETUPS[setup], dropout=0.3), StepTrace()
        callbacks = (StagedUnfreeze(plan), RNGState(), trace)
        trainer = fit(
            module, folder, *callbacks, epochs=3, accumulate_grad_batches=accumulate, ckpt_path=ckpt_path,
            save=ckpt_path is None, seed=1 if ckpt_path is None else 2,
        )  # fmt: skip
        return trainer, module, trace

    torch.manual_seed(0)
    trainer, module, trace = run(tmp_path)
    checkpoints = sorted(tmp_path.glob("*.ckpt"), key=lambda path: int(path.stem.split("=")[1]))
    assert len(checkpoints) == 3 * BATCHES // accumulate
    for step, checkpoint in enumerate(checkpoints[:-1], start=1):
        other, resumed, rest = run(tmp_path / "resumed", checkpoint)
        assert rest.steps == trace.steps[step:], step
        assert equal(module.state_dict(), resumed.state_dict()), step
        assert equal(trainer.optimizers[0].state_dict(), other.optimizers[0].state_dict()), step


def test_stages_thaw_in_the_order_of_their_triggers(tmp_path) -> None:
    stem = {"params": "backbone.0", "at": {"step": 6}}  # the narrower stage comes first, and thaws last
    plan = {"head": PLAN["head"], "stem": stem, "backbone": {"params": "backbone", "at": {"epoch": 1}}}
    trace, module = StepTrace(), Net(by_factory(groups={}))
    fit(module, tmp_path, StagedUnfreeze(plan), trace, epochs=3, save=True)
    assert list(trace.steps[-1]) == ["head", "backbone", "stem"]
    resumed = Net(by_factory(groups={}))
    fit(resumed, tmp_path, StagedUnfreeze(plan), epochs=3, ckpt_path=tmp_path / "step=7.ckpt", seed=2)
    assert equal(module.state_dict(), resumed.state_dict())


def test_a_rule_that_freezes_beats_every_stage(tmp_path) -> None:
    groups = {"stem": {"params": "backbone.0", "frozen": True}}
    module = Net(by_factory(groups=groups))
    before = module.backbone[0].weight.clone()
    trainer = fit(module, tmp_path, StagedUnfreeze(PLAN), epochs=2)
    assert torch.equal(module.backbone[0].weight, before)
    params = [p for group in trainer.optimizers[0].param_groups for p in group["params"]]
    assert len(params) == len(list(module.parameters())) - 2


def test_parameters_frozen_by_hand_thaw(tmp_path) -> None:
    module = Net(by_factory())
    module.backbone.requires_grad_(False)
    before = module.backbone[0].weight.clone()
    fit(module, tmp_path, StagedUnfreeze(PLAN), epochs=2)
    assert not torch.equal(module.backbone[0].weight, before)


def test_a_second_fit_continues_at_the_stage(tmp_path) -> None:
    module, unfreeze, trace = Net(by_factory()), StagedUnfreeze(PLAN), StepTrace()
    fit(module, tmp_path, unfreeze, epochs=2)
    fit(module, tmp_path, unfreeze, trace, epochs=1)
    assert [len(step) for step in trace.steps] == [4] * BATCHES


@pytest.mark.parametrize("form", ["optimizer", "dict", "lists"])
@pytest.mark.parametrize("is_new", [False, True], ids=["same callback", "another callback"])
def test_an_optimizer_that_an_earlier_fit_has_split_is_refused(tmp_path, form, is_new) -> None:
    """Its lr would be scaled twice."""
    module = Net(lambda module: configured)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    scheduler = {"scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)}
    forms = {
        "optimizer": optimizer,
        "dict": {"optimizer": optimizer, "lr_scheduler": scheduler},
        "lists": ([optimizer], [scheduler]),
    }
    configured, unfreeze = forms[form], StagedUnfreeze(PLAN)
    fit(module, tmp_path, unfreeze, epochs=2)
    with pytest.raises(ConfigError, match=r"optimizer of an earlier fit.*Build it and its scheduler anew in each call"):
        fit(module, tmp_path, StagedUnfreeze(PLAN) if is_new else unfreeze, epochs=1)


def test_a_fit_of_another_module_starts_over(tmp_path) -> None:
    unfreeze, trace = StagedUnfreeze(PLAN), StepTrace()
    fit(Net(by_factory()), tmp_path, unfreeze, epochs=2)
    fit(Net(by_factory()), tmp_path, unfreeze, trace, epochs=1)
    assert [len(step) for step in trace.steps] == [2] * BATCHES


def test_what_a_validation_has_loaded_is_dropped_in_the_next_fit(tmp_path) -> None:
    class ValidatedNet(Net):
        def validation_step(self, batch: Any, batch_idx: int) -> None: ...

    fit(Net(by_factory()), tmp_path, StagedUnfreeze(PLAN), RNGState(), epochs=2, save=True)
    unfreeze, generators, trace = StagedUnfreeze(PLAN), RNGState(), StepTrace()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(accelerator="cpu", callbacks=[unfreeze, generators], logger=False, enable_progress_bar=False)
        trainer.validate(ValidatedNet(by_factory()), Loader(), ckpt_path=tmp_path / "step=8.ckpt", verbose=False)
    fit(Net(by_factory()), tmp_path, unfreeze, generators, trace, epochs=1)
    assert [len(step) for step in trace.steps] == [2] * BATCHES


@pytest.mark.filterwarnings("ignore:Found 1 module")
def test_norms_return_to_the_mode_they_were_in(tmp_path) -> None:
    def two_norms() -> Net:
        module = Net(by_factory())
        module.backbone.append(nn.BatchNorm1d(8))
        module.backbone[1].eval()
        return module

    late = {**PLAN, "backbone": {"params": "backbone", "at": {"step": 2}}}
    trace = StepTrace(lambda _, module: (module.backbone[1].training, module.backbone[4].training))
    fit(two_norms(), tmp_path, trace, StagedUnfreeze(late), epochs=1)
    assert trace.steps == [(False, False)] * 2 + [(False, True)] * 2
    never_thawed = two_norms()
    fit(never_thawed, tmp_path, StagedUnfreeze(PLAN), epochs=1)
    assert (never_thawed.backbone[1].training, never_thawed.backbone[4].training) == (False, True)


class Adding(Callback):
    """Adds a param group in the middle of the fit."""

    def __init__(self, hook: str) -> None:
        setattr(self, hook, self.add)

    def add(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 2:
            trainer.optimizers[0].add_param_group({"params": [nn.Parameter(torch.ones(2))]})


@pytest.mark.parametrize("hook", ["on_train_batch_start", "on_after_backward", "on_train_batch_end"])
def test_a_callback_that_adds_a_group_is_refused(tmp_path, hook) -> None:
    with pytest.raises(ConfigError, match="^stages: something else has added or removed a param group: .* has 2,"):
        fit(
            Net(lambda module: torch.optim.SGD(module.parameters(), lr=0.1)),
            tmp_path,
            Adding(hook),
            StagedUnfreeze({"whole": {"params": "*"}}),
        )


@pytest.mark.parametrize("is_first", [False, True])
def test_finetuning_callbacks_are_refused(tmp_path, is_first) -> None:
    """Their freezing would be undone."""
    both = [BackboneFinetuning(unfreeze_backbone_at_epoch=1), StagedUnfreeze(PLAN)]
    with pytest.raises(
        ConfigError, match=r"^trainer.callbacks: BackboneFinetuning freezes .* Replace the callback by a stage"
    ):
        fit(Net(by_factory()), tmp_path, *(both if is_first else both[::-1]))


def test_stochastic_weight_averaging_is_refused_before_the_first_step(tmp_path) -> None:
    swa = StochasticWeightAveraging(swa_lrs=0.1, swa_epoch_start=2)
    module = Net(by_factory())
    with pytest.raises(ConfigError, match=r"^trainer.callbacks: StochasticWeightAveraging .* Use WeightAveraging"):
        fit(module, tmp_path, swa, StagedUnfreeze(PLAN))
    assert module.trainer.global_step == 0


class SwapsScheduler(Callback):
    def on_train_epoch_start(self, trainer, pl_module) -> None:
        if trainer.current_epoch == 1:
            trainer.lr_scheduler_configs[0].scheduler = torch.optim.swa_utils.SWALR(trainer.optimizers[0], 0.1)


def test_a_callback_that_replaces_the_scheduler_is_refused(tmp_path) -> None:
    module = Net(by_factory(SchedulerFactory("exponential", interval="epoch", gamma=0.9)))
    with pytest.raises(ConfigError, match="^stages: a callback has replaced the scheduler by its own SWALR"):
        fit(module, tmp_path, SwapsScheduler(), StagedUnfreeze(PLAN))


@pytest.mark.parametrize(
    ("name", "reason"), [("DeepSpeedStrategy", "DeepSpeed flattens"), ("FSDPStrategy", "FSDP1 flattens")]
)
def test_strategies_that_cannot_thaw_are_refused_with_the_reason(name, reason) -> None:
    cls = getattr(strategies, name)

    own = type(f"My{name}", (cls,), {})
    for strategy in (cls.__new__(cls), own.__new__(own)):
        message = rf"^trainer\.strategy: (My)?{name}: .*{reason}.* Type trainer\.strategy=ddp"
        with pytest.raises(ConfigError, match=message):
            StagedUnfreeze(PLAN).setup(SimpleNamespace(strategy=strategy), Net(by_factory()), "fit")


def test_a_communication_hook_with_a_state_is_refused() -> None:
    strategy = strategies.DDPStrategy(ddp_comm_state=PowerSGDState(None), ddp_comm_hook=powerSGD_hook)
    with pytest.raises(ConfigError, match=r"^trainer\.strategy: ddp_comm_state is a PowerSGDState, .* Type ddp_comm"):
        StagedUnfreeze(PLAN).setup(SimpleNamespace(strategy=strategy), Net(by_factory()), "fit")


def test_a_subclass_of_a_supported_strategy_is_refused() -> None:
    class Mine(strategies.DDPStrategy): ...

    with pytest.raises(ConfigError, match=r"^trainer\.strategy: Mine: StagedUnfreeze has not been tested with it"):
        StagedUnfreeze(PLAN).setup(SimpleNamespace(strategy=Mine()), Net(by_factory()), "fit")


def test_configure_optimizers_of_the_instance_is_restored(tmp_path) -> None:
    module = Net(by_factory())
    module.configure_optimizers = original = lambda: torch.optim.SGD(module.parameters(), 0.1)
    fit(module, tmp_path, StagedUnfreeze(PLAN), epochs=1)
    assert module.configure_optimizers is original


def test_configure_optimizers_of_the_class_is_restored_and_step_hooks_are_removed(tmp_path) -> None:
    module = Net(by_factory())
    trainer = fit(module, tmp_path, StagedUnfreeze(PLAN), epochs=1)
    assert "configure_optimizers" not in vars(module)
    optimizer = trainer.optimizers[0]
    hooks = [*optimizer._optimizer_step_pre_hooks.values(), *optimizer._optimizer_step_post_hooks.values()]
    assert {type(hook.__self__).__name__ for hook in hooks} == {"FusedLayouts"}, "those that the factory registers"


def test_configure_optimizers_is_restored_after_an_exception(tmp_path) -> None:
    class Failing(Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            raise ZeroDivisionError

    module = Net(by_factory())
    with pytest.raises(ZeroDivisionError):
        fit(module, tmp_path, StagedUnfreeze(PLAN), Failing(), epochs=1)
    assert "configure_optimizers" not in vars(module)


def test_each_of_several_optimizers_is_split_by_its_own_groups(tmp_path) -> None:
    class Manual(Net):
        automatic_optimization = False

        def __init__(self) -> None:
            super().__init__(lambda module: None)

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(self.head.parameters(), 0.1), torch.optim.Adam(self.backbone.parameters(), 0.1)]

        def training_step(self, batch: Any, batch_idx: int) -> None:
            first, second = self.optimizers()
            first.zero_grad()
            second.zero_grad()
            self.manual_backward(nn.functional.cross_entropy(self(batch[0]), batch[1]))
            first.step()
            if second.param_groups:
                second.step()

    def read(trainer: Trainer, _: LightningModule) -> Any:
        return [[group["name"] for group in optimizer.param_groups] for optimizer in trainer.optimizers]

    trace = StepTrace(read)
    fit(Manual(), tmp_path, StagedUnfreeze(PLAN), trace, epochs=2)
    assert trace.steps == [[["head"], []]] * BATCHES + [[["head"], ["backbone"]]] * BATCHES


def test_learning_rate_monitor_logs_the_live_groups_only(tmp_path) -> None:
    monitor = LearningRateMonitor()
    logger = CSVLogger(tmp_path)
    scheduler = SchedulerFactory("cosine_annealing")
    fit(
        Net(by_factory(scheduler)),
        tmp_path,
        StagedUnfreeze(PLAN),
        monitor,
        epochs=2,
        logger=logger,
        log_every_n_steps=1,
    )
    live = {f"lr-AdamW/{group}" for group in ("head", "head.no_decay", "backbone", "backbone.no_decay")}
    assert set(monitor.lrs) == live
    assert not {"_find_names_from_schedulers", "_get_optimizer_stats"} & set(vars(monitor)), "as before the fit"


@pytest.mark.parametrize("is_first", [False, True])
def test_learning_rate_monitor_logs_the_lr_of_the_step_wherever_it_is_listed(tmp_path, is_first) -> None:
    """Lightning steps ReduceLROnPlateau after an epoch, and callbacks that come first log before this one is called."""
    scheduler = SchedulerFactory("reduce_on_plateau", interval="epoch", monitor="loss", mode="max", patience=0)
    monitor, trace = LearningRateMonitor("epoch"), StepTrace()
    both = [monitor, StagedUnfreeze({"whole": {"params": "*"}})]
    fit(
        Net(by_factory(scheduler, groups=None)),
        tmp_path,
        *(both if is_first else both[::-1]),
        trace,
        logger=CSVLogger(tmp_path),
    )
    used = [groups["whole"] for groups in trace.steps[::BATCHES]]
    assert len(set(used)) > 1
    assert list(monitor.lrs.values()) == [used]


def test_explain_shows_what_thaws_when_and_changes_nothing() -> None:
    module = Net(by_factory())
    module.backbone.requires_grad_(False)
    rows = StagedUnfreeze(PLAN).explain(module, OptimizerFactory("adamw", lr=0.01, groups=NO_DECAY)).rows()
    assert [(row["group"], row.get("thaws"), row.get("lr")) for row in rows] == [
        ("head", "from the start", 0.01),
        ("head.no_decay", "from the start", 0.01),
        ("backbone", "epoch 1", 0.001),
        ("backbone.no_decay", "epoch 1", 0.001),
        ("all", None, None),
    ]
    assert [row["group"] for row in StagedUnfreeze(PLAN).explain(module).rows()] == ["head", "backbone", "all"]
    assert not any(p.requires_grad for p in module.backbone.parameters())


def test_a_checkpoint_of_another_plan_is_refused(tmp_path) -> None:
    fit(Net(by_factory()), tmp_path, StagedUnfreeze(PLAN), epochs=2, save=True)
    renamed = {"head": PLAN["head"], "body": PLAN["backbone"]}
    with pytest.raises(ConfigError, match="the checkpoint has thawed 'backbone', which is not a stage of this plan"):
        fit(Net(by_factory()), tmp_path, StagedUnfreeze(renamed), ckpt_path=tmp_path / "step=8.ckpt")


def test_a_checkpoint_of_a_run_without_stages_is_refused(tmp_path) -> None:
    fit(Net(by_factory()), tmp_path, epochs=1, save=True)
    with pytest.raises(ConfigError, match=r"^stages: .* without StagedUnfreeze, which trained .*: backbone\. Resume"):
        fit(Net(by_factory()), tmp_path, StagedUnfreeze(PLAN), epochs=2, ckpt_path=tmp_path / "step=3.ckpt")


@pytest.mark.filterwarnings("ignore:Be aware that when using .ckpt_path")
def test_a_run_without_the_stages_of_its_checkpoint_is_refused(tmp_path) -> None:
    fit(Net(by_factory()), tmp_path, StagedUnfreeze(PLAN), epochs=1, save=True)
    with pytest.raises(
        ConfigError, match=r"no state for 6 parameters of this run: .* Use the stages \(StagedUnfreeze\)"
    ):
        fit(Net(by_factory()), tmp_path, epochs=2, ckpt_path=tmp_path / "step=3.ckpt")


def test_the_checkpoint_loads_with_weights_only(tmp_path) -> None:
    fit(Net(by_factory()), tmp_path, StagedUnfreeze(PLAN), RNGState(), epochs=2, save=True)
    state = torch.load(tmp_path / "step=5.ckpt", weights_only=True)["callbacks"]["StagedUnfreeze"]
    assert state["thawed"] == ["head", "backbone"]
    assert [group["name"] for group in state["optimizers"][0]["scheduler_groups"]] == ["default", "no_decay"]
