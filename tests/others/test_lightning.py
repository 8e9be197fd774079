"""Lightning's BaseFinetuning and BackboneFinetuning, and StagedUnfreeze, at the same jobs.

`test_..._lightning...` pins down what Lightning 2.6.6 gets wrong. One that goes red has been mended there: see that it
now does what ours does, and delete it. They are not run by default: `pytest -m others tests/others`.

- T1: after a resume the backbone is frozen. Lightning #21901.
- T2: schedulers raise, or leave their curve. Lightning #12141, #8720; flash #1321; torch #79888, #53712.
- T3: parameters of equal values are taken for one.
- T4: the lr of the whole model is overwritten.
- T5: replicas diverge under DDP. Lightning #20340.
- T6: a frozen BatchNorm is none. Lightning #15062, #13902, #15063.
- T7: a trigger that a resume has passed never fires.
- T8: each of two optimizers gets the backbone, and one lr is raised for both.
- T9: strategies that restore after setup lose the late groups.
- T10: LearningRateMonitor's tags change. Lightning #20194.
- T11: a parameter that the module does not have is a KeyError.
- T12: a resume after the thaw was refused: "a different number of parameter groups". Lightning #6891, #8502. Mended.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import BaseFinetuning
from torch.optim import Optimizer
from torch.optim import lr_scheduler as torch_schedulers

from lightning_optim import ConfigError, SchedulerFactory
from tests.support import other_scenarios as scenarios
from tests.support.other_tools import BACKBONE, HEAD, LR, TENTH, Tool, lightning, ours, staged
from tests.support.training import BATCHES, same

WEIGHT = "backbone.0.weight"
LAYERS = [f"backbone.{layer}.{leaf}" for layer in (0, 1, 3) for leaf in ("weight", "bias")]

skips_what_is_there = pytest.mark.filterwarnings("ignore:The provided params to be frozen already exist")


class Freezes(BaseFinetuning):
    """The backbone, BatchNorm and all."""

    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.backbone, train_bn=False)

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Optimizer) -> None: ...


@pytest.mark.others
def test_the_job_is_the_same(tmp_path) -> None:
    """Where nothing goes wrong, the two train the same weights."""
    theirs, mine = (scenarios.train(tool, tmp_path) for tool in (lightning(), ours()))
    assert theirs.seen == mine.seen
    assert same(theirs.outcome, mine.outcome)


# T1: resume after the thaw.


@pytest.mark.others
def test_t1_lightning_goes_on_with_a_frozen_backbone(tmp_path) -> None:
    """It is in the optimizer, at the right lr, and has no gradient; there is no warning. Lightning #21901.

    When this is red, Lightning has been mended (its PR #21902): delete it.
    """
    _, again = scenarios.resume(lightning(), tmp_path, "epoch=1")
    assert again.trained() == ["head.weight", "head.bias"]
    assert again.seen[-1][WEIGHT] == TENTH
    saved = torch.load(tmp_path / "epoch=1.ckpt")["state_dict"]
    assert same({name: again.module.state_dict()[name] for name in LAYERS}, {name: saved[name] for name in LAYERS})


@pytest.mark.parametrize(
    ("configure", "stop"),
    [
        *((scenarios.sgd, f"epoch={epoch}") for epoch in range(3)),
        (scenarios.from_config(), "epoch=1"),
        (scenarios.from_config(SchedulerFactory("one_cycle", total_steps=24)), "epoch=1"),
    ],
    ids=["epoch 0", "epoch 1", "epoch 2", "from config", "from config, one cycle"],
)
def test_t1_ours_goes_on_as_if_nothing_had_happened(tmp_path, configure, stop) -> None:
    full, again = scenarios.resume(ours(), tmp_path, stop, configure)
    assert same(again.outcome, full.outcome)
    assert again.seen == full.seen[-len(again.seen) :]
    assert WEIGHT in again.trained()


# T2: schedulers. OneCycleLR lacks 'initial_lr' where the thaw comes before its peak, and 'max_lr' here, after it.

SCHEDULERS: dict[str, tuple[scenarios.MakeScheduler, type[Exception], str, int]] = {
    "lambda": (lambda o: torch_schedulers.LambdaLR(o, lambda t: 0.9**t), ValueError, r"zip\(\)", 5),
    "multiplicative": (lambda o: torch_schedulers.MultiplicativeLR(o, lambda t: 0.9), ValueError, r"zip\(\)", 5),
    "restarts": (lambda o: torch_schedulers.CosineAnnealingWarmRestarts(o, 3), ValueError, r"zip\(\)", 5),
    "cyclic": (lambda o: torch_schedulers.CyclicLR(o, 1e-3, 0.1, step_size_up=3), ValueError, r"zip\(\)", 5),
    "one cycle": (lambda o: torch_schedulers.OneCycleLR(o, 0.1, total_steps=25), KeyError, "initial_lr", 5),
    "cosine": (lambda o: torch_schedulers.CosineAnnealingLR(o, 6), ValueError, r"zip\(\)", 7),
    "warm-up, then cosine": (
        lambda o: torch_schedulers.SequentialLR(
            o, [torch_schedulers.LinearLR(o, 0.1, total_iters=6), torch_schedulers.CosineAnnealingLR(o, 20)], [6]
        ),
        ValueError,
        r"zip\(\)",
        6,
    ),
}
CROOKED: dict[str, scenarios.MakeScheduler] = {
    "exponential": lambda o: torch_schedulers.ExponentialLR(o, 0.9),
    "linear": lambda o: torch_schedulers.LinearLR(o, 0.1, total_iters=14),
    "polynomial": lambda o: torch_schedulers.PolynomialLR(o, 25),
}


@pytest.mark.others
@pytest.mark.parametrize(("make", "error", "message", "steps"), SCHEDULERS.values(), ids=SCHEDULERS)
def test_t2_lightning_crashes_the_scheduler(tmp_path, make, error, message, steps) -> None:
    """Torch's schedulers keep a value for each group, and nobody tells them of the new one.

    The backbone thaws before step 5 of 24; with CosineAnnealingLR the crash waits until its first half period is over.
    When this is red, Lightning or torch (#79888, #53712) has been mended: delete it.
    """
    seen: list[Any] = []
    with pytest.raises(error, match=message):
        scenarios.train(
            lightning(), tmp_path, scenarios.scheduled(make), look=lambda trainer, _: seen.append(trainer.global_step)
        )
    assert len(seen) == steps


@pytest.mark.others
@pytest.mark.parametrize("make", CROOKED.values(), ids=CROOKED)
def test_t2_lightning_leaves_the_curve_where_it_does_not_crash(tmp_path, make) -> None:
    """The callback sets the backbone's lr itself at each epoch; within one, the scheduler moves it from there.

    When this is red, Lightning has been mended: delete it.
    """
    head, backbone = scenarios.follow_a_schedule(lightning(), tmp_path, make)
    assert head == scenarios.curve(make)
    assert backbone[::BATCHES] == [backbone[0]] * 5
    assert backbone[BATCHES] != pytest.approx(head[2 * BATCHES] * 0.1, rel=0.1)


@pytest.mark.parametrize(
    "make", [*(case[0] for case in SCHEDULERS.values()), *CROOKED.values()], ids=[*SCHEDULERS, *CROOKED]
)
def test_t2_ours_is_on_the_curve_from_its_first_step(tmp_path, make) -> None:
    expected = scenarios.curve(make)
    assert scenarios.follow_a_schedule(ours(), tmp_path, make) == (expected, [lr * 0.1 for lr in expected[BATCHES:]])


# T3: two fresh blocks.


class BlockByBlock(Freezes):
    """Two blocks at epoch 1, the deeper one at a hundredth of the lr."""

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Optimizer) -> None:
        if epoch == 1:
            for block, lr in zip(pl_module.backbone, (LR * 0.01, TENTH), strict=True):
                self.unfreeze_and_add_param_group(block, optimizer, lr)


@pytest.mark.others
def test_t3_lightning_takes_parameters_of_equal_values_for_one(tmp_path) -> None:
    """The second LayerNorm requires a gradient and is in no group; the warning says that it is in one already.

    Only where the blocks are added one by one: parameters of one call are not compared with each other.
    When this is red, Lightning has been mended: delete it.
    """
    with pytest.warns(UserWarning, match="already exist within another group of this optimizer"):
        run, loose = scenarios.thaw_two_fresh_blocks(Tool(BlockByBlock), tmp_path)
    assert loose == ["backbone.1.1.weight", "backbone.1.1.bias"]
    assert torch.equal(run.module.backbone[1][1].weight, torch.ones(8))


def test_t3_ours_knows_parameters_by_identity(tmp_path) -> None:
    blocks = {
        "last": {"params": "backbone.1", "at": {"epoch": 1}, "lr_scale": 0.1},
        "first": {"params": "backbone.0", "at": {"epoch": 1}, "lr_scale": 0.01},
    }
    run, loose = scenarios.thaw_two_fresh_blocks(staged({**HEAD, **blocks}), tmp_path)
    assert loose == []
    assert (run.seen[-1]["backbone.0.1.weight"], run.seen[-1]["backbone.1.1.weight"]) == (LR * 0.01, TENTH)
    assert not torch.equal(run.module.backbone[1][1].weight, torch.ones(8))


# T4: `self.parameters()`.


@pytest.mark.others
@skips_what_is_there
@pytest.mark.parametrize(("align", "later"), [(False, [2, 4, 8]), (True, [2, 2, 2])], ids=["not aligned", "default"])
def test_t4_lightning_overwrites_the_lr_of_the_whole_model(tmp_path, align, later) -> None:
    """No group is added, so `param_groups[-1]` is the head's too: its lr falls to a fifth, then follows the backbone's.

    With the default `should_align` it stays there. When this is red, Lightning has been mended: delete it.
    """
    lrs = scenarios.give_the_whole_model(lightning(growth=2.0, should_align=align), tmp_path)
    assert all(set(epoch) == {*LAYERS, "head.weight", "head.bias"} for epoch in lrs)
    expected = [LR, LR, *(TENTH * factor for factor in later)]
    assert [epoch["head.weight"] for epoch in lrs[:5]] == pytest.approx(expected, rel=1e-12)
    assert [epoch[WEIGHT] for epoch in lrs] == [epoch["head.weight"] for epoch in lrs]


def test_t4_ours_takes_the_backbone_out_until_it_thaws(tmp_path) -> None:
    lrs = scenarios.give_the_whole_model(ours(), tmp_path)
    assert [epoch["head.weight"] for epoch in lrs] == [LR] * 6
    assert [epoch.get(WEIGHT) for epoch in lrs] == [None] + [TENTH] * 5


# T5: DDP.


@pytest.mark.others
@pytest.mark.parametrize("strategy", ["ddp", "ddp_find_unused_parameters_true"])
def test_t5_lightning_lets_replicas_diverge(tmp_path, strategy) -> None:
    """DDP averages the gradients of what was trained when it was built. Lightning #20340.

    When this is red, Lightning has been mended: delete it.
    """
    replicas = scenarios.run_two_processes(strategy, "lightning", tmp_path)
    assert scenarios.steps_apart(replicas) == [*range(BATCHES, 6 * BATCHES)]


@pytest.mark.slow
def test_t5_ours_keeps_replicas_equal(tmp_path) -> None:
    replicas = scenarios.run_two_processes("ddp", "ours", tmp_path)
    assert [WEIGHT in step["trained"] for step in replicas[0]] == [False] * BATCHES + [True] * 5 * BATCHES
    assert scenarios.steps_apart(replicas) == []


# T6: BatchNorm in the frozen backbone.


@pytest.mark.others
def test_t6_lightning_normalises_by_the_batch_in_a_frozen_batchnorm(tmp_path) -> None:
    """`freeze(train_bn=False)` sets `track_running_stats = False`: the layer trains the head by other values than those
    that it has in eval.

    When this is red, Lightning has been mended: delete it.
    """
    steps = scenarios.keep_a_batchnorm_frozen(Tool(Freezes), tmp_path)
    assert steps == [scenarios.Normed(False, False, False, None)] * BATCHES


@pytest.mark.others
def test_t6_lightning_trains_the_batchnorm_of_a_frozen_backbone_at_the_heads_lr(tmp_path) -> None:
    """BackboneFinetuning freezes with `train_bn=True`, whatever its own `train_bn` says.

    The documented filter then puts the layer's weights into the head's group.
    When this is red, Lightning has been mended: delete it.
    """
    steps = scenarios.keep_a_batchnorm_frozen(lightning(train_bn=False), tmp_path)
    assert steps == [scenarios.Normed(False, True, True, LR)] * BATCHES


def test_t6_ours_leaves_a_frozen_batchnorm_alone(tmp_path) -> None:
    steps = scenarios.keep_a_batchnorm_frozen(ours(), tmp_path)
    assert steps == [scenarios.Normed(True, False, False, None)] * BATCHES


# T7: a resume in the middle of the epoch of the trigger.


@pytest.mark.others
def test_t7_lightning_misses_a_trigger_that_a_resume_has_passed(tmp_path) -> None:
    """Lightning runs no on_train_epoch_start in an epoch that it resumes amid, and the trigger is `epoch ==`.

    The first run was to thaw at epoch 9, the second at epoch 1, and it goes on in the middle of that. Epoch 2 then
    takes for granted that there was a thaw. When this is red, Lightning has been mended: delete it.
    """
    with pytest.raises(TypeError, match="'float' and 'NoneType'"):
        scenarios.resume(lightning(), tmp_path, "step=6", until_then=lightning(epoch=9))


def test_t7_ours_thaws_what_is_overdue(tmp_path) -> None:
    _, again = scenarios.resume(ours(), tmp_path, "step=6", until_then=ours(epoch=9))
    assert [WEIGHT in lrs for lrs in again.seen] == [True] * 18


@pytest.mark.others
def test_t7_lightning_freezes_again_in_the_middle_of_an_epoch(tmp_path) -> None:
    """The same plan throughout: T1 once more. When this is red, Lightning has been mended (#21901): delete it."""
    full, again = scenarios.resume(lightning(), tmp_path, "step=6")
    assert len(again.seen) == 18
    assert WEIGHT in full.trained() and WEIGHT not in again.trained()


@pytest.mark.parametrize("step", [4, 6])
def test_t7_ours_goes_on_in_the_middle_of_an_epoch(tmp_path, step) -> None:
    full, again = scenarios.resume(ours(), tmp_path, f"step={step}")
    assert same(again.outcome, full.outcome)
    assert again.seen == full.seen[step:]


# T8: two optimizers.


@pytest.mark.others
@pytest.mark.parametrize(
    ("growth", "factors"),
    [(1.0, [(1, 1), (1, 1), (1, 1)]), (2.0, [(1, 1), (2, 4), (8, 16)])],
    ids=["constant", "doubled each epoch"],
)
def test_t8_lightning_gives_each_optimizer_the_backbone(tmp_path, growth, factors) -> None:
    """So each batch moves it twice; and an lr that is to double each epoch doubles once for each optimizer.

    When this is red, Lightning has been mended: delete it.
    """
    epochs = scenarios.thaw_under_two_optimizers(lightning(growth=growth), tmp_path)
    assert [[WEIGHT in lrs for lrs in epoch] for epoch in epochs] == [[False, False]] + [[True, True]] * 3
    lrs = [tuple(optimizer[WEIGHT] for optimizer in epoch) for epoch in epochs[1:]]
    assert lrs == [pytest.approx((TENTH * a, TENTH * b)) for a, b in factors]


def test_t8_ours_gives_the_backbone_to_the_optimizer_that_has_it(tmp_path) -> None:
    tool = staged({"heads": {"params": ["head", "other"]}, "backbone": BACKBONE})
    heads: list[dict[str, float]] = [{"head.weight": LR, "head.bias": LR}, {"other.weight": LR, "other.bias": LR}]
    thawed = {**heads[0], **dict.fromkeys(LAYERS, TENTH)}
    assert scenarios.thaw_under_two_optimizers(tool, tmp_path) == [heads] + [[thawed, heads[1]]] * 3


# T9: strategies that restore after setup.


@pytest.mark.others
def test_t9_lightning_forgets_the_late_groups_where_a_strategy_restores_late(tmp_path) -> None:
    """On FSDP2, on_fit_start comes before the callback's state: the backbone is in no group of the resumed optimizer.

    Neither the loading nor the training complains. When this is red, Lightning has been mended: delete it.
    """
    full = scenarios.run_two_processes("fsdp2", "lightning", tmp_path)
    assert all(WEIGHT in step["lrs"] for step in full[0][BATCHES:])
    again = scenarios.run_two_processes("fsdp2", "lightning", tmp_path / "again", tmp_path / "epoch=1.ckpt")
    assert len(again[0]) == 16
    assert all(set(step["lrs"]) == {"head.weight", "head.bias"} == set(step["trained"]) for step in again[0])


@pytest.mark.slow
def test_t9_ours_goes_on_where_a_strategy_restores_late(tmp_path) -> None:
    full = scenarios.run_two_processes("fsdp2", "ours", tmp_path)
    again = scenarios.run_two_processes("fsdp2", "ours", tmp_path / "again", tmp_path / "epoch=1.ckpt")
    assert same(again, [replica[2 * BATCHES :] for replica in full])


# T10: tags.


@pytest.mark.others
def test_t10_lightning_renames_the_tags(tmp_path) -> None:
    """Groups without names are numbered once there are two: one curve ends, two begin. Lightning #20194.

    When this is red, Lightning has been mended: delete it.
    """
    tags = scenarios.log_the_lrs(lightning(), tmp_path)
    assert tags == [{"lr-SGD"}, {"lr-SGD/pg1", "lr-SGD/pg2"}, {"lr-SGD/pg1", "lr-SGD/pg2"}]


def test_t10_ours_keeps_every_tag(tmp_path) -> None:
    """The backbone's comes at the start of the epoch in which it thaws."""
    first, second, third = scenarios.log_the_lrs(ours(), tmp_path)
    assert second - first == {"lr-SGD/backbone"}
    assert second == third
    assert first - second == set()


# T11: a parameter that is not the module's.


@pytest.mark.others
def test_t11_lightning_has_no_name_for_what_is_not_the_modules(tmp_path) -> None:
    """A KeyError with the tensor for a message.

    Flat parameters of FSDP1 ought to raise it too; Lightning runs that on no CPU, so it is not here.
    When this is red, Lightning has been mended: delete it.
    """
    with pytest.raises(KeyError, match=r"Parameter containing"):
        scenarios.train_what_the_module_does_not_have(lightning(), tmp_path)


def test_t11_ours_says_that_no_stage_has_it(tmp_path) -> None:
    """Before the first step: no stage could claim it, as no name does, and left out it would never be trained."""
    with pytest.raises(ConfigError, match="^stages: "):
        scenarios.train_what_the_module_does_not_have(ours(), tmp_path)


# T12: the number of param groups.


@pytest.mark.others
def test_t12_lightning_loads_more_groups_than_were_configured(tmp_path) -> None:
    """Not a bug any more: "loaded state dict has a different number of parameter groups" was #6891 and #8502.

    When this is red, the bug is back: turn it round.
    """
    _, again = scenarios.resume(lightning(), tmp_path, "epoch=1")
    assert len(again.trainer.optimizers[0].param_groups) == 2
    assert set(again.seen[0]) == {*LAYERS, "head.weight", "head.bias"}


def test_t12_ours_loads_more_groups_than_were_configured(tmp_path) -> None:
    full, again = scenarios.resume(ours(), tmp_path, "epoch=1")
    groups = [[group["name"] for group in run.trainer.optimizers[0].param_groups] for run in (full, again)]
    assert groups == [["head", "backbone"]] * 2
    assert again.seen == full.seen[2 * BATCHES :]
