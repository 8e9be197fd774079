"""Several algorithms in one optimizer under Lightning: as two stepped by hand, resumed bitwise, staged, and sharded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn

from lightning_optim import (
    ConfigError,
    OptimizerFactory,
    OptimizerMonitor,
    RNGState,
    SchedulerFactory,
    StagedUnfreeze,
    configure_optimizers,
)
from lightning_optim.optim.composite import Composite
from tests.support.processes import run_module
from tests.support.training import BATCHES, Loader, Net, Witness, fit, same

HIDDEN = {"params": "backbone", "kinds": ["matrix"], "optimizer": "muon", "lr": 0.02}
NORMS = {"params": "backbone.1", "weight_decay": 0.0}
SAVED = {"hidden": HIDDEN, "norms": NORMS}
RULES: dict[str, dict[str, Any]] = {
    "as saved": SAVED,
    "added": {**SAVED, "head": {"params": "head", "lr_scale": 2.0}},
    "renamed": {"matrices": HIDDEN, "a_norm": NORMS},
    "split": {**SAVED, "biases": {"kinds": ["bias"], "lr_scale": 1.0}},
}
SCHEDULERS: dict[str, SchedulerFactory | None] = {
    "constant": None,
    "warmup_cosine": SchedulerFactory("warmup_cosine", warmup_steps=2),
    "one_cycle": SchedulerFactory("one_cycle"),
    "exponential by epoch": SchedulerFactory("exponential", interval="epoch", gamma=0.5),
}
schedulers = pytest.mark.parametrize("scheduler", SCHEDULERS.values(), ids=SCHEDULERS)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small only wait for a second one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def module_for(rules: dict[str, Any] = SAVED, scheduler: SchedulerFactory | None = None, **options: Any) -> Net:
    factory = OptimizerFactory("adamw", lr=0.01, groups=rules)
    torch.manual_seed(0)
    return Net(lambda module: configure_optimizers(module, factory, scheduler), **options)


def weights_of(module: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def states_of(optimizer: Any, module: nn.Module) -> dict[str, Any]:
    return {name: {k: v.clone() for k, v in optimizer.state[p].items()} for name, p in module.named_parameters()}


def lrs_of(optimizer: Any, module: nn.Module) -> dict[str, float]:
    lrs = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    return {name: lrs[id(p)] for name, p in module.named_parameters()}


class Noted(Witness):
    """After each step, and before the first: the weights, the states, the lrs, by parameter."""

    def __init__(self) -> None:
        super().__init__(
            lambda trainer, module: (
                weights_of(module),
                states_of(trainer.optimizers[0], module),
                lrs_of(trainer.optimizers[0], module),
            )
        )
        self.start: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        assert type(trainer.optimizers[0]) is Composite
        self.start = self.look(trainer, pl_module)


# As by hand


@pytest.mark.parametrize("batches", [8, 10], ids=["whole windows", "a rest"])
@pytest.mark.parametrize("clip", [None, 0.05], ids=["as they are", "clipped"])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_fit_is_a_plain_loop_over_two_optimizers(tmp_path, accumulate, clip, batches) -> None:
    module, witness = module_for(), Noted()
    fit(
        module,
        tmp_path,
        witness,
        epochs=3,
        loader=Loader(batches),
        accumulate_grad_batches=accumulate,
        gradient_clip_val=clip,
    )
    other, expected = module_for(), []
    named = list(other.named_parameters())
    hidden = [p for name, p in named if name.startswith("backbone") and p.ndim == 2]
    norms = list(other.backbone[1].parameters())
    rest = [p for _, p in named if not any(p is held for held in (*hidden, *norms))]
    two = [
        torch.optim.Muon(hidden, lr=0.02),
        torch.optim.AdamW([{"params": rest}, {"params": norms, "weight_decay": 0.0}], lr=0.01, fused=True),
    ]
    loader, clipped = Loader(batches), 0
    for _ in range(3):
        for index, (inputs, targets) in enumerate(loader):
            (nn.functional.cross_entropy(other(inputs), targets) / accumulate).backward()
            if (index + 1) % accumulate and index + 1 < batches:
                continue
            if clip:
                # In the order of the groups, as Lightning clips: the norm is a sum.
                clipped += nn.utils.clip_grad_norm_([*hidden, *rest, *norms], clip) > clip
            for optimizer in two:
                optimizer.step()
                optimizer.zero_grad()
            expected.append(weights_of(other))
    seen = [weights for weights, *_ in witness.seen]
    assert len(seen) == 3 * math.ceil(batches / accumulate)
    assert [same(a, b) for a, b in zip(seen, expected, strict=True)] == [True] * len(expected)
    assert bool(clipped) is bool(clip)


# Resumed


class SameOrder(Loader):
    """Each epoch's batches in one order: after the end of an epoch Lightning asks a loader once more than before."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.batch %= len(self)
        while self.batch < len(self):
            self.batch += 1
            yield self.inputs[self.batch - 1], self.targets[self.batch - 1]


# Each is a file, after how many steps it was saved, and the loader of both fits.
CHECKPOINTS = {
    "mid-epoch": ("step=3.ckpt", 3, Loader),
    "last step of an epoch": ("step=4.ckpt", 4, Loader),
    "late": ("step=7.ckpt", 7, Loader),
    "end of an epoch": ("epoch=1.ckpt", 4, SameOrder),
}


def interrupted(folder: Path, scheduler: SchedulerFactory | None, loader: type[Loader] = Loader) -> Noted:
    """A whole fit that leaves `step=<n>.ckpt` after each step and `epoch=<n>.ckpt` after each epoch."""
    witness = Noted()
    by_epoch = ModelCheckpoint(folder, "{epoch}", every_n_epochs=1, save_top_k=-1, save_on_train_epoch_end=True)
    module = module_for(SAVED, scheduler, dropout=0.3)
    fit(module, folder, witness, RNGState(), by_epoch, save=True, accumulate_grad_batches=2, loader=loader())
    assert len(witness.seen) == 8
    return witness


def resumed(
    folder: Path, file: str, rules: dict[str, Any], scheduler: SchedulerFactory | None, loader: type[Loader] = Loader
) -> Noted:
    witness, module = Noted(), module_for(rules, scheduler, dropout=0.3)
    # Another seed: what is not restored shows.
    arguments = {"accumulate_grad_batches": 2, "ckpt_path": folder / file, "seed": 2, "loader": loader()}
    fit(module, folder / "again", witness, RNGState(), **arguments)
    return witness


@schedulers
def test_an_interrupted_fit_goes_on_bitwise(tmp_path, scheduler) -> None:
    whole = {loader: interrupted(tmp_path / loader.__name__, scheduler, loader) for loader in (Loader, SameOrder)}
    for name, (file, step, loader) in CHECKPOINTS.items():
        again = resumed(tmp_path / loader.__name__, file, SAVED, scheduler, loader)
        assert len(again.seen) == 8 - step
        assert same(again.seen, whole[loader].seen[step:]), name


@schedulers
def test_under_other_rules_every_state_is_at_its_own_parameter(tmp_path, scheduler) -> None:
    whole = {loader: interrupted(tmp_path / loader.__name__, scheduler, loader) for loader in (Loader, SameOrder)}
    for rules in ("added", "renamed", "split"):
        for name, (file, step, loader) in CHECKPOINTS.items():
            again = resumed(tmp_path / loader.__name__, file, RULES[rules], scheduler, loader)
            assert same(again.start[:2], whole[loader].seen[step - 1][:2]), (rules, name)
            if rules != "added":
                assert same(again.seen, whole[loader].seen[step:]), (rules, name)
                continue
            for (*_, lrs), (*_, others) in zip(again.seen, whole[loader].seen[step:], strict=True):
                for parameter, lr in others.items():
                    # The part of its peak is rounded once.
                    expected = 2 * lr if parameter.startswith("head") else lr
                    assert lrs[parameter] == pytest.approx(expected, rel=1e-14), (name, parameter)


def test_rules_that_change_an_algorithm_are_refused_by_the_parameter_s_name(tmp_path) -> None:
    interrupted(tmp_path, None)
    lion = {"hidden": {**HIDDEN, "optimizer": "lion", "lr": 0.01}, "norms": NORMS}
    with pytest.raises(ConfigError, match=r"backbone\.0\.weight"):
        resumed(tmp_path, "step=3.ckpt", lion, None)


def test_a_rule_s_schedule_is_kept_and_resumed(tmp_path) -> None:
    rules = {**SAVED, "head": {"params": "head", "schedule": "constant"}}
    scheduler = SCHEDULERS["warmup_cosine"]
    witness = Noted()
    fit(module_for(rules, scheduler), tmp_path, witness, save=True)
    seen = [lrs for *_, lrs in witness.seen]
    assert {lrs["head.bias"] for lrs in seen} == {0.01}
    assert len({lrs["backbone.0.bias"] for lrs in seen}) > 10
    again = Noted()
    fit(module_for(rules, scheduler), tmp_path / "again", again, ckpt_path=tmp_path / "step=6.ckpt", seed=2)
    assert same(again.seen, witness.seen[6:])


def test_a_rule_s_schedule_is_built_without_a_scheduler(tmp_path) -> None:
    rules = {**SAVED, "head": {"params": "head", "schedule": {"name": "warmup_cosine"}}}
    witness = Noted()
    fit(module_for(rules), tmp_path, witness)
    seen = [lrs for *_, lrs in witness.seen]
    half = [0.01 * (0.5 + 0.5 * math.cos(math.pi * t / 16)) for t in range(16)]
    assert [lrs["head.bias"] for lrs in seen] == pytest.approx(half, rel=1e-12)  # rounded at another place
    assert {lrs["backbone.0.weight"] for lrs in seen} == {0.02}


# Beside the callbacks

PLAN: dict[str, Any] = {
    "head": {"params": "head"},
    "norms": {"params": ["backbone.1", "*.bias"], "at": {"step": 2}},
    "backbone": {"params": "backbone", "at": {"epoch": 1}, "lr_scale": 0.5, "warmup_steps": 3},
}


def test_the_monitor_reads_each_group_by_its_own_algorithm(tmp_path) -> None:
    def look(trainer: Trainer, module: Any) -> dict[str, float]:
        optimizer, found = trainer.optimizers[0], {}
        for group in optimizer.param_groups:
            found[f"optim/lr/{group['name']}"] = group["lr"]
            for key in ("momentum_buffer", "exp_avg", "exp_avg_sq"):
                held = [optimizer.state[p][key] for p in group["params"] if key in optimizer.state[p]]
                if held:
                    squares = sum(float(value.double().square().sum()) for value in held)
                    found[f"optim/norm/{key}/{group['name']}"] = math.sqrt(squares)
        return found

    witness, monitor = Witness(look), OptimizerMonitor(1, to_callback_metrics=True, update_norm=True, cosine=True)
    trainer = fit(module_for(scheduler=SCHEDULERS["one_cycle"]), tmp_path, monitor, witness)
    logged = {key: float(value) for key, value in trainer.callback_metrics.items()}
    last = witness.seen[-1]
    assert set(last) == {key for key in logged if key in last}
    assert "optim/norm/momentum_buffer/hidden" in last and "optim/norm/exp_avg/hidden" not in last
    # float32 sums, and float32 metrics.
    assert {key: logged[key] for key in last} == pytest.approx(last, rel=1e-5)
    assert {"optim/momentum/hidden", "optim/beta1/default", "optim/norm/update/hidden"} <= set(logged)
    assert "optim/beta1/hidden" not in logged and "optim/momentum/default" not in logged


@pytest.mark.parametrize(
    ("rules", "scheduler"),
    [
        (SAVED, SCHEDULERS["one_cycle"]),
        ({**SAVED, "head": {"params": "head", "schedule": "constant"}}, SCHEDULERS["warmup_cosine"]),
    ],
    ids=["one_cycle", "by group"],
)
def test_learning_rate_monitor_logs_every_group(tmp_path, rules, scheduler) -> None:
    monitor, logger = LearningRateMonitor(), CSVLogger(tmp_path)
    fit(module_for(rules, scheduler), tmp_path, monitor, logger=logger, log_every_n_steps=1)
    assert {key.rpartition("/")[2] for key in monitor.lrs} == {"hidden", "default", *set(rules) - {"hidden"}}
    assert all(len(values) == 4 * BATCHES for values in monitor.lrs.values())


STAGED = {
    "constant": (SAVED, None),
    "warmup_cosine": (SAVED, SCHEDULERS["warmup_cosine"]),
    "one_cycle": (SAVED, SCHEDULERS["one_cycle"]),
    "by group": ({**SAVED, "head": {"params": "head", "schedule": "constant"}}, SCHEDULERS["warmup_cosine"]),
}


def staged(folder: Path, rules: Any, scheduler: Any, ckpt_path: Path | None = None) -> tuple[Any, Net, Witness]:
    module = module_for(rules, scheduler, dropout=0.3)
    witness = Witness(
        lambda trainer, module: (
            {group["name"]: (group["algorithm"], group["lr"]) for group in trainer.optimizers[0].param_groups},
            weights_of(module),
        )
    )
    callbacks = (StagedUnfreeze(PLAN), OptimizerMonitor(1, to_callback_metrics=True), RNGState(), witness)
    given = {"ckpt_path": ckpt_path, "save": ckpt_path is None, "seed": 1 if ckpt_path is None else 2}
    return fit(module, folder, *callbacks, epochs=3, **given), module, witness


def test_a_head_is_trained_by_adamw_first_and_the_backbone_by_muon_later(tmp_path) -> None:
    trainer, _, witness = staged(tmp_path, SAVED, None)
    algorithms = [{name: algorithm for name, (algorithm, _) in groups.items()} for groups, _ in witness.seen]
    head = {"head": "adamw"}
    norms = {**head, "norms": "adamw", "norms.norms": "adamw"}
    first = {name: group for name, group in algorithms[2].items() if name != "head"}
    assert algorithms[:2] == [head] * 2
    assert set(first.values()) == {"adamw"} and algorithms[2:BATCHES] == [algorithms[2]] * (BATCHES - 2)
    late = {name: group for name, group in algorithms[-1].items() if name not in algorithms[2]}
    assert set(late.values()) == {"muon"} and all(name.startswith("backbone") for name in late)
    assert algorithms[BATCHES:] == [algorithms[-1]] * 2 * BATCHES
    assert norms.keys() & algorithms[-1].keys()
    lrs = [{n: lr for n, (_, lr) in groups.items() if n in late} for groups, _ in witness.seen[BATCHES:]]
    assert [set(step.values()) for step in lrs[:4]] == [{0.02 * (0.5 * part)} for part in (1 / 3, 2 / 3, 1.0, 1.0)]
    for index, (earlier, later) in enumerate(zip(witness.seen[:BATCHES], witness.seen[1:BATCHES], strict=False)):
        assert torch.equal(earlier[1][0], later[1][0]), (index, "Muon's matrix waits")
    logged = set(trainer.callback_metrics)
    assert {f"optim/norm/momentum_buffer/{name}" for name in late} <= logged


@pytest.mark.parametrize(("rules", "scheduler"), STAGED.values(), ids=STAGED)
def test_staged_it_resumes_bitwise_from_every_step(tmp_path, rules, scheduler) -> None:
    trainer, module, witness = staged(tmp_path, rules, scheduler)
    for step in range(1, 3 * BATCHES):
        again, other, saw = staged(tmp_path / "again", rules, scheduler, tmp_path / f"step={step}.ckpt")
        assert same(saw.seen, witness.seen[step:]), step
        assert same(module.state_dict(), other.state_dict()), step
        assert same(*(_told(one.optimizers[0].state_dict()) for one in (trainer, again))), step


def _told(state_dict: dict[str, Any]) -> dict[str, Any]:
    """Without a default that torch gives to groups that join after a load, and to no others."""
    groups = [{k: v for k, v in group.items() if k != "differentiable"} for group in state_dict["param_groups"]]
    return {**state_dict, "param_groups": groups}


@pytest.mark.parametrize("rules", ["renamed", "split"])
@pytest.mark.parametrize("scheduler", ["constant", "warmup_cosine", "one_cycle"])
def test_staged_it_goes_on_through_renamed_and_split_rules(tmp_path, rules, scheduler) -> None:
    _, module, witness = staged(tmp_path, SAVED, SCHEDULERS[scheduler])
    for step in (1, 3, 5, 9):
        args = (RULES[rules], SCHEDULERS[scheduler], tmp_path / f"step={step}.ckpt")
        _, other, saw = staged(tmp_path / "again", *args)
        assert same([weights for _, weights in saw.seen], [weights for _, weights in witness.seen[step:]]), step
        assert same(module.state_dict(), other.state_dict()), step


# Two processes


def run(folder: Path, how: str, *ckpt_and_rules: str) -> list[Any]:
    """What each rank noted; nothing where the fit was refused, which `log.txt` tells."""
    folder.mkdir()
    arguments = (folder, how, *ckpt_and_rules)
    status, out, errors = run_module("tests.support.runs.algorithms", *arguments, timeout_s=180, may_fail=True)
    (folder / "log.txt").write_text(out + errors, encoding="utf-8")
    if status:
        return []
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(1 if how == "alone" else 2)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("algorithms")


@pytest.fixture(scope="module")
def ddp(place: Path) -> list[Any]:
    return run(place / "ddp", "ddp")


@pytest.fixture(scope="module")
def fsdp(place: Path) -> list[Any]:
    return run(place / "fsdp", "fsdp")


@pytest.fixture(scope="module")
def full(place: Path) -> list[Any]:
    return run(place / "full", "full")


@pytest.mark.slow
def test_replicas_are_bitwise_equal_and_equal_one_process(place, ddp) -> None:
    first, second = ddp
    assert len(first) == 9
    assert same(first, second)
    (one,) = run(place / "alone", "alone")
    for ours, alone in zip(first, one, strict=True):
        assert ours["lrs"] == alone["lrs"]
        for name, parameter in ours["params"].items():
            # A mean of two means of float32 gradients; Adam divides them by their own size.
            torch.testing.assert_close(parameter, alone["params"][name], rtol=0, atol=1e-6)
    assert not same(first[0]["params"], first[-1]["params"])


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 4])
@pytest.mark.parametrize("rules", ["as saved", "renamed", "split"])
def test_replicas_resume_bitwise_under_renamed_and_split_rules(place, ddp, step, rules) -> None:
    found = run(place / f"ddp {rules} from {step}", "ddp", str(place / "ddp" / f"step={step}.ckpt"), rules)
    for again in found or [None]:
        assert same(again[0]["states"], ddp[0][step]["states"])
        assert same([s["params"] for s in again], [s["params"] for s in ddp[0][step:]])
        assert same([s["lrs"] for s in again[1:]], [s["lrs"] for s in ddp[0][step + 1 :]])


@pytest.mark.slow
def test_a_sharded_fit_is_that_of_two_optimizers_stepped_by_hand(place, fsdp) -> None:
    first, second = fsdp
    by_hand, _ = run(place / "by hand", "by_hand")
    assert len(first) == 9
    assert same(first, second)
    assert [same(a["params"], b["params"]) for a, b in zip(first, by_hand, strict=True)] == [True] * 9
    for name, parameter in first[0]["params"].items():
        assert not torch.equal(parameter, first[-1]["params"][name]), name
    assert {key for name, state in first[-1]["states"].items() if name == "backbone.0.weight" for key in state} == {
        "momentum_buffer"
    }


@pytest.mark.slow
@pytest.mark.parametrize("how", ["fsdp", "full"])
@pytest.mark.parametrize("rules", ["as saved", "renamed"])
@pytest.mark.parametrize("step", [3, 4])
def test_a_sharded_fit_resumes_bitwise(place, request, how, rules, step) -> None:
    whole = request.getfixturevalue(how)
    found = run(place / f"{how} {rules} from {step}", how, str(place / how / f"step={step}.ckpt"), rules)
    assert len(found) == 2
    for again in found:
        assert same(again[0]["states"], whole[0][step]["states"])
        assert same([s["params"] for s in again], [s["params"] for s in whole[0][step:]])
        assert same([s["lrs"] for s in again[1:]], [s["lrs"] for s in whole[0][step + 1 :]])


@pytest.mark.slow
@pytest.mark.parametrize("how", ["fsdp", "full"])
@pytest.mark.parametrize("rules", ["split", "added", "exchanged"])
def test_a_sharded_checkpoint_under_other_rules_is_right_by_name_or_refused(place, request, how, rules) -> None:
    whole = request.getfixturevalue(how)[0]
    folder = place / f"{how} {rules}"
    found = run(folder, how, str(place / how / "step=3.ckpt"), rules)
    if not found:
        assert "param_groups" in (folder / "log.txt").read_text(encoding="utf-8")
        return
    for again in found:
        assert same(again[0]["states"], whole[3]["states"])
        assert same(again[0]["params"], whole[3]["params"])
        for now, then in zip(again[1:], whole[4:], strict=True):
            for name, lr in then["lrs"].items():
                twice = rules != "split" and name.startswith("head")
                # The part of its peak is rounded once.
                assert now["lrs"][name] == pytest.approx(2 * lr if twice else lr, rel=1e-14), name
    if rules == "split":
        assert same([s["params"] for s in found[0]], [s["params"] for s in whole[3:]])
