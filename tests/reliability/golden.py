"""Golden files: states that a release has saved, which each later one must load and continue from, bit by bit.

`golden/<version>/<case>.pt` holds the weights and states after some steps, how they were made, and the weights after
more steps. `python -m tests.reliability.write_golden` writes those of this release; those of earlier ones stay.
"""

from __future__ import annotations

import copy
import platform
import random
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightning_optim import OptimizerFactory, RNGState, SchedulerFactory, StagedUnfreeze, configure_optimizers
from lightning_optim.callbacks.rng import _restore_generators
from lightning_optim.optim.base import AdaptiveOptimizer
from tests.reliability.scoreboard.outcome import Outcome, Verdict, compare
from tests.support.loading_runs import MUON, run
from tests.support.models import Deep, weights_of
from tests.support.optimizer_runs import give_hessian
from tests.support.training import Net, fit

GOLDEN = Path(__file__).parent / "golden"
SAVED_AT, NUM_STEPS = 4, 8
RULES = {"stem": {"params": "backbone.0", "lr_scale": 0.5}, "no_decay": {"kinds": ["bias", "norm"], "weight_decay": 0}}
OWN: dict[str, Any] = {"implementation": "own", "lr": 0.02, "groups": RULES}
MODIFIERS: dict[str, Any] = {
    "skip_nonfinite": True, "lookahead": {"k": 3}, "cautious_update": True, "adaptive_clip": 0.1,
    "centralize_gradients": True,
}  # fmt: skip
COSINE = SchedulerFactory("warmup_cosine", warmup_steps=2, total_steps=10)
CASES: dict[str, tuple[OptimizerFactory, SchedulerFactory | None]] = {
    "adamw": (OptimizerFactory("adamw", lr=0.02, groups=RULES), COSINE),
    "adamw_own": (OptimizerFactory("adamw", **OWN, amsgrad=True), SchedulerFactory("one_cycle", total_steps=10)),
    "sgd": (OptimizerFactory("sgd", lr=0.05, momentum=0.9, groups=RULES), SchedulerFactory("exponential", gamma=0.9)),
    "lion": (OptimizerFactory("lion", lr=0.01, weight_decay=0.1, weight_decay_mode="corrected"), COSINE),
    "adabelief": (OptimizerFactory("adabelief", lr=0.02, groups=RULES), None),
    "prodigy": (OptimizerFactory("prodigy", groups={"stem": {"params": "backbone.0", "frozen": True}}), None),
    "sophia_g": (OptimizerFactory("sophia_g", lr=0.02), None),
    "adam_mini": (OptimizerFactory("adam_mini", lr=0.02), None),
    "ademamix": (OptimizerFactory("ademamix", lr=0.02), None),
    "storm": (OptimizerFactory("storm", lr=0.02), None),
    "modifiers": (OptimizerFactory("adamw", lr=0.02, **MODIFIERS), COSINE),
    "muon_adamw": (OptimizerFactory("adamw", lr=0.02, groups={**MUON, **RULES}), COSINE),
    "muon_lion_sgd": (
        OptimizerFactory(
            "sgd", lr=0.05, momentum=0.9, groups={**MUON, "output": {"params": "head", "optimizer": "lion", "lr": 0.01}}
        ),
        SchedulerFactory("step", step_size=3),
    ),
}
"""By name: what the state is saved and loaded by."""
RNG, STAGED, STAGED_SAVED_AT = "rng_state", "staged_run", 5
STAGES = {
    "head": {"params": "head"},
    "top": {"params": "backbone.2", "at": {"step": 3}, "lr_scale": 0.5, "warmup_steps": 4},
    "rest": {"params": "backbone", "at": {"step": 8}},
}


def build(factory: OptimizerFactory, scheduler: SchedulerFactory | None, seed: int) -> tuple[Deep, Any, Any]:
    """A model of this seed, its optimizer, and its schedule or None."""
    model = Deep()
    if seed:  # other weights: what is not restored shows
        with torch.no_grad():
            for param in model.parameters():
                param.add_(seed)
    optimizer = factory(model)
    return model, optimizer, None if scheduler is None else scheduler(optimizer)


def make_golden(name: str) -> dict[str, Any]:
    """What the file of a case holds: plain types and tensors, and the two factories."""
    factory, schedule = CASES[name]
    model, optimizer, scheduler = build(factory, schedule, 0)
    give_hessian(optimizer, model.parameters())
    run(model, optimizer, 0, SAVED_AT, scheduler)
    saved = {
        "weights": flatten(weights_of(model)),
        "optimizer": optimizer.state_dict(),
        "scheduler": None if scheduler is None else scheduler.state_dict(),
    }
    saved = copy.deepcopy(saved)
    run(model, optimizer, SAVED_AT, NUM_STEPS, scheduler)
    return {
        "hyper_parameters": {"optimizer": factory, "scheduler": schedule},  # where a LightningModule's have them
        **saved,
        "after": flatten(weights_of(model)),
        "made_by": machine(),
    }


def machine() -> dict[str, str]:
    """What decides how numbers round; the libraries behind torch's products differ by the model of the CPU too."""
    capability = torch.backends.cpu.get_cpu_capability()
    return {"torch": str(torch.__version__), "cpu": capability, "model": cpu_model()}


def cpu_model() -> str:
    """The maker and the model of the CPU, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    kept = [line for line in lines if line.startswith(("vendor_id", "cpu family", "model"))]
    return ", ".join(dict.fromkeys(line.partition(":")[2].strip() for line in kept))


def load_and_continue(content: Mapping[str, Any]) -> torch.Tensor:
    """The weights after the last step, from the factories and states of a file."""
    factories = content["hyper_parameters"]
    model, optimizer, scheduler = build(factories["optimizer"], factories["scheduler"], 1)
    torch.nn.utils.vector_to_parameters(content["weights"].clone(), model.parameters())
    optimizer.load_state_dict(content["optimizer"])
    if scheduler is not None:
        scheduler.load_state_dict(content["scheduler"])
    run(model, optimizer, SAVED_AT, NUM_STEPS, scheduler)
    return flatten(weights_of(model))


def flatten(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """One vector: each tensor of its own takes 400 bytes of a file."""
    return torch.cat([tensor.flatten() for tensor in tensors])


def make_staged(folder: Path) -> dict[str, Any]:
    """A checkpoint of Lightning in the middle of a plan, and the weights at the end of that run."""
    module = _fit_staged(folder, save=True)
    checkpoint = torch.load(folder / f"step={STAGED_SAVED_AT}.ckpt", weights_only=True)
    checkpoint["callbacks"] = {"StagedUnfreeze": checkpoint["callbacks"]["StagedUnfreeze"]}
    return {"checkpoint": checkpoint, "after": flatten(weights_of(module)), "made_by": machine()}


def continue_staged(content: Mapping[str, Any], folder: Path) -> torch.Tensor:
    """The weights at the end of the run that resumes from such a checkpoint."""
    torch.save(content["checkpoint"], folder / "golden.ckpt")
    return flatten(weights_of(_fit_staged(folder, ckpt_path=folder / "golden.ckpt")))


def _fit_staged(folder: Path, **arguments: Any) -> Net:
    torch.manual_seed(100 if "ckpt_path" in arguments else 0)
    schedule = SchedulerFactory("warmup_cosine", warmup_steps=2)
    net = Net(lambda module: configure_optimizers(module, OptimizerFactory("lion", lr=0.01), schedule))
    net.backbone = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(net, folder, StagedUnfreeze(STAGES), epochs=3, **arguments)
    return net


def make_rng() -> dict[str, Any]:
    """A state of RNGState, and the numbers that are drawn next."""
    return {"state": RNGState().state_dict(), "after": draw(), "made_by": machine()}


def continue_rng(content: Mapping[str, Any]) -> torch.Tensor:
    """The numbers that are drawn after the state is restored."""
    _restore_generators(content["state"]["ranks"][0])
    return draw()


def draw() -> torch.Tensor:
    """Some numbers of each generator."""
    numbers = [random.random(), random.gauss(0, 1), *np.random.rand(2), np.random.randn()]
    return torch.cat([torch.tensor(numbers, dtype=torch.double), torch.rand(3).double()])


def compare_with_golden(path: Path, folder: Path) -> Outcome:
    """F9: the file loads with `weights_only=True`, and its run continues to the weights that it holds.

    Bit by bit under the torch and on the model of CPU that wrote it. Elsewhere sums and powers round in another order:
    within 1e-5 after four steps.
    """
    content = torch.load(path, weights_only=True)
    special = {STAGED: partial(continue_staged, folder=folder), RNG: continue_rng}
    after = special.get(path.stem, load_and_continue)(content)
    if content["made_by"] == machine():
        return compare(content["after"], after)
    difference = (content["after"] - after).abs().max().item()
    if not difference <= 1e-5:
        return Outcome(Verdict.SILENT_WRONG, f"differs by {difference:g}")
    return Outcome(Verdict.EXACT, f"within {difference:g}: another torch or CPU")


def newer_schemas(name: str) -> dict[str, Callable[[Path], Outcome]]:
    """F9: what a later release might have saved, by what this one does not know in it."""
    changes: dict[str, Callable[[Any], None]] = {
        "an algorithm": lambda c: c["optimizer"]["param_groups"][0].update(algorithm="future"),
        "a hyperparameter": lambda c: c["optimizer"]["param_groups"][0]["configured"].update(future_option=0.5),
    }
    if optimizer_uses_own_class(name):  # torch's classes take what they do not know
        changes["a buffer"] = lambda c: next(iter(c["optimizer"]["state"].values())).update(future=torch.zeros(1))
    if CASES[name][1] is not None:
        changes["a key of the schedule's record"] = lambda c: c["scheduler"]["schedule"].update(future=1)
    return {what: partial(_load_changed, name, change) for what, change in changes.items()}


def optimizer_uses_own_class(name: str) -> bool:
    """Whether our class steps a case."""
    return isinstance(build(*CASES[name], 0)[1], AdaptiveOptimizer)


def newer_callbacks() -> dict[str, Callable[[Path], Outcome]]:
    """F9: as `newer_schemas`, in the states of callbacks."""
    changes: dict[str, Callable[[Any], None]] = {
        "StagedUnfreeze": lambda callbacks: callbacks["StagedUnfreeze"].update(future=1),
        "StagedUnfreeze, plateaus": lambda callbacks: callbacks["StagedUnfreeze"]["plateaus"].update(future=1),
    }
    return {what: partial(_resume_changed, change) for what, change in changes.items()}


def _load_changed(name: str, change: Callable[[Any], None], folder: Path) -> Outcome:
    del folder
    content = make_golden(name)
    change(content)
    load_and_continue(content)
    return Outcome(Verdict.SILENT_WRONG, "it was loaded")


def _resume_changed(change: Callable[[Any], None], folder: Path) -> Outcome:
    content = make_staged(folder)
    change(content["checkpoint"]["callbacks"])
    continue_staged(content, folder)
    return Outcome(Verdict.SILENT_WRONG, "it was loaded")
