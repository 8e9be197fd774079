"""F1, F6, F11 and F16 on two ranks, under DDP and FSDP2 over gloo: kills, other numbers of ranks, a rank that dies."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_optim import OptimizerFactory, RNGState, StagedUnfreeze
from tests.reliability.scoreboard.fits import MUON, Trace, read_end
from tests.reliability.scoreboard.kills import kill
from tests.reliability.scoreboard.outcome import Cell, NotRun, Outcome, Tier, Verdict, compare
from tests.support.forks import HANG, can_fork, run_forked_ranks
from tests.support.runs import ddp
from tests.support.runs.common import ADAMW, NO_DECAY, RankNet, ShardedNet, configured, fit_on_ranks
from tests.support.runs.sharded import PLAN
from tests.support.stopped_runs import Stop

STRATEGIES = {
    "ddp": "2 ranks, DDP",
    "fsdp2": "2 ranks, FSDP2, a file per rank",
    "fsdp2-full": "2 ranks, FSDP2, one file",
}
MECHANISMS: dict[str, tuple[OptimizerFactory, Callable[[], list[Callback]]]] = {
    "adamw, rules": (ADAMW, list),
    "lion, all modifiers": (
        OptimizerFactory("lion", lr=0.003, skip_nonfinite=True, lookahead={"k": 2}, cautious_update=True), list,
    ),
    "muon + adamw": (OptimizerFactory("adamw", lr=0.01, implementation="own", groups={**MUON, **NO_DECAY}), list),
    "StagedUnfreeze": (ADAMW, lambda: [StagedUnfreeze(PLAN)]),
}  # fmt: skip
NUM_STEPS = 8
THAW = PLAN["backbone"]["at"]["step"]  # type: ignore[index]
TIMEOUT_S = 60.0


class KillRanks(Callback):
    """Kills some ranks at the start of the batch after `step` optimizer steps."""

    def __init__(self, step: int, ranks: tuple[int, ...] = (0, 1)) -> None:
        self.step, self.ranks = step, ranks

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step and trainer.global_rank in self.ranks:
            kill()


class StopAtStart(Callback):
    """Stops a fit that has loaded its checkpoint, and remembers what it has loaded."""

    loaded: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.loaded = read_end(trainer, pl_module)
        raise Stop


def train(
    folder: Path, name: str, strategy: str, *callbacks: Callback, num_ranks: int = 2, ckpt_path: Path | None = None
) -> Any:
    """On each rank: what is logged after each batch, and the state at the end."""
    optimizer, own = MECHANISMS[name]
    torch.manual_seed(0 if ckpt_path is None else 100)
    trace = Trace()
    module = (RankNet if strategy == "ddp" or num_ranks == 1 else ShardedNet)(configured(optimizer), dropout=0.3)
    trainer = fit_on_ranks(
        module, folder, *own(), RNGState(), *callbacks, trace, num_ranks=num_ranks, strategy=strategy, save=True,
        ckpt_path=ckpt_path, epochs=2, seed=1 if ckpt_path is None else 2,
    )  # fmt: skip
    return {"trace": trace.rows, "end": read_end(trainer, module)}


def on_ranks(folder: Path, work: Callable[[], Any], **arguments: Any) -> tuple[list[int | str], list[Any]]:
    """The exit statuses, and what each rank's work returns; None where it did not end well."""
    if not can_fork():
        raise NotRun("no fork can train where torch sees a GPU")
    folder.mkdir(exist_ok=True)

    def run(rank: int) -> None:
        torch.save(work(), folder / f"result{rank}.pt")

    statuses = run_forked_ranks(run, folder / "log", TIMEOUT_S, **arguments)
    results = [
        torch.load(folder / f"result{rank}.pt", weights_only=False) if status == 0 else None
        for rank, status in enumerate(statuses)
    ]
    return statuses, results


def expect_success(folder: Path, statuses: list[int | str]) -> None:
    if any(statuses):
        logs = [path.read_text(encoding="utf-8")[-500:] for path in sorted(folder.glob("log*"))]
        raise AssertionError(f"the ranks ended with {statuses}: {logs}")


_FULL: dict[tuple[str, str], list[Any]] = {}


def full_run(name: str, strategy: str, folder: Path) -> list[Any]:
    """What each rank of the uninterrupted run returns."""
    if (name, strategy) not in _FULL:
        statuses, results = on_ranks(folder / "full", lambda: train(folder / "full", name, strategy))
        expect_success(folder / "full", statuses)
        _FULL[name, strategy] = results
    return _FULL[name, strategy]


def killed(name: str, strategy: str, step: int, victims: tuple[int, ...], folder: Path) -> Outcome:
    """F1, F6, F16: ranks are killed; all end with an error in time, and the newest checkpoint resumes bitwise."""
    full, saved = full_run(name, strategy, folder), folder / "saved"
    statuses, _ = on_ranks(saved, lambda: train(saved, name, strategy, KillRanks(step, victims)))
    if HANG in statuses:
        return Outcome(Verdict.CRASHED, f"after {TIMEOUT_S:.0f} s the ranks had ended with {statuses}")
    if any(statuses[rank] != -signal.SIGKILL for rank in victims) or 0 in statuses:
        return Outcome(Verdict.SILENT_WRONG, f"the ranks ended with {statuses}")
    ckpt_path = saved / f"step={step}.ckpt"
    resumed = folder / "resumed"
    statuses, results = on_ranks(resumed, lambda: train(resumed, name, strategy, ckpt_path=ckpt_path))
    expect_success(resumed, statuses)
    rest = [{**it, "trace": it["trace"][step:]} for it in full]
    return compare(rest, results)


def load(folder: Path, name: str, strategy: str, num_ranks: int, ckpt_path: Path) -> Any:
    """What a run has loaded before its first step."""
    stop = StopAtStart()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            train(folder, name, strategy, stop, num_ranks=num_ranks, ckpt_path=ckpt_path)
    except Stop:
        keys = ("weights", "states", "groups", "schedulers", "trainable")
        return {key: stop.loaded[key] for key in keys}
    raise AssertionError("the run was not stopped")


def other_number(name: str, strategy: str, first: int, step: int, folder: Path) -> Outcome:
    """F16: 2 -> 1 or 1 -> 2 ranks: what is loaded is equal by name to what the saving number of ranks loads."""
    saved, own, other = folder / "saved", folder / "own", folder / "other"

    def run(where: Path, num_ranks: int, work: Callable[[], Any]) -> list[Any]:
        if num_ranks == 1:
            where.mkdir(exist_ok=True)
            return [work()]
        statuses, results = on_ranks(where, work)
        expect_success(where, statuses)
        return results

    path, second = saved / f"step={step}.ckpt", 3 - first
    run(saved, first, lambda: train(saved, name, strategy, num_ranks=first))
    before = run(own, first, lambda: load(own, name, strategy, first, path))
    after = run(other, second, lambda: load(other, name, strategy, second, path))
    return compare([_without_execution(before[0])] * second, [_without_execution(it) for it in after])


def _without_execution(loaded: dict[str, Any]) -> dict[str, Any]:
    flags = ("foreach", "fused")
    groups = [{key: value for key, value in group.items() if key not in flags} for group in loaded["groups"]]
    return {**loaded, "groups": groups}


def nonfinite_on_one_rank(folder: Path) -> Outcome:
    """F11: a loss that is NaN on one rank is skipped on both."""
    statuses, results = on_ranks(folder / "ranks", lambda: ddp.train_with_nonfinite(folder / "ranks", num_ranks=2))
    expect_success(folder / "ranks", statuses)
    first, second = results
    (_, before), (skipped, after) = first[ddp.NONFINITE_STEP - 1], first[ddp.NONFINITE_STEP]
    if {int(count) for count in skipped} != {1}:
        return Outcome(Verdict.SILENT_WRONG, f"skipped: {skipped}")
    return compare([first, before], [second, after])


def cells(seed: int) -> Iterator[Cell]:
    """The cells on two ranks."""
    del seed
    for name, strategy in product(MECHANISMS, STRATEGIES):
        steps = (THAW - 1, THAW, THAW + 1) if name == "StagedUnfreeze" else (2, 5)
        for step in steps:
            family = "F6" if name == "StagedUnfreeze" else "F1"
            run = partial(killed, name, strategy, step, (0, 1))
            slow = (name, strategy, step) in (("StagedUnfreeze", "fsdp2", THAW), ("muon + adamw", "ddp", 2))
            yield _cell(family, f"SIGKILL of both ranks after {step} steps", name, strategy, run, slow=slow)
        for victim in (0, 1):
            run = partial(killed, name, strategy, 4, (victim,))
            slow = (name, strategy, victim) == ("adamw, rules", "ddp", 1)
            yield _cell("F16", f"SIGKILL of rank {victim} after 4 steps", name, strategy, run, slow=slow)
    for name, strategy, first in product(MECHANISMS, ("ddp", "fsdp2-full"), (1, 2)):
        fault = f"saved on {first} rank{'s' if first > 1 else ''}, resumed on {3 - first}"
        run = partial(other_number, name, strategy, first, 5)
        slow = (name, strategy, first) in (("muon + adamw", "fsdp2-full", 2), ("adamw, rules", "fsdp2-full", 1))
        yield _cell("F16", fault, name, strategy, run, slow=slow)
    yield _cell("F11", "a loss that is NaN on one rank", "skip_nonfinite", "ddp", nonfinite_on_one_rank, slow=False)


def _cell(
    family: str, fault: str, mechanism: str, strategy: str, run: Callable[[Path], Outcome], *, slow: bool
) -> Cell:
    tier: Tier = "slow" if slow else "full"
    return Cell(family=family, fault=fault, mechanism=mechanism, strategy=STRATEGIES[strategy], run=run, tier=tier)
