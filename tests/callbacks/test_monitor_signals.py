"""Each signal of OptimizerMonitor against a computation by hand: clipping, precision, moments, nonfinite values."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn

from lightning_optim import OptimizerFactory, OptimizerMonitor, SchedulerFactory, StagedUnfreeze, configure_optimizers
from tests.support.cases import every
from tests.support.schedules import SCHEDULE_CONFIGS
from tests.support.tensorboard_events import at_steps, fit_with_events, read_events, read_texts
from tests.support.training import BATCHES, Net, StepTrace, fit

GROUPS = {"no_decay": {"kinds": ["bias", "norm"], "weight_decay": 0.0}, "head": {"params": "head", "lr_scale": 2}}
STEPS = 4 * BATCHES


def configured(name: str = "adamw", scheduler: Any = None, **arguments: Any) -> Any:
    factory = OptimizerFactory(name, **{"lr": 0.01, "groups": GROUPS, **arguments})
    return lambda module: configure_optimizers(module, factory, scheduler)


def norm(tensors: Any) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))


def points_equal(points: list[tuple[int, float]], expected: list[float]) -> bool:
    """One point per step; event files hold float32."""
    steps, values = [step for step, _ in points], [value for _, value in points]
    return steps == list(range(len(expected))) and values == pytest.approx(expected, rel=1e-5, abs=1e-37)


@pytest.mark.parametrize(
    "name", every(SCHEDULE_CONFIGS, fast=["one_cycle", "reduce_on_plateau", "warmup_cosine", "warmup+sequential"])
)
def test_lr_and_momentum_are_those_of_the_step_under_every_scheduler(tmp_path, name) -> None:
    # Its minimum must be below each group's lr.
    is_plateau = SCHEDULE_CONFIGS[name]["name"] == "reduce_on_plateau"
    monitored = {"monitor": "loss", "min_lr": 1e-3} if is_plateau else {}
    scheduler = SchedulerFactory(**{**SCHEDULE_CONFIGS[name], **monitored})
    trace = StepTrace(lambda trainer, _: [dict(g, params=None) for g in trainer.optimizers[0].param_groups])
    curves = fit_with_events(
        tmp_path, Net(configured("sgd", scheduler, momentum=0.8)), OptimizerMonitor(), trace, num_sanity_val_steps=0
    )
    for number, group in enumerate(("default", "no_decay", "head", "head.no_decay")):
        for signal in ("lr", "momentum", "weight_decay"):
            points = at_steps(curves[f"optim/{signal}/{group}"], range(STEPS))
            assert points_equal(points, [groups[number][signal] for groups in trace.steps]), signal


@pytest.mark.parametrize(
    "name",
    every(
        ["adam", "adagrad", "rmsprop", "adadelta", "adabelief", "lamb", "adafactor"],
        fast=["adam", "adadelta", "adafactor"],
    ),
)
def test_rms_is_the_root_of_the_mean_of_a_second_moment(tmp_path, name) -> None:
    """It can be compared with eps; the norm of squares this small would be 0 in float32."""

    class FaintNet(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return 1e-13 * super().training_step(batch, batch_idx)

    keys = ("exp_avg_sq", "exp_avg_var", "square_avg", "acc_delta", "sum", "variance", "row_var", "col_var")

    def read(trainer: Trainer, _: Any) -> dict[str, float]:
        states = trainer.optimizers[0].state.values()
        buffers = {key: [state[key].double() for state in states if key in state] for key in keys}
        return {
            key: math.sqrt(sum(float(t.sum()) for t in tensors) / sum(t.numel() for t in tensors))
            for key, tensors in buffers.items()
            if tensors
        }

    trace = StepTrace(read)
    module = FaintNet(configured(name, groups={}, **({"eps": 1e-20} if name == "adabelief" else {})))
    curves = fit_with_events(tmp_path, module, OptimizerMonitor(), trace)
    found = {tag.split("/")[2] for tag in curves if tag.startswith("optim/rms/")}
    assert found == set(trace.steps[0]) and found
    for key in found:
        assert points_equal(curves[f"optim/rms/{key}/default"], [values[key] for values in trace.steps])
        assert points_equal(curves[f"optim/rms/{key}/all"], [values[key] for values in trace.steps])


class UnclippedNorms(Callback):
    """The gradients' norm by group before they are clipped, in each step."""

    def __init__(self) -> None:
        self.steps: list[list[float]] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        self.steps.append([norm(p.grad for p in group["params"]) for group in optimizer.param_groups])


CLIPPING: dict[str, dict[str, Any]] = {
    "by norm": {"gradient_clip_val": 0.05},
    "by value": {"gradient_clip_val": 0.005, "gradient_clip_algorithm": "value"},
    "accumulating": {"gradient_clip_val": 0.05, "accumulate_grad_batches": 2},
    "bf16-mixed": {"gradient_clip_val": 0.05, "precision": "bf16-mixed"},
    "bf16-true": {"gradient_clip_val": 0.05, "precision": "bf16-true"},
}


@pytest.mark.parametrize("clipping", CLIPPING)
def test_grad_unclipped_and_grad_are_those_before_and_after_clipping(tmp_path, clipping) -> None:
    before = UnclippedNorms()
    after = StepTrace(
        lambda trainer, _: [norm(p.grad for p in g["params"]) for g in trainer.optimizers[0].param_groups]
    )
    curves = fit_with_events(tmp_path, Net(configured()), OptimizerMonitor(), before, after, **CLIPPING[clipping])
    for number, group in enumerate(("default", "no_decay", "head", "head.no_decay")):
        assert points_equal(curves[f"optim/norm/grad_unclipped/{group}"], [norms[number] for norms in before.steps])
        assert points_equal(curves[f"optim/norm/grad/{group}"], [norms[number] for norms in after.steps])
    assert before.steps != after.steps


def test_a_module_that_clips_itself_has_grad_unclipped_too(tmp_path) -> None:
    class ClippingNet(Net):
        def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
            nn.utils.clip_grad_norm_(self.parameters(), 0.01)

    before = UnclippedNorms()
    curves = fit_with_events(tmp_path, ClippingNet(configured(groups={})), OptimizerMonitor(), before)
    assert points_equal(curves["optim/norm/grad_unclipped/default"], [norms[0] for norms in before.steps])
    assert [value for _, value in curves["optim/norm/grad/default"]] == pytest.approx([0.01] * STEPS, rel=1e-4)


@pytest.mark.parametrize("value", [None, 0.0])
def test_without_clipping_there_is_no_grad_unclipped(tmp_path, value) -> None:
    curves = fit_with_events(tmp_path, Net(configured()), OptimizerMonitor(), gradient_clip_val=value)
    assert not [tag for tag in curves if "grad_unclipped" in tag]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_update_norm_and_ratio_are_those_of_the_parameters_difference(tmp_path, precision) -> None:
    module = Net(configured())
    last = {name: p.detach().clone() for name, p in module.named_parameters()}

    def read(trainer: Trainer, module: LightningModule) -> list[tuple[float, float]]:
        names = {p: name for name, p in module.named_parameters()}
        norms = []
        for group in trainer.optimizers[0].param_groups:
            params = group["params"]
            norms.append((norm(p.detach() - last[names[p]] for p in params), norm(p.detach() for p in params)))
        last.update({name: p.detach().clone() for name, p in module.named_parameters()})
        return norms

    trace = StepTrace(read)
    curves = fit_with_events(tmp_path, module, OptimizerMonitor(update_norm=True), trace, precision=precision)
    for number, group in enumerate(("default", "no_decay", "head", "head.no_decay")):
        updates = [values[number] for values in trace.steps]
        assert points_equal(curves[f"optim/norm/update/{group}"], [update for update, _ in updates])
        assert points_equal(curves[f"optim/ratio/update_param/{group}"], [update / param for update, param in updates])


def test_a_scaled_gradient_is_unscaled_and_a_skipped_step_has_no_point(tmp_path) -> None:
    """Like fp16 on a GPU: the scale of 2¹⁶ is halved when a gradient overflows."""

    class OverflowingNet(Net):
        def on_after_backward(self) -> None:
            if self.global_step == 2:
                self.head.weight.grad.fill_(math.inf)

    scaler = torch.amp.GradScaler("cpu")
    plugin = MixedPrecision("16-mixed", device="cpu", scaler=scaler)
    trace = StepTrace(lambda trainer, _: norm(p.grad for g in trainer.optimizers[0].param_groups for p in g["params"]))
    curves = fit_with_events(
        tmp_path, OverflowingNet(configured(foreach=True)), OptimizerMonitor(update_norm=True), trace, plugins=[plugin]
    )
    assert scaler.get_scale() == 2.0**15
    steps = [step for step, _ in curves["optim/norm/grad/all"]]
    assert steps == [0, 1, *range(3, STEPS)]
    assert [v for _, v in curves["optim/norm/grad/all"]] == pytest.approx(trace.steps, rel=1e-5)
    assert max(trace.steps) < 100
    assert [step for step, _ in curves["optim/norm/update/all"]] == steps


class InjectValue(Callback):
    """Sets one element of a gradient in one step."""

    def __init__(self, value: float, step: int) -> None:
        self.value, self.step = value, step

    def on_after_backward(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.global_step == self.step:
            pl_module.head.weight.grad[0, 1] = self.value


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("clip", [None, 1.0], ids=["unclipped", "clipped"])
def test_nonfinite_parameters_are_named_at_their_step(tmp_path, caplog, value, clip) -> None:
    with caplog.at_level(logging.WARNING, "lightning_optim"):
        curves = fit_with_events(
            tmp_path, Net(configured()), InjectValue(value, 5), OptimizerMonitor(), gradient_clip_val=clip
        )
    (record, *_) = [record for record in caplog.records if "not finite" in record.message]
    assert record.message.startswith("optim, step 5: not finite: head.weight (")
    (step, text), *_ = read_texts(tmp_path, "optim/nonfinite")
    assert step == 5 and text.startswith("- head.weight (")
    counts = dict(curves["optim/nonfinite/head"])
    assert [counts[step] for step in (4, 5)] == [0, 1]
    # Clipping by a nonfinite norm makes all gradients nonfinite; the one that was so before is named first.
    spread = clip is not None and math.isnan(value)
    others = [name for name in ("backbone.0.weight", "head.bias") if name in text]
    assert bool(others) == spread
    assert dict(curves["optim/nonfinite/all"])[5] == (len(list(Net(None).parameters())) if spread else 1)  # type: ignore[arg-type]


def test_nonfinite_parameters_are_named_once(tmp_path, caplog) -> None:
    with caplog.at_level(logging.WARNING, "lightning_optim"):
        fit_with_events(tmp_path, Net(configured()), InjectValue(math.nan, 5), OptimizerMonitor())
    named = [word for record in caplog.records for word in record.message.split() if word == "head.weight"]
    assert named == ["head.weight"]


@pytest.mark.parametrize(("name", "buffers"), [("adamw", 2), ("adamw amsgrad", 3), ("lion", 1), ("sgd", 0)])
def test_state_mib_is_the_size_of_the_state(tmp_path, name, buffers) -> None:
    name, _, flag = name.partition(" ")
    module = Net(configured(name, **({flag: True} if flag else {})))
    curves = fit_with_events(tmp_path, module, OptimizerMonitor(), epochs=1)
    steps = {"adamw": 4, "lion": 4, "sgd": 0}[name]  # each parameter's count is a float32
    parameters = dict(module.named_parameters())
    expected = (parameters["head.weight"].numel() * 4 * buffers + steps) / 2**20
    assert curves["optim/state_mib/head"][0][1] == pytest.approx(expected)
    total = sum(p.numel() * 4 * buffers + steps for p in parameters.values()) / 2**20
    assert curves["optim/state_mib/all"][0][1] == pytest.approx(total)


@pytest.mark.parametrize("name", ["lbfgs", "muon"])
def test_norms_of_optimizers_with_other_kinds_of_state(tmp_path, name) -> None:
    factory = OptimizerFactory(name, lr=0.01)

    def configure(module: Net) -> Any:
        if name == "muon":
            return factory([(n, p) for n, p in module.named_parameters() if p.ndim == 2])
        return factory(module)

    def read(trainer: Trainer, _: Any) -> dict[str, float]:
        found: dict[str, list[Tensor]] = {"grad": [], "param": []}
        (group,) = trainer.optimizers[0].param_groups
        for p in group["params"]:
            found["param"].append(p.detach())
            found["grad"].append(p.grad)
            for key, value in trainer.optimizers[0].state.get(p, {}).items():
                if isinstance(value, Tensor) and value.ndim:
                    found.setdefault(key, []).append(value)
        return {key: norm(tensors) for key, tensors in found.items()}

    trace = StepTrace(read)
    curves = fit_with_events(tmp_path, Net(configure), OptimizerMonitor(), trace, epochs=1)
    for key in trace.steps[-1]:
        points, expected = curves[f"optim/norm/{key}/default"], [norms[key] for norms in trace.steps if key in norms]
        assert [value for _, value in points] == pytest.approx(expected, rel=1e-5), key


def test_hyperparameters_are_logged_for_each_group_including_those_that_thaw_later(tmp_path) -> None:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    class Named(Net):
        def __init__(self, configure: Any, width: int = 7) -> None:
            super().__init__(configure)
            self.save_hyperparameters(ignore=["configure"])

    plan = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"epoch": 1}, "lr_scale": 0.1}}
    for number, callbacks in enumerate(
        ([OptimizerMonitor(), StagedUnfreeze(plan)], [StagedUnfreeze(plan), OptimizerMonitor()])
    ):
        folder = tmp_path / str(number)
        fit_with_events(
            folder, Named(configured(scheduler=SchedulerFactory("warmup_cosine", warmup_steps=3))), *callbacks, epochs=1
        )
        events = read_events(folder)
        content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        given = HParamsPluginData.FromString(content).session_start_info.hparams
        assert given["width"].number_value == 7
        assert given["optim/head/lr"].number_value == 0.02
        assert given["optim/backbone/lr"].number_value == pytest.approx(0.001)
        assert given["optim/backbone.no_decay/weight_decay"].number_value == 0
        assert given["optim/head/beta2"].number_value == 0.999
        assert given["optim/head/algorithm"].string_value == "adamw"


def test_state_replaced_by_a_load_is_read_again(tmp_path) -> None:
    class Reloading(Callback):
        def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == 3:
                (optimizer,) = trainer.optimizers
                state = optimizer.state_dict()
                for buffers in state["state"].values():
                    buffers["exp_avg"] = buffers["exp_avg"] * 1000
                optimizer.load_state_dict(state)

    trace = StepTrace(lambda trainer, _: norm(state["exp_avg"] for state in trainer.optimizers[0].state.values()))
    curves = fit_with_events(tmp_path, Net(configured()), Reloading(), OptimizerMonitor(), trace)
    assert points_equal(curves["optim/norm/exp_avg/all"], trace.steps)
    assert trace.steps[3] > 100 * trace.steps[2]


def test_state_that_cannot_be_measured_is_named_once(tmp_path, caplog) -> None:
    class CodedSGD(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            loss = super().step(closure)
            for p in self.param_groups[0]["params"]:
                self.state[p]["codes"] = torch.zeros(p.shape, dtype=torch.uint8)
            return loss

    with caplog.at_level(logging.WARNING, "lightning_optim"):
        fit_with_events(tmp_path, Net(lambda module: CodedSGD(module.parameters(), lr=0.1)), OptimizerMonitor())
    assert [r.message for r in caplog.records] == [
        "optim: the state 'codes' is not measured: it is a Tensor of torch.uint8"
    ]


def test_optimizers_that_step_in_turn_have_points_at_their_own_steps(tmp_path) -> None:
    class AlternatingNet(Net):
        automatic_optimization = False

        def configure_optimizers(self) -> Any:
            return [torch.optim.Adam(self.head.parameters(), 0.1), torch.optim.SGD(self.backbone.parameters(), 0.2)]

        def training_step(self, batch: Any, batch_idx: int) -> None:
            optimizer = self.optimizers()[batch_idx % 2]
            optimizer.zero_grad()
            self.manual_backward(nn.functional.cross_entropy(self(batch[0]), batch[1]))
            optimizer.step()

    curves = fit_with_events(tmp_path, AlternatingNet(lambda module: None), OptimizerMonitor(), epochs=1)
    assert [step for step, _ in curves["optim_adam/norm/exp_avg/default"]] == [0, 2]
    assert [step for step, _ in curves["optim_sgd/norm/grad/default"]] == [1, 3]


def test_all_options_together_log_every_signal(tmp_path) -> None:
    monitor = OptimizerMonitor(
        update_norm=True, cosine=True, per_parameter=True, histograms=True, to_callback_metrics=True
    )
    trainer = fit(Net(configured()), tmp_path, monitor, gradient_clip_val=1.0, epochs=1, log_every_n_steps=1)
    signals = {
        tag.removeprefix("optim/").rpartition("/")[0] for tag in trainer.callback_metrics if tag.startswith("optim/")
    }
    assert signals == {
        *("lr", "weight_decay", "beta1", "beta2", "eps", "step", "nonfinite", "state_mib", "ratio/update_param"),
        *("norm/grad", "norm/grad_unclipped", "norm/param", "norm/update", "norm/exp_avg", "norm/exp_avg_sq"),
        *("rms/exp_avg_sq", "cos/grad_momentum"),
    }


def test_grad_unclipped_of_a_step_that_clips_several_times_is_the_first(tmp_path) -> None:
    """LBFGS computes the gradient several times per step."""
    before: list[list[float]] = []

    class AllNorms(Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            before.append([])

        def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
            before[-1].append(norm(p.grad for p in optimizer.param_groups[0]["params"]))

    module = Net(lambda module: torch.optim.LBFGS(module.parameters(), lr=0.1, max_iter=3))
    curves = fit_with_events(tmp_path, module, AllNorms(), OptimizerMonitor(), gradient_clip_val=0.05)
    assert min(map(len, before)) > 1
    assert points_equal(curves["optim/norm/grad_unclipped/default"], [norms[0] for norms in before])


def test_the_step_of_a_group_is_its_largest(tmp_path) -> None:
    class PartlyTrainedNet(Net):
        def on_after_backward(self) -> None:
            if self.global_step % 2:
                self.head.bias.grad = None

    curves = fit_with_events(tmp_path, PartlyTrainedNet(configured(groups={})), OptimizerMonitor(), epochs=1)
    assert curves["optim/step/default"] == [(t, t + 1.0) for t in range(BATCHES)]
