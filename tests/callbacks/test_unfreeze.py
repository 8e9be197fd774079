"""StagedUnfreeze under Lightning."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, strategies
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, StochasticWeightAveraging
from torch import nn
from torch.optim import lr_scheduler as torch_schedulers

from lightning_optim import (
    ConfigError,
    OptimizerFactory,
    RNGState,
    SchedulerFactory,
    StagedUnfreeze,
    configure_optimizers,
)
from tests.support.training import BATCHES, Loader, Net, Witness, fit, same

PLAN: dict[str, Any] = {
    "head": {"params": "head"},
    "backbone": {"params": "backbone", "at": {"epoch": 1}, "lr_scale": 0.1},
}
NO_DECAY = {"no_decay": {"kinds": ["bias", "norm"], "weight_decay": 0}}


def _from_config(scheduler: SchedulerFactory | None = None, name: str = "adamw", **arguments: Any) -> Any:
    factory = OptimizerFactory(name, lr=0.01, **{"groups": NO_DECAY, **arguments})
    return lambda module: configure_optimizers(module, factory, scheduler)


def _by_hand(make_scheduler: Any, **config: Any) -> Any:
    def configure(module: Net) -> Any:
        optimizer = torch.optim.SGD(
            [{"params": list(module.backbone.parameters())}, {"params": list(module.head.parameters()), "lr": 0.02}],
            lr=0.01,
            momentum=0.9,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": make_scheduler(optimizer), **config}}

    return configure


def test_a_stage_joins_as_groups_of_its_own(tmp_path) -> None:
    witness = Witness()
    fit(Net(_from_config()), tmp_path, StagedUnfreeze(PLAN), witness, epochs=2)
    head, everything = ["head", "head.no_decay"], ["backbone", "backbone.no_decay"]
    assert [list(step) for step in witness.seen] == [head] * BATCHES + [head + everything] * BATCHES
    assert witness.seen[-1] == {"head": 0.01, "head.no_decay": 0.01, "backbone": 0.001, "backbone.no_decay": 0.001}


def test_a_frozen_stage_has_no_gradient_no_state_and_keeps_its_statistics(tmp_path) -> None:
    def look(trainer: Trainer, module: Any) -> Any:
        backbone = list(module.backbone.parameters())
        return {
            "requires_grad": [p.requires_grad for p in backbone],
            "gradients": [p.grad for p in backbone],
            "state": [p in trainer.optimizers[0].state for p in backbone],
            "norm": (module.backbone[1].training, module.backbone[1].running_mean.clone()),
        }

    witness, module = Witness(look), Net(_from_config())
    before = module.backbone[1].running_mean.clone()
    fit(module, tmp_path, StagedUnfreeze(PLAN), witness, epochs=2)
    for frozen in witness.seen[:BATCHES]:
        assert not any(frozen["requires_grad"]) and not any(frozen["state"])
        assert frozen["gradients"] == [None] * 6
        assert frozen["norm"][0] is False and torch.equal(frozen["norm"][1], before)
    for thawed in witness.seen[BATCHES:]:
        assert all(thawed["requires_grad"]) and all(thawed["state"])
        assert thawed["norm"][0] is True and not torch.equal(thawed["norm"][1], before)


@pytest.mark.parametrize(
    ("options", "norm", "dropout"),
    [({}, False, True), ({"frozen_norm": "train"}, True, True), ({"frozen_dropout": "eval"}, False, False)],
    ids=["default", "norm in train", "dropout in eval"],
)
def test_modes_of_a_frozen_part(tmp_path, options, norm, dropout) -> None:
    class Deep(Net):
        def __init__(self, configure: Any) -> None:
            super().__init__(configure, dropout=0.1)
            self.backbone = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8, affine=False), nn.Dropout(0.1))

    witness = Witness(
        lambda _, module: (module.backbone[1].training, module.backbone[2].training, module.dropout.training)
    )
    fit(Deep(_from_config()), tmp_path, StagedUnfreeze(PLAN, **options), witness, epochs=2)
    assert witness.seen == [(norm, dropout, True)] * BATCHES + [(True, True, True)] * BATCHES


@pytest.mark.parametrize("at", [{"step": 3}, {"step": 8}, {"epoch": 2}], ids=str)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_triggers_count_optimizer_steps_and_epochs(tmp_path, at, accumulate) -> None:
    witness = Witness()
    plan = {**PLAN, "backbone": {**PLAN["backbone"], "at": at}}
    fit(Net(_from_config()), tmp_path, StagedUnfreeze(plan), witness, accumulate_grad_batches=accumulate)
    steps_per_epoch = BATCHES // accumulate
    thaw = at["step"] if "step" in at else at["epoch"] * steps_per_epoch
    assert [len(step) for step in witness.seen] == [2 if t < thaw else 4 for t in range(4 * steps_per_epoch)]


SETUPS = {
    "constant": _from_config(),
    "cosine": _from_config(SchedulerFactory("cosine_annealing")),
    "one cycle": _from_config(SchedulerFactory("one_cycle")),
    "warm-up": _from_config(SchedulerFactory("warmup_cosine", warmup_steps=3)),
    "by epoch": _from_config(SchedulerFactory("exponential", interval="epoch", gamma=0.5)),
    "nadamw, one cycle": _from_config(SchedulerFactory("one_cycle"), "nadamw"),
    "amsbound, relative decay": _from_config(
        SchedulerFactory("warmup_cosine", warmup_steps=3), "amsbound", weight_decay=0.1, weight_decay_mode="relative"
    ),
    "lambda by hand": _by_hand(lambda o: torch_schedulers.LambdaLR(o, lambda t: 0.9**t), interval="step"),
    "cyclic by hand": _by_hand(lambda o: torch_schedulers.CyclicLR(o, 1e-3, 0.1, step_size_up=3), interval="step"),
    "restarts by hand": _by_hand(lambda o: torch_schedulers.CosineAnnealingWarmRestarts(o, 3), interval="step"),
}


@pytest.mark.parametrize("configure", SETUPS.values(), ids=SETUPS)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_resumes_bitwise_from_every_optimizer_step(tmp_path, configure, accumulate) -> None:
    plan = {**PLAN, "backbone": {**PLAN["backbone"], "warmup_steps": 3}}

    def run(folder: Any, ckpt_path: Any = None) -> tuple[Trainer, Net, Witness]:
        # Another seed when resuming: what is not restored shows.
        module, witness = Net(configure, dropout=0.3), Witness()
        callbacks = (StagedUnfreeze(plan), RNGState(), witness)
        arguments = {"ckpt_path": ckpt_path, "save": ckpt_path is None, "seed": 1 if ckpt_path is None else 2}
        return (
            fit(module, folder, *callbacks, epochs=3, accumulate_grad_batches=accumulate, **arguments),
            module,
            witness,
        )

    torch.manual_seed(0)
    trainer, module, witness = run(tmp_path)
    checkpoints = sorted(tmp_path.glob("*.ckpt"), key=lambda path: int(path.stem.split("=")[1]))
    assert len(checkpoints) == 3 * BATCHES // accumulate
    for step, checkpoint in enumerate(checkpoints[:-1], start=1):
        again, resumed, saw = run(tmp_path / "again", checkpoint)
        assert saw.seen == witness.seen[step:], step
        assert same(module.state_dict(), resumed.state_dict()), step
        assert same(trainer.optimizers[0].state_dict(), again.optimizers[0].state_dict()), step


def test_stages_thaw_at_their_own_triggers_in_any_order(tmp_path) -> None:
    stem = {"params": "backbone.0", "at": {"step": 6}}  # the narrower one comes first, and thaws last
    plan = {"head": PLAN["head"], "stem": stem, "backbone": {"params": "backbone", "at": {"epoch": 1}}}
    witness, module = Witness(), Net(_from_config(groups={}))
    fit(module, tmp_path, StagedUnfreeze(plan), witness, epochs=3, save=True)
    assert list(witness.seen[-1]) == ["head", "backbone", "stem"]
    resumed = Net(_from_config(groups={}))
    fit(resumed, tmp_path, StagedUnfreeze(plan), epochs=3, ckpt_path=tmp_path / "step=7.ckpt", seed=2)
    assert same(module.state_dict(), resumed.state_dict())


def test_a_rule_that_freezes_beats_every_stage(tmp_path) -> None:
    groups = {"stem": {"params": "backbone.0", "frozen": True}}
    module = Net(_from_config(groups=groups))
    before = module.backbone[0].weight.clone()
    trainer = fit(module, tmp_path, StagedUnfreeze(PLAN), epochs=2)
    assert torch.equal(module.backbone[0].weight, before)
    held = [p for group in trainer.optimizers[0].param_groups for p in group["params"]]
    assert len(held) == len(list(module.parameters())) - 2


def test_what_was_frozen_by_hand_thaws(tmp_path) -> None:
    module = Net(_from_config())
    module.backbone.requires_grad_(False)
    before = module.backbone[0].weight.clone()
    fit(module, tmp_path, StagedUnfreeze(PLAN), epochs=2)
    assert not torch.equal(module.backbone[0].weight, before)


def test_a_second_fit_keeps_the_stage(tmp_path) -> None:
    module, unfreeze, witness = Net(_from_config()), StagedUnfreeze(PLAN), Witness()
    fit(module, tmp_path, unfreeze, epochs=2)
    fit(module, tmp_path, unfreeze, witness, epochs=1)
    assert [len(step) for step in witness.seen] == [4] * BATCHES


def test_another_module_begins_anew(tmp_path) -> None:
    unfreeze, witness = StagedUnfreeze(PLAN), Witness()
    fit(Net(_from_config()), tmp_path, unfreeze, epochs=2)
    fit(Net(_from_config()), tmp_path, unfreeze, witness, epochs=1)
    assert [len(step) for step in witness.seen] == [2] * BATCHES


def test_what_a_validation_loaded_does_not_reach_the_next_fit(tmp_path) -> None:
    class Validated(Net):
        def validation_step(self, batch: Any, batch_idx: int) -> None: ...

    fit(Net(_from_config()), tmp_path, StagedUnfreeze(PLAN), RNGState(), epochs=2, save=True)
    unfreeze, generators, witness = StagedUnfreeze(PLAN), RNGState(), Witness()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(accelerator="cpu", callbacks=[unfreeze, generators], logger=False, enable_progress_bar=False)
        trainer.validate(Validated(_from_config()), Loader(), ckpt_path=tmp_path / "step=8.ckpt", verbose=False)
    fit(Net(_from_config()), tmp_path, unfreeze, generators, witness, epochs=1)
    assert [len(step) for step in witness.seen] == [2] * BATCHES


@pytest.mark.filterwarnings("ignore:Found 1 module")
def test_a_norm_that_was_in_eval_stays_so_and_one_that_was_not_comes_back(tmp_path) -> None:
    def deep() -> Net:
        module = Net(_from_config())
        module.backbone.append(nn.BatchNorm1d(8))
        module.backbone[1].eval()
        return module

    late = {**PLAN, "backbone": {"params": "backbone", "at": {"step": 2}}}
    witness = Witness(lambda _, module: (module.backbone[1].training, module.backbone[4].training))
    fit(deep(), tmp_path, witness, StagedUnfreeze(late), epochs=1)
    assert witness.seen == [(False, False)] * 2 + [(False, True)] * 2
    never_thawed = deep()
    fit(never_thawed, tmp_path, StagedUnfreeze(PLAN), epochs=1)
    assert (never_thawed.backbone[1].training, never_thawed.backbone[4].training) == (False, True)


@pytest.mark.filterwarnings("ignore:Swapping scheduler")
def test_a_callback_that_swaps_the_scheduler_is_refused(tmp_path) -> None:
    swa = StochasticWeightAveraging(swa_lrs=0.1, swa_epoch_start=2)
    with pytest.raises(ConfigError, match="a callback has put a SWALR of its own in the place of the scheduler"):
        fit(
            Net(_from_config(SchedulerFactory("exponential", interval="epoch", gamma=0.9))),
            tmp_path,
            swa,
            StagedUnfreeze(PLAN),
        )


@pytest.mark.parametrize(("name", "why"), [("DeepSpeedStrategy", "flat pieces"), ("FSDPStrategy", "FSDP1 flattens")])
def test_strategies_that_cannot_thaw_are_refused_with_the_reason(name, why) -> None:
    cls = getattr(strategies, name)

    class Sharded:
        strategy = cls.__new__(cls)

    with pytest.raises(ConfigError, match=rf"^trainer\.strategy: {name}: .*{why}.* Type trainer\.strategy=ddp"):
        StagedUnfreeze(PLAN).setup(Sharded(), Net(_from_config()), "fit")


def test_any_other_strategy_is_refused_too() -> None:
    class Mine(strategies.DDPStrategy): ...

    class Other:
        strategy = Mine()

    with pytest.raises(ConfigError, match=r"^trainer\.strategy: Mine: StagedUnfreeze has not been tried on it"):
        StagedUnfreeze(PLAN).setup(Other(), Net(_from_config()), "fit")


def test_a_hook_of_the_instances_own_comes_back(tmp_path) -> None:
    module = Net(_from_config())
    module.configure_optimizers = own = lambda: torch.optim.SGD(module.parameters(), 0.1)
    fit(module, tmp_path, StagedUnfreeze(PLAN), epochs=1)
    assert module.configure_optimizers is own


def test_explain_refuses_what_fit_would() -> None:
    with pytest.raises(ConfigError, match="stages: 6 parameters that require a gradient belong to no stage"):
        StagedUnfreeze({"head": {"params": "head"}}).explain(Net(_from_config()))


def test_the_modules_own_hook_comes_back(tmp_path) -> None:
    module = Net(_from_config())
    trainer = fit(module, tmp_path, StagedUnfreeze(PLAN), epochs=1)
    assert "configure_optimizers" not in vars(module)
    assert not trainer.optimizers[0]._optimizer_step_pre_hooks and not trainer.optimizers[0]._optimizer_step_post_hooks


def test_the_modules_own_hook_comes_back_after_an_exception(tmp_path) -> None:
    class Fails(Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            raise ZeroDivisionError

    module = Net(_from_config())
    with pytest.raises(ZeroDivisionError):
        fit(module, tmp_path, StagedUnfreeze(PLAN), Fails(), epochs=1)
    assert "configure_optimizers" not in vars(module)


def test_several_optimizers_are_split_each_by_its_own_groups(tmp_path) -> None:
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

    def look(trainer: Trainer, _: LightningModule) -> Any:
        return [[group["name"] for group in optimizer.param_groups] for optimizer in trainer.optimizers]

    witness = Witness(look)
    fit(Manual(), tmp_path, StagedUnfreeze(PLAN), witness, epochs=2)
    assert witness.seen == [[["head"], []]] * BATCHES + [[["head"], ["backbone"]]] * BATCHES


def test_learning_rate_monitor_beside_it(tmp_path) -> None:
    from lightning.pytorch.loggers import CSVLogger

    monitor = LearningRateMonitor()
    logger = CSVLogger(tmp_path)
    scheduler = SchedulerFactory("cosine_annealing")
    fit(
        Net(_from_config(scheduler)),
        tmp_path,
        StagedUnfreeze(PLAN),
        monitor,
        epochs=2,
        logger=logger,
        log_every_n_steps=1,
    )
    live = {f"lr-AdamW/{group}" for group in ("head", "head.no_decay", "backbone", "backbone.no_decay")}
    assert set(monitor.lrs) == live | {"lr-AdamWAsConfigured/default", "lr-AdamWAsConfigured/no_decay"}


def test_explain_says_what_thaws_when_and_changes_nothing() -> None:
    module = Net(_from_config())
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


WRONG_PLANS: dict[str, tuple[Any, str]] = {
    "not a mapping": ([], r"stages: got \[\]"),
    "stage not a mapping": ({"head": "head"}, r"stages\.head: got 'head'"),
    "no selector": ({"head": {}}, r"stages\.head: it selects nothing"),
    "misspelt key": ({"head": {"params": "head", "lr_scal": 1}}, r"stages\.head\.lr_scal: .*Did you mean 'lr_scale'"),
    "misspelt trigger": (
        {**PLAN, "backbone": {"params": "backbone", "at": {"epoc": 1}}},
        r"stages\.backbone\.at\.epoc: .*Did you mean 'epoch'",
    ),
    "two triggers": (
        {**PLAN, "backbone": {"params": "backbone", "at": {"epoch": 1, "step": 2}}},
        r"stages\.backbone\.at: .*A trigger is one of epoch, step",
    ),
    "negative epoch": (
        {**PLAN, "backbone": {"params": "backbone", "at": {"epoch": -1}}},
        r"stages\.backbone\.at\.epoch: got -1, which is not a whole number >= 0",
    ),
    "bad lr_scale": ({"head": {"params": "head", "lr_scale": "x"}}, r"stages\.head\.lr_scale: got 'x'"),
    "reserved name": ({"all": {"params": "head"}}, r"stages\.all: 'all' has a meaning of its own"),
    "illegal name": ({"the head": {"params": "head"}}, r"stages\.the head: the name 'the head'"),
    "nothing from the start": ({"head": {"params": "head", "at": {"epoch": 1}}}, r"none is trained from the start"),
}


@pytest.mark.parametrize(("stages", "message"), WRONG_PLANS.values(), ids=WRONG_PLANS)
def test_a_wrong_plan_is_refused_when_made(stages, message) -> None:
    with pytest.raises(ConfigError, match=message):
        StagedUnfreeze(stages)


def test_a_wrong_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match="frozen_norm: there is no mode 'evil'. Did you mean 'eval'"):
        StagedUnfreeze(PLAN, frozen_norm="evil")


WRONG_FOR_THE_MODEL: dict[str, tuple[Any, str]] = {
    "matches nothing": (
        {**PLAN, "backbone": {"params": "bakcbone", "at": {"epoch": 1}}},
        r"stages\.backbone: params 'bakcbone' matches none of 8 names\. Did you mean 'backbone'",
    ),
    "all taken": (
        {"head": {"params": "*"}, "backbone": {"params": "backbone", "at": {"epoch": 1}}},
        r"stages\.backbone: all 6 parameters it matches belong to a stage above it",
    ),
    "unclaimed": (
        {"head": {"params": "head"}},
        r"stages: 6 parameters that require a gradient belong to no stage: backbone",
    ),
}


@pytest.mark.parametrize(("stages", "message"), WRONG_FOR_THE_MODEL.values(), ids=WRONG_FOR_THE_MODEL)
def test_a_plan_that_does_not_fit_is_refused_before_the_first_step(tmp_path, stages, message) -> None:
    witness = Witness()
    with pytest.raises(ConfigError, match=message):
        fit(Net(_from_config()), tmp_path, StagedUnfreeze(stages), witness)
    assert not witness.seen


def test_an_optimizer_without_the_backbone_is_refused(tmp_path) -> None:
    def head_only(module: Net) -> Any:
        return torch.optim.SGD(module.head.parameters(), 0.1)

    with pytest.raises(ConfigError, match=r"stages\.backbone: no optimizer holds 6 of the parameters it claims"):
        fit(Net(head_only), tmp_path, StagedUnfreeze(PLAN))


def test_a_checkpoint_of_another_plan_is_refused(tmp_path) -> None:
    fit(Net(_from_config()), tmp_path, StagedUnfreeze(PLAN), epochs=2, save=True)
    renamed = {"head": PLAN["head"], "body": PLAN["backbone"]}
    with pytest.raises(ConfigError, match="the checkpoint has thawed 'backbone', which is no stage of this plan"):
        fit(Net(_from_config()), tmp_path, StagedUnfreeze(renamed), ckpt_path=tmp_path / "step=8.ckpt")


def test_the_checkpoint_loads_with_weights_only(tmp_path) -> None:
    fit(Net(_from_config()), tmp_path, StagedUnfreeze(PLAN), RNGState(), epochs=2, save=True)
    state = torch.load(tmp_path / "step=5.ckpt", weights_only=True)["callbacks"]["StagedUnfreeze"]
    assert state["thawed"] == ["head", "backbone"]
    assert [group["name"] for group in state["optimizers"][0]["scheduler_groups"]] == ["default", "no_decay"]
