"""`sharpness` is davda54's SAM and ASAM to the bit, around every rule, and leaves no trace of its first gradient."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

from lightning_optim import (
    ConfigError,
    OptimizerFactory,
    OptimizerMonitor,
    StagedUnfreeze,
    configure_optimizers,
    optim,
)
from lightning_optim.optim.composite import Composite
from tests.support.cases import every
from tests.support.optimizer_runs import MEMBERS_WITH_TWO_GRADIENTS, TRACED_MEMBERS, native_class
from tests.support.ranks import Job, run_on_two_ranks
from tests.support.runs.sharpness import train as train_on_ranks
from tests.support.save_and_load import save_and_load
from tests.support.training import BATCHES, Net, StepTrace, fit

STEPS = 6
SETTINGS = {"SAM": {"rho": 0.05}, "ASAM": {"rho": 0.5, "adaptive": True}}
each_setting = pytest.mark.parametrize("sharpness", SETTINGS.values(), ids=SETTINGS)
SINGLE = [name for name in TRACED_MEMBERS if name not in MEMBERS_WITH_TWO_GRADIENTS]


class TwoCalls:
    """The first and the second step of https://github.com/davda54/sam/blob/main/sam.py, line by line."""

    def __init__(self, base: torch.optim.Optimizer, rho: float = 0.05, adaptive: bool = False) -> None:
        self.base, self.rho, self.adaptive, self.old = base, rho, adaptive, {}

    @torch.no_grad()
    def first_step(self) -> None:
        params = [p for group in self.base.param_groups for p in group["params"] if p.grad is not None]
        grad_norm = torch.norm(
            torch.stack([((torch.abs(p) if self.adaptive else 1.0) * p.grad).norm(p=2) for p in params]), p=2
        )
        scale = self.rho / (grad_norm + 1e-12)
        for p in params:
            self.old[p] = p.data.clone()
            e_w = (torch.pow(p, 2) if self.adaptive else 1.0) * p.grad * scale.to(p)
            p.add_(e_w)
        self.base.zero_grad()

    @torch.no_grad()
    def second_step(self) -> None:
        for p, old in self.old.items():
            p.data = old
        self.old = {}
        self.base.step()
        self.base.zero_grad()


def build_net(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.3), nn.Linear(6, 3)).to(dtype)


def loss_of(net: nn.Module, step: int) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    return net(torch.randn(8, 4, generator=generator).to(next(net.parameters()))).square().sum()


def closure_of(net: nn.Module, step: int, calls: list[Any] | None = None) -> Callable[[], Tensor]:
    def closure() -> Tensor:
        net.zero_grad()
        loss = loss_of(net, step)
        loss.backward()
        if calls is not None:
            calls.append([p.detach().clone() for p in net.parameters()])
        return loss.detach()

    return closure


def train(net: nn.Module, optimizer: Any, steps: range = range(STEPS)) -> list[Tensor]:
    torch.manual_seed(7)  # of the dropout masks, which differ between the two passes
    return [optimizer.step(closure_of(net, step)) for step in steps]


def train_two_calls(net: nn.Module, base: Any, setting: dict[str, Any]) -> list[Tensor]:
    """As the README of davda54/sam says, with BatchNorm's running statistics disabled in the second pass."""
    sam, losses = TwoCalls(base, **setting), []
    torch.manual_seed(7)
    for step in range(STEPS):
        losses.append(closure_of(net, step)())
        sam.first_step()
        for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm1d)):
            norm.momentum = 0
        closure_of(net, step)()
        for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm1d)):
            norm.momentum = 0.1
        sam.second_step()
    return losses


def same(first: nn.Module, second: nn.Module, *, but: tuple[str, ...] = ("num_batches_tracked",)) -> bool:
    states = zip(first.state_dict().items(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for (name, a), b in states if not name.endswith(but))


@each_setting
@pytest.mark.parametrize("name", every(SINGLE, fast=["adamw", "lamb"]))
def test_equals_the_two_call_form_around_every_rule(name, sharpness) -> None:
    ours, theirs = build_net(), build_net()
    optimizer = OptimizerFactory(name, implementation="own", sharpness=sharpness)(ours)
    losses = train(ours, optimizer)
    assert losses == train_two_calls(theirs, native_class(name)(theirs.parameters()), sharpness)
    assert same(ours, theirs)
    assert ours[1].num_batches_tracked == STEPS  # theirs counts both passes


def test_equals_the_two_call_form_around_schedule_free() -> None:
    ours, theirs, average = build_net(), build_net(), {"schedule_free": {"beta": 0.9, "warmup_steps": 2}}
    optimizer = OptimizerFactory("adamw", betas=[0.0, 0.999], sharpness={"rho": 0.05}, **average)(ours)
    train(ours, optimizer)
    train_two_calls(theirs, native_class("adamw")(theirs.parameters(), betas=(0.0, 0.999), **average), {"rho": 0.05})
    assert same(ours, theirs)


@each_setting
def test_equals_the_two_call_form_around_torchs_class_and_pytorch_optimizer(sharpness) -> None:
    ours, theirs, others = build_net(), build_net(), build_net()
    train(ours, OptimizerFactory("adamw", lr=0.05, foreach=False, sharpness=sharpness)(ours))
    train_two_calls(theirs, torch.optim.AdamW(theirs.parameters(), lr=0.05, foreach=False), sharpness)
    assert same(ours, theirs)
    library = pytest.importorskip("pytorch_optimizer")
    sam = library.SAM(others.parameters(), torch.optim.AdamW, lr=0.05, weight_decay=0.01, **sharpness)
    torch.manual_seed(7)
    for step in range(STEPS):
        closure_of(others, step)()
        others[1].momentum = 0
        sam.step(closure_of(others, step))
        others[1].momentum = 0.1
    for (name, value), other in zip(ours.state_dict().items(), others.state_dict().values(), strict=True):
        if "num_batches" not in name:  # its norm is in float32
            assert torch.allclose(value, other, rtol=1e-5, atol=1e-7), name


def test_the_second_gradient_is_taken_at_distance_rho_of_all_groups_of_all_algorithms_together() -> None:
    net, calls = build_net(), []
    sharpness = {"rho": 0.25}
    groups = {"head": {"params": "4", "optimizer": "lion", "sharpness": sharpness}}
    optimizer = OptimizerFactory("adamw", sharpness=sharpness, groups=groups)(net)
    assert isinstance(optimizer, Composite)
    for step in range(2):
        optimizer.step(closure_of(net, step, calls))
        origin, away = calls[-2:]
        squares = sum((b - a).square().sum() for a, b in zip(origin, away, strict=True))
        assert squares.sqrt().item() == pytest.approx(0.25, rel=1e-9)
    assert len(calls) == 4


def test_a_group_without_it_stays_where_it_is_and_out_of_the_norm() -> None:
    net, calls = build_net(), []
    optimizer = OptimizerFactory("adamw", groups={"head": {"params": "4", "sharpness": {"rho": 0.25}}})(net)
    optimizer.step(closure_of(net, 0, calls))
    moved = [b - a for a, b in zip(*calls, strict=True)]
    assert not any(map(torch.any, moved[:4]))
    assert sum(part.square().sum() for part in moved[4:]).sqrt().item() == pytest.approx(0.25, rel=1e-9)


@pytest.mark.parametrize("foreach", [False, True], ids=["loop", "foreach"])
def test_maximized_parameters_move_to_where_the_objective_is_lowest(foreach) -> None:
    results = []
    for sign in (1.0, -1.0):
        p = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.double))
        optimizer = optim.AdamW([p], lr=0.1, maximize=sign < 0, foreach=foreach, sharpness={"rho": 0.3})
        optimizer.set_model(None)

        def closure(p: Tensor = p, sign: float = sign) -> None:
            p.grad = sign * p.detach() ** 3

        for _ in range(3):
            optimizer.step(closure)
        results.append(p.detach())
    assert torch.equal(*results)


def test_complex_parameters_are_pairs_of_real_ones() -> None:
    results = []
    for is_complex in (True, False):
        values = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.double)
        p = nn.Parameter(torch.view_as_complex(values) if is_complex else values)
        optimizer = optim.AdamW([p], lr=0.1, sharpness={"rho": 0.3, "adaptive": True})
        optimizer.set_model(None)

        def closure(p: Tensor = p) -> None:
            real = torch.view_as_real(p.detach()) if p.is_complex() else p.detach()
            p.grad = torch.view_as_complex(real**3) if p.is_complex() else real**3

        for _ in range(3):
            optimizer.step(closure)
        results.append(torch.view_as_real(p.detach()) if is_complex else p.detach())
    assert torch.equal(*results)


def test_a_master_is_perturbed_in_float32_and_only_the_gradient_sees_it() -> None:
    p = nn.Parameter(torch.full((4,), 1.0, dtype=torch.bfloat16))
    optimizer = optim.AdamW([p], lr=1e-4, master_weights=True, sharpness={"rho": 0.014})
    optimizer.set_model(None)
    seen = []

    def closure() -> None:
        seen.append(p.detach().clone())
        p.grad = torch.ones_like(p)

    for _ in range(25):
        optimizer.step(closure)
    master = optimizer.state[p]["master"]
    assert torch.equal(p, master.bfloat16())
    assert (master > 0.997).all() and (master < 0.998).all()
    # From the master and not from the rounded parameter: 0.9976 + 0.007 is rounded to 1.0078, 0.9961 + 0.007 to 1.
    last = optimizer.state[p]["master"] + 1e-4 * 1.01
    assert torch.equal(seen[-1], (last + 0.014 / 2).bfloat16())


@each_setting
@pytest.mark.parametrize("size", [0.0, 1e-6, 1e-2])
def test_float16_parameters_are_perturbed_in_float32_and_rounded_once(sharpness, size) -> None:
    param = nn.Parameter(torch.tensor([1.5, -1e-3, 2e-4]).half())
    gradient = torch.tensor([1.0, -2.0, 3.0]).mul(size).half()
    optimizer = optim.SGD([param], lr=0.1, sharpness=sharpness)
    optimizer.set_model(None)
    seen: list[Tensor] = []

    def closure() -> Tensor:
        seen.append(param.detach().clone())
        param.grad = gradient.clone()
        return param.sum()

    optimizer.step(closure)
    p, g = seen[0].float(), gradient.float()
    scaled = p.abs() * g if sharpness.get("adaptive") else g
    direction = p.square() * g if sharpness.get("adaptive") else g
    expected = p + sharpness["rho"] * direction / (scaled.norm() + 1e-12)
    assert torch.equal(seen[1], expected.half())


def test_a_step_with_a_gradient_that_is_not_finite_is_skipped_and_nothing_stays_away() -> None:
    net = build_net()
    optimizer = OptimizerFactory("adamw", skip_nonfinite=True, sharpness=SETTINGS["SAM"])(net)
    optimizer.step(closure_of(net, 0))
    before = [p.detach().clone() for p in net.parameters()]

    def closure() -> None:
        closure_of(net, 1)()
        if not any(p.isnan().any() for p in net.parameters()):
            net[0].weight.grad[0, 0] = float("nan")

    optimizer.step(closure)
    assert all(map(torch.equal, before, net.parameters()))
    assert {optimizer.state[p]["skipped"] for p in net.parameters()} == {1}


def test_an_error_in_the_second_pass_leaves_weights_and_buffers_as_after_the_first() -> None:
    net, once = build_net(), build_net()
    optimizer = OptimizerFactory("adamw", sharpness=SETTINGS["SAM"])(net)
    passes = []

    def closure() -> None:
        torch.manual_seed(3)
        closure_of(net, 0)()
        passes.append(net[1].running_mean.clone())
        if len(passes) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(closure)
    torch.manual_seed(3)
    closure_of(once, 0)()
    assert not torch.equal(*passes)
    assert same(net, once, but=())


class Queue(nn.Module):
    """A module that replaces its buffer in each pass, and one that is frozen in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.register_buffer("queue", torch.zeros(2))

    def forward(self, inputs: Tensor) -> Tensor:
        self.queue = self.queue + 1
        return self.linear(inputs)


def test_buffers_that_a_pass_replaces_are_those_of_the_first_pass() -> None:
    net = Queue().double()
    optimizer = OptimizerFactory("adamw", sharpness=SETTINGS["SAM"])(net.parameters())
    train(net, optimizer, range(3))
    assert net.queue.tolist() == [3.0, 3.0]


def test_gradients_of_the_first_pass_are_dropped_where_the_closure_only_adds() -> None:
    nets = build_net(), build_net()
    for net, adds in zip(nets, (False, True), strict=True):
        optimizer = OptimizerFactory("adamw", sharpness=SETTINGS["SAM"])(net)

        def closure(net: nn.Module = net, adds: bool = adds) -> None:
            if not adds:
                net.zero_grad()
            torch.manual_seed(5)
            loss_of(net, 0).backward()

        optimizer.step(closure)
    assert same(*nets)


def test_a_copy_of_it_needs_its_own_model_and_a_resumed_one_has_it() -> None:
    net = build_net()
    optimizer = OptimizerFactory("adamw", sharpness=SETTINGS["SAM"])(net)
    train(net, optimizer, range(3))
    saved = save_and_load(optimizer.state_dict()), copy.deepcopy(net.state_dict())
    train(net, optimizer, range(3, STEPS))
    other = build_net()
    other.load_state_dict(saved[1])
    resumed = OptimizerFactory("adamw", sharpness=SETTINGS["SAM"])(other)
    resumed.load_state_dict(saved[0])
    train(other, resumed, range(3, STEPS))
    assert same(net, other, but=())
    with pytest.raises(ConfigError, match="sharpness: the model is not known"):
        copy.deepcopy(optimizer).step(closure_of(net, 0))


def test_the_trial_step_of_a_distributed_checkpoint_changes_nothing() -> None:
    net, other = build_net(), build_net()
    optimizer, tried = (OptimizerFactory("lion", sharpness=SETTINGS["SAM"])(it) for it in (net, other))
    get_optimizer_state_dict(other, tried)
    assert same(net, other, but=())
    assert tried.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]


# In a fit


def configure(**given: Any) -> Callable[[Any], Any]:
    config = {"name": "adamw", "lr": 0.05, "sharpness": {"rho": 0.1}, **given}
    return lambda module: configure_optimizers(module, OptimizerFactory(**config))


def test_a_fit_takes_two_gradients_a_step_and_is_the_plain_loop(tmp_path) -> None:
    class Counting(Net):
        calls = 0

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            self.calls += 1
            self.batches = [*getattr(self, "batches", []), batch]
            return super().training_step(batch, batch_idx)

    net = Counting(configure(foreach=False))
    initial = copy.deepcopy(net.state_dict())
    trainer = fit(net, tmp_path, epochs=2)
    assert net.calls / trainer.global_step == 2.0 and trainer.global_step == 2 * BATCHES
    assert net.backbone[1].num_batches_tracked == 2 * BATCHES
    other = Net(configure())
    other.load_state_dict(initial)
    sam = TwoCalls(torch.optim.AdamW(other.parameters(), lr=0.05, foreach=False), rho=0.1)
    for inputs, targets in net.batches[::2]:
        for is_second in (False, True):
            other.backbone[1].momentum = 0.0 if is_second else 0.1
            other.zero_grad()
            nn.functional.cross_entropy(other(inputs), targets).backward()
            sam.second_step() if is_second else sam.first_step()
    assert same(net, other)


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, pytest.param(BATCHES + 2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("staged", [False, True], ids=["whole", "stages"])
def test_a_fit_resumes_bitwise(tmp_path, at, staged) -> None:
    stages = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"step": 2}}}
    whole, resumed = (Net(configure(groups={"bias": {"kinds": ["bias"], "sharpness": None}})) for _ in range(2))
    callbacks = [[StagedUnfreeze(stages)] if staged else [] for _ in range(2)]
    fit(whole, tmp_path, *callbacks[0], epochs=2, save=True)
    fit(resumed, tmp_path / "again", *callbacks[1], epochs=2, ckpt_path=tmp_path / f"step={at}.ckpt")
    assert same(whole, resumed, but=())


def test_the_monitor_has_the_norm_of_the_second_gradient_and_clipping_is_of_both(tmp_path) -> None:
    norms: list[float] = []

    class Clipped(Net):
        def on_before_zero_grad(self, optimizer: Any) -> None:
            norms.append(_grad_norm(self))

    def read(trainer: Any, module: LightningModule) -> float:
        return _grad_norm(module)

    trace = StepTrace(read)
    monitor = OptimizerMonitor(1, to_callback_metrics=True)
    trainer = fit(Clipped(configure()), tmp_path, trace, monitor, epochs=1, gradient_clip_val=0.01, log_every_n_steps=1)
    assert max(trace.steps) <= 0.01 * (1 + 1e-5)
    assert trainer.callback_metrics["optim/norm/grad/all"] == pytest.approx(trace.steps[-1], rel=1e-5)
    assert max(norms) <= 0.01 * (1 + 1e-5)  # at the start of the second pass, that of the first


def _grad_norm(module: nn.Module) -> float:
    grads = [p.grad for p in module.parameters() if p.grad is not None]
    return float(torch.stack([grad.norm() for grad in grads]).norm()) if grads else 0.0


@pytest.fixture(scope="module")
def on_ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    folder = tmp_path_factory.mktemp("sharpness")
    saved = {"strategy": "fsdp2", "ckpt_path": str(folder / "fsdp2 SAM" / "step=2.ckpt")}
    jobs = {
        "ddp SAM": Job("sharpness", "train"),
        "fsdp2 SAM": Job("sharpness", "train", {"strategy": "fsdp2"}),
        "fsdp2 ASAM": Job("sharpness", "train", {"strategy": "fsdp2", "adaptive": True}),
        "fsdp2 resumed": Job("sharpness", "train", saved),
    }
    return run_on_two_ranks(folder, jobs)


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "kind"), [("ddp", "SAM"), ("fsdp2", "SAM"), ("fsdp2", "ASAM")])
def test_replicas_and_shards_train_like_one_process(on_ranks, tmp_path, strategy, kind) -> None:
    first, second = on_ranks[f"{strategy} {kind}"]
    assert len(first["params"]) == BATCHES and first["evaluations"] == 2 * len(first["params"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone = train_on_ranks(tmp_path, num_ranks=1, strategy=strategy, adaptive=kind == "ASAM")
    for own, other, single in zip(first["params"], second["params"], alone["params"], strict=True):
        assert all(map(torch.equal, own, other))
        assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-12) for a, b in zip(own, single, strict=True))


@pytest.mark.slow
def test_shards_resume_bitwise(on_ranks) -> None:
    for whole, resumed in zip(on_ranks["fsdp2 SAM"], on_ranks["fsdp2 resumed"], strict=True):
        for own, other in zip(whole["params"][2:], resumed["params"], strict=True):
            assert all(map(torch.equal, own, other))


# What is refused


def test_without_a_closure_or_a_model_it_is_refused_and_nothing_changes() -> None:
    net = build_net()
    optimizer = OptimizerFactory("adamw", sharpness=SETTINGS["SAM"])(net)
    closure_of(net, 0)()
    with pytest.raises(ConfigError, match=r"^sharpness: AdamW takes 2 gradients a step, .* optimizer\.step\(closure\)"):
        optimizer.step()
    bare = optim.AdamW(net.parameters(), sharpness=SETTINGS["SAM"])
    with pytest.raises(ConfigError, match=r"^sharpness: the model is not known.* optimizer\.set_model\(module\)"):
        bare.step(closure_of(net, 0))
    assert same(net, build_net(), but=("num_batches_tracked", "running_mean", "running_var"))
    bare.set_model(net)
    bare.step(closure_of(net, 0))


def test_a_sparse_gradient_is_refused_by_name() -> None:
    net = nn.Embedding(5, 3, sparse=True)
    optimizer = OptimizerFactory("adamw", sharpness=SETTINGS["SAM"])(net)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = net(torch.tensor([1, 2])).square().sum()
        loss.backward()
        return loss

    before = net.weight.clone()
    with pytest.raises(ConfigError, match=r"^weight: its gradient is sparse, .* sparse=False"):
        optimizer.step(closure)
    assert torch.equal(net.weight, before)


def test_a_closure_that_computes_no_gradient_is_refused() -> None:
    net = build_net()
    optimizer = OptimizerFactory("adamw", sharpness=SETTINGS["SAM"])(net)
    closure_of(net, 0)()
    with pytest.raises(ConfigError, match="AdamW takes 2 gradients a step, and the closure has not computed one"):
        optimizer.step(lambda: None)


def test_accumulation_and_a_grad_scaler_are_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"accumulate_grad_batches: AdamW takes 2 gradients a step \(sharpness\)"):
        fit(Net(configure()), tmp_path, accumulate_grad_batches=2)
    stages = {"head": {"params": "head"}, "rest": {"params": "*", "at": {"epoch": 1}, "sharpness": {}}}
    with pytest.raises(ConfigError, match=r"accumulate_grad_batches: AdamW takes 2 gradients a step \(sharpness\)"):
        fit(
            Net(configure(sharpness=None, implementation="own")),
            tmp_path,
            StagedUnfreeze(stages),
            accumulate_grad_batches=2,
        )
    with pytest.raises(ConfigError, match=r"trainer\.callbacks: AdamW takes 2 .* Remove the callback"):
        fit(Net(configure()), tmp_path, GradientAccumulationScheduler({1: 2}))
    scaled = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    with pytest.raises(
        ConfigError, match=r"trainer\.precision: AdamW takes 2 .*precision=bf16-mixed, or remove sharpness"
    ):
        fit(Net(configure()), tmp_path, plugins=[scaled])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "storm"}, r"^storm: sharpness: storm takes 2 gradients a step, which sharpness does not support"),
        ({"name": "adamw", "implementation": "torch"}, r"sharpness: our adamw takes it, torch's does not.* auto"),
        (
            {"name": "rprop"},
            r"sharpness: rprop has no .*a modifier of our optimizers, and rprop is torch's\. Type another",
        ),
        ({"name": "adamw", "sharpness": True}, r"sharpness: got True, .* Type for example sharpness: \{rho: 0\.05"),
        ({"name": "adamw", "sharpness": {"rho": 0}}, r"sharpness\.rho: got 0, which is not a finite number > 0"),
        (
            {"name": "adamw", "sharpness": {"roh": 1}},
            r"sharpness\.roh: sharpness has no key 'roh'\. Did you mean 'rho'",
        ),
        ({"name": "adamw", "sharpness": {"adaptive": 1}}, r"sharpness\.adaptive: got 1, which is not true or false"),
    ],
)
def test_wrong_configs_are_refused_by_key(config, message) -> None:
    with pytest.raises(ConfigError, match=message):
        OptimizerFactory(**{"sharpness": {}, **config})
