"""Lightning's BaseFinetuning and BackboneFinetuning, and StagedUnfreeze, on the same jobs.

`test_..._lightning...` records a bug of Lightning 2.6.6. If one fails, the bug has been fixed there: check that
Lightning now does what StagedUnfreeze does, and delete the test. Not run by default: `pytest -m others tests/others`.

- T1: the backbone is frozen after a resume. Lightning #21901.
- T2: schedulers raise or leave their curve. Lightning #12141, #8720; flash #1321; torch #79888, #53712.
- T3: two parameters with equal values are treated as the same.
- T4: the lr of the whole model is overwritten.
- T5: replicas diverge under DDP. Lightning #20340.
- T6: a frozen BatchNorm is not frozen. Lightning #15062, #13902, #15063.
- T7: a trigger never fires if a resume has passed it.
- T8: each of two optimizers gets the backbone, and both raise its lr.
- T9: strategies that restore after setup lose the groups added at a thaw.
- T10: LearningRateMonitor's tags change. Lightning #20194.
- T11: a parameter outside the module raises a KeyError.
- T12: a resume after the thaw failed: "a different number of parameter groups". Lightning #6891, #8502. Fixed.
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
from tests.support.cases import every
from tests.support.equality import equal
from tests.support.other_tools import BACKBONE, HEAD, LR, TENTH, Tool, lightning, ours, ours_with_stages
from tests.support.training import BATCHES

WEIGHT = "backbone.0.weight"
LAYERS = [f"backbone.{layer}.{leaf}" for layer in (0, 1, 3) for leaf in ("weight", "bias")]

ignores_known_params = pytest.mark.filterwarnings("ignore:The provided params to be frozen already exist")


class FreezeBackbone(BaseFinetuning):
    """FreezeBackbone the backbone including its BatchNorm, and never thaws it."""

    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.backbone, train_bn=False)

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Optimizer) -> None: ...


@pytest.mark.others
def test_weights_are_equal_when_nothing_goes_wrong(tmp_path) -> None:
    theirs, mine = (scenarios.train(tool, tmp_path) for tool in (lightning(), ours()))
    assert theirs.records == mine.records
    assert equal(theirs.final_state, mine.final_state)


# T1: resume after the thaw.


@pytest.mark.others
def test_t1_lightning_resumes_with_a_frozen_backbone(tmp_path) -> None:
    """It is in the optimizer at the right lr but has no gradient, and there is no warning. Lightning #21901.

    If this fails, Lightning has fixed it (PR #21902): delete this test.
    """
    _, resumed = scenarios.resume(lightning(), tmp_path, "epoch=1")
    assert resumed.trainable_names() == ["head.weight", "head.bias"]
    assert resumed.records[-1][WEIGHT] == TENTH
    saved = torch.load(tmp_path / "epoch=1.ckpt")["state_dict"]
    assert equal({name: resumed.module.state_dict()[name] for name in LAYERS}, {name: saved[name] for name in LAYERS})


RESUMES = {
    **{f"epoch {epoch}": (scenarios.make_sgd, f"epoch={epoch}") for epoch in range(3)},
    "from config": (scenarios.sgd_from_config(), "epoch=1"),
    "from config, one cycle": (scenarios.sgd_from_config(SchedulerFactory("one_cycle", total_steps=24)), "epoch=1"),
}


@pytest.mark.parametrize("case", every(RESUMES, fast=["epoch 1", "from config, one cycle"]))
def test_t1_ours_resumes_bitwise(tmp_path, case) -> None:
    configure, stop = RESUMES[case]
    full, resumed = scenarios.resume(ours(), tmp_path, stop, configure)
    assert equal(resumed.final_state, full.final_state)
    assert resumed.records == full.records[-len(resumed.records) :]
    assert WEIGHT in resumed.trainable_names()


# T2: schedulers. OneCycleLR raises for 'initial_lr' if the thaw is before its peak, and for 'max_lr' after it, as here.

CRASHING: dict[str, tuple[scenarios.MakeScheduler, type[Exception], str, int]] = {
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
LEAVING_THE_CURVE: dict[str, scenarios.MakeScheduler] = {
    "exponential": lambda o: torch_schedulers.ExponentialLR(o, 0.9),
    "linear": lambda o: torch_schedulers.LinearLR(o, 0.1, total_iters=14),
    "polynomial": lambda o: torch_schedulers.PolynomialLR(o, 25),
}


@pytest.mark.others
@pytest.mark.parametrize(("make", "error", "message", "steps"), CRASHING.values(), ids=CRASHING)
def test_t2_lightning_crashes_the_scheduler(tmp_path, make, error, message, steps) -> None:
    """Torch's schedulers store a value for each group, and do not learn of the new group.

    The backbone thaws before step 5 of 24. CosineAnnealingLR crashes only after its first half period.
    If this fails, Lightning or torch (#79888, #53712) has fixed it: delete this test.
    """
    completed: list[int] = []
    configure, record = scenarios.sgd_with(make), lambda trainer, _: completed.append(trainer.global_step)
    with pytest.raises(error, match=message):
        scenarios.train(lightning(), tmp_path, configure, record=record)
    assert len(completed) == steps


@pytest.mark.others
@pytest.mark.parametrize("make", LEAVING_THE_CURVE.values(), ids=LEAVING_THE_CURVE)
def test_t2_lightning_leaves_the_curve_if_it_does_not_crash(tmp_path, make) -> None:
    """The callback sets the backbone's lr at the start of each epoch; within it, the scheduler moves it from there.

    If this fails, Lightning has fixed it: delete this test.
    """
    head, backbone = scenarios.train_with_scheduler(lightning(), tmp_path, make)
    assert head == scenarios.expected_lrs(make)
    assert backbone[::BATCHES] == [backbone[0]] * 5
    assert backbone[BATCHES] != pytest.approx(head[2 * BATCHES] * 0.1, rel=0.1)


ALL_SCHEDULERS = {**{name: case[0] for name, case in CRASHING.items()}, **LEAVING_THE_CURVE}


@pytest.mark.parametrize("name", every(ALL_SCHEDULERS, fast=["cyclic", "warm-up, then cosine", "linear"]))
def test_t2_ours_is_on_the_curve_from_the_first_thawed_step(tmp_path, name) -> None:
    make = ALL_SCHEDULERS[name]
    expected = scenarios.expected_lrs(make)
    assert scenarios.train_with_scheduler(ours(), tmp_path, make) == (expected, [lr * 0.1 for lr in expected[BATCHES:]])


# T3: two untrained blocks.


class ThawTwoBlocks(FreezeBackbone):
    """Thaws two blocks at epoch 1, the deeper one at a hundredth of the lr."""

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Optimizer) -> None:
        if epoch == 1:
            for block, lr in zip(pl_module.backbone, (LR * 0.01, TENTH), strict=True):
                self.unfreeze_and_add_param_group(block, optimizer, lr)


@pytest.mark.others
def test_t3_lightning_treats_parameters_with_equal_values_as_the_same(tmp_path) -> None:
    """The second LayerNorm requires a gradient and is in no group; a warning says that it is already in one.

    Only if the blocks are added in two calls: parameters of one call are not compared with each other.
    If this fails, Lightning has fixed it: delete this test.
    """
    with pytest.warns(UserWarning, match="already exist within another group of this optimizer"):
        run, without_group = scenarios.thaw_two_untrained_blocks(Tool(ThawTwoBlocks), tmp_path)
    assert without_group == ["backbone.1.1.weight", "backbone.1.1.bias"]
    assert torch.equal(run.module.backbone[1][1].weight, torch.ones(8))


def test_t3_ours_compares_parameters_by_identity(tmp_path) -> None:
    blocks = {
        "last": {"params": "backbone.1", "at": {"epoch": 1}, "lr_scale": 0.1},
        "first": {"params": "backbone.0", "at": {"epoch": 1}, "lr_scale": 0.01},
    }
    run, without_group = scenarios.thaw_two_untrained_blocks(ours_with_stages({**HEAD, **blocks}), tmp_path)
    assert without_group == []
    assert (run.records[-1]["backbone.0.1.weight"], run.records[-1]["backbone.1.1.weight"]) == (LR * 0.01, TENTH)
    assert not torch.equal(run.module.backbone[1][1].weight, torch.ones(8))


# T4: `self.parameters()`.


@pytest.mark.others
@ignores_known_params
@pytest.mark.parametrize(("align", "later"), [(False, [2, 4, 8]), (True, [2, 2, 2])], ids=["not aligned", "default"])
def test_t4_lightning_overwrites_the_lr_of_the_whole_model(tmp_path, align, later) -> None:
    """No group is added, so `param_groups[-1]` includes the head: its lr falls to a fifth, then follows the backbone's.

    With the default `should_align` it stays there. If this fails, Lightning has fixed it: delete this test.
    """
    lrs = scenarios.train_with_all_parameters_in_the_optimizer(lightning(growth=2.0, should_align=align), tmp_path)
    assert all(set(epoch) == {*LAYERS, "head.weight", "head.bias"} for epoch in lrs)
    expected = [LR, LR, *(TENTH * factor for factor in later)]
    assert [epoch["head.weight"] for epoch in lrs[:5]] == pytest.approx(expected, rel=1e-12)
    assert [epoch[WEIGHT] for epoch in lrs] == [epoch["head.weight"] for epoch in lrs]


def test_t4_ours_removes_the_backbone_until_it_thaws(tmp_path) -> None:
    lrs = scenarios.train_with_all_parameters_in_the_optimizer(ours(), tmp_path)
    assert [epoch["head.weight"] for epoch in lrs] == [LR] * 6
    assert [epoch.get(WEIGHT) for epoch in lrs] == [None] + [TENTH] * 5


# T5: DDP. `test_f1_ours_keeps_replicas_equal` has two thaws where Lightning has one.


@pytest.mark.others
@pytest.mark.parametrize("strategy", ["ddp", "ddp_find_unused_parameters_true"])
def test_t5_lightning_lets_replicas_diverge(tmp_path, strategy) -> None:
    """DDP averages only the gradients of parameters that were trainable when it was built. Lightning #20340.

    If this fails, Lightning has fixed it: delete this test.
    """
    replicas = scenarios.run_two_processes(strategy, "lightning", tmp_path)
    assert scenarios.diverged_steps(replicas) == [*range(BATCHES, 6 * BATCHES)]


# T6: BatchNorm in the frozen backbone.


@pytest.mark.others
def test_t6_lightning_uses_batch_statistics_in_a_frozen_batchnorm(tmp_path) -> None:
    """`freeze(train_bn=False)` sets `track_running_stats = False`: the head is trained on other values than in eval.

    If this fails, Lightning has fixed it: delete this test.
    """
    steps = scenarios.train_with_frozen_batchnorm(Tool(FreezeBackbone), tmp_path)
    assert steps == [scenarios.BatchNormStep(False, False, False, None)] * BATCHES


@pytest.mark.others
def test_t6_lightning_trains_the_batchnorm_of_a_frozen_backbone_at_the_lr_of_the_head(tmp_path) -> None:
    """BackboneFinetuning freezes with `train_bn=True`, whatever its own `train_bn` says.

    The documented filter then puts the layer's weights into the head's group.
    If this fails, Lightning has fixed it: delete this test.
    """
    steps = scenarios.train_with_frozen_batchnorm(lightning(train_bn=False), tmp_path)
    assert steps == [scenarios.BatchNormStep(False, True, True, LR)] * BATCHES


def test_t6_ours_does_not_change_a_frozen_batchnorm(tmp_path) -> None:
    steps = scenarios.train_with_frozen_batchnorm(ours(), tmp_path)
    assert steps == [scenarios.BatchNormStep(True, False, False, None)] * BATCHES


# T7: a resume in the middle of the epoch in which a stage thaws.


@pytest.mark.others
def test_t7_lightning_misses_a_trigger_if_a_resume_has_passed_it(tmp_path) -> None:
    """Lightning skips on_train_epoch_start when it resumes in mid-epoch, and the trigger is `epoch ==`.

    The first run would thaw at epoch 9; the second thaws at epoch 1 and resumes in the middle of it. Epoch 2 then
    assumes that the backbone has thawed. If this fails, Lightning has fixed it: delete this test.
    """
    with pytest.raises(TypeError, match="'float' and 'NoneType'"):
        scenarios.resume(lightning(), tmp_path, "step=6", first_tool=lightning(epoch=9))


def test_t7_ours_thaws_an_overdue_stage(tmp_path) -> None:
    _, resumed = scenarios.resume(ours(), tmp_path, "step=6", first_tool=ours(epoch=9))
    assert [WEIGHT in lrs for lrs in resumed.records] == [True] * 18


@pytest.mark.others
def test_t7_lightning_freezes_the_backbone_again_in_mid_epoch(tmp_path) -> None:
    """The same plan in both runs: T1 again. If this fails, Lightning has fixed it (#21901): delete this test."""
    full, resumed = scenarios.resume(lightning(), tmp_path, "step=6")
    assert len(resumed.records) == 18
    assert WEIGHT in full.trainable_names() and WEIGHT not in resumed.trainable_names()


@pytest.mark.parametrize("step", every([4, 6], fast=["6"]))
def test_t7_ours_resumes_in_mid_epoch(tmp_path, step) -> None:
    full, resumed = scenarios.resume(ours(), tmp_path, f"step={step}")
    assert equal(resumed.final_state, full.final_state)
    assert resumed.records == full.records[step:]


# T8: two optimizers.


@pytest.mark.others
@pytest.mark.parametrize(
    ("growth", "factors"),
    [(1.0, [(1, 1), (1, 1), (1, 1)]), (2.0, [(1, 1), (2, 4), (8, 16)])],
    ids=["constant", "doubled each epoch"],
)
def test_t8_lightning_adds_the_backbone_to_each_optimizer(tmp_path, growth, factors) -> None:
    """So each batch updates it twice, and an lr that should double in each epoch doubles once per optimizer.

    If this fails, Lightning has fixed it: delete this test.
    """
    epochs = scenarios.thaw_with_two_optimizers(lightning(growth=growth), tmp_path)
    assert [[WEIGHT in lrs for lrs in epoch] for epoch in epochs] == [[False, False]] + [[True, True]] * 3
    lrs = [tuple(optimizer[WEIGHT] for optimizer in epoch) for epoch in epochs[1:]]
    assert lrs == [pytest.approx((TENTH * a, TENTH * b)) for a, b in factors]


def test_t8_ours_adds_the_backbone_to_the_optimizer_it_was_configured_in(tmp_path) -> None:
    tool = ours_with_stages({"heads": {"params": ["head", "other"]}, "backbone": BACKBONE})
    heads: list[dict[str, float]] = [{"head.weight": LR, "head.bias": LR}, {"other.weight": LR, "other.bias": LR}]
    thawed = {**heads[0], **dict.fromkeys(LAYERS, TENTH)}
    assert scenarios.thaw_with_two_optimizers(tool, tmp_path) == [heads] + [[thawed, heads[1]]] * 3


# T9: strategies that restore after setup.


@pytest.mark.others
def test_t9_lightning_loses_thawed_groups_if_the_strategy_restores_late(tmp_path) -> None:
    """Under FSDP2, on_fit_start runs before the callback's state is loaded: the backbone is in no group after a resume.

    Neither loading nor training raises. If this fails, Lightning has fixed it: delete this test.
    """
    full, resumed = scenarios.resume_two_processes("fsdp2", "lightning", tmp_path, "epoch=1")
    assert all(WEIGHT in step["lrs"] for step in full[0][BATCHES:])
    assert len(resumed[0]) == 16
    assert all(set(step["lrs"]) == {"head.weight", "head.bias"} == set(step["trained"]) for step in resumed[0])


@pytest.mark.slow
def test_t9_ours_resumes_bitwise_if_the_strategy_restores_late(tmp_path) -> None:
    full, resumed = scenarios.resume_two_processes("fsdp2", "ours", tmp_path, "epoch=1")
    assert equal(resumed, [replica[2 * BATCHES :] for replica in full])


# T10: tags.


@pytest.mark.others
def test_t10_lightning_renames_the_tags(tmp_path) -> None:
    """Groups without names are numbered once there are two: one curve ends, two start. Lightning #20194.

    If this fails, Lightning has fixed it: delete this test.
    """
    tags = scenarios.log_lrs(lightning(), tmp_path)
    assert tags == [{"lr-SGD"}, {"lr-SGD/pg1", "lr-SGD/pg2"}, {"lr-SGD/pg1", "lr-SGD/pg2"}]


def test_t10_ours_keeps_every_tag(tmp_path) -> None:
    """The backbone's tag appears at the start of the epoch in which it thaws."""
    first, second, third = scenarios.log_lrs(ours(), tmp_path)
    assert second - first == {"lr-SGD/backbone"}
    assert second == third
    assert first - second == set()


# T11: a parameter outside the module.


@pytest.mark.others
def test_t11_lightning_raises_for_a_parameter_outside_the_module(tmp_path) -> None:
    """A KeyError whose message is the tensor.

    Flat parameters of FSDP1 should raise it too, but Lightning does not run FSDP1 on a CPU.
    If this fails, Lightning has fixed it: delete this test.
    """
    with pytest.raises(KeyError, match=r"Parameter containing"):
        scenarios.train_parameter_outside_the_module(lightning(), tmp_path)


def test_t11_ours_reports_that_no_stage_claims_it(tmp_path) -> None:
    """Before the first step: it has no name, so no stage can claim it, and no stage would train it."""
    with pytest.raises(ConfigError, match="^stages: "):
        scenarios.train_parameter_outside_the_module(ours(), tmp_path)


# T12: the number of param groups.


@pytest.mark.others
def test_t12_lightning_loads_more_groups_than_configured(tmp_path) -> None:
    """Fixed: "loaded state dict has a different number of parameter groups" was #6891 and #8502.

    If this fails, the bug is back: invert the test.
    """
    _, resumed = scenarios.resume(lightning(), tmp_path, "epoch=1")
    assert len(resumed.trainer.optimizers[0].param_groups) == 2
    assert set(resumed.records[0]) == {*LAYERS, "head.weight", "head.bias"}


@pytest.mark.slow  # T1 resumes from the same checkpoint
def test_t12_ours_loads_more_groups_than_configured(tmp_path) -> None:
    full, resumed = scenarios.resume(ours(), tmp_path, "epoch=1")
    groups = [[group["name"] for group in run.trainer.optimizers[0].param_groups] for run in (full, resumed)]
    assert groups == [["head", "backbone"]] * 2
    assert resumed.records == full.records[2 * BATCHES :]
