"""One case of the fuzzing of checkpoints: a changed file, inspected and resumed, and whether the outcome is allowed."""

from __future__ import annotations

import io
import logging
import math
import re
import tempfile
import traceback
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from lightning_optim import ConfigError
from lightning_optim.cli.inspect import print_comparison, print_report
from lightning_optim.cli.inspect_json import describe_comparison, describe_report
from lightning_optim.cli.json_output import to_json
from tests.support.checkpoint_mutations import mutate
from tests.support.checkpointed_runs import RUNS, FactoryNet, Probe, Run, resume, save_checkpoint
from tests.support.equality import equal
from tests.support.fuzzed_cases import TimeLimitError, time_limit

TIME_LIMIT_S = 5.0
MAX_MESSAGE = 4000
UNCHANGED, AS_SAVED, REFUSED, NOT_OURS = "unchanged", "as saved", "refused", "not ours"
ALLOWED = (UNCHANGED, AS_SAVED, REFUSED, NOT_OURS)
_ABSENT = object()
# A parameter that has had no gradient has no state, and torch's own schedulers no record.
_STATE = r"\.optimizer_states\[0\]\.state\.\d+"
_OPTIONAL = rf"{_STATE}(\.momentum_buffer)?|\.lr_schedulers\[0\]\.schedule"


@dataclass
class Outcome:
    """What became of one case."""

    seed: int
    run: str
    verdict: str
    """One of `ALLOWED`, or what is wrong."""
    detail: str = ""

    @property
    def is_wrong(self) -> bool:
        """Whether it is neither unchanged, as saved, refused, nor Lightning's own business."""
        return self.verdict not in ALLOWED


@dataclass(frozen=True)
class _Base:
    """A run with its checkpoint, and what a resume from the unchanged file gives."""

    run: Run
    path: Path
    content: dict[str, Any]
    expected: Probe


class CheckpointFuzzer:
    """Draws cases from the checkpoints of all runs.

    Args:
        folder: for the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bases: dict[str, _Base] = {}
        for index, (name, run) in enumerate(RUNS.items()):
            path = save_checkpoint(run, folder / str(index))
            with _captured_output():
                self._bases[name] = _Base(run, path, torch.load(path), resume(run, path))

    def run_cases(self, seed: int, count: int) -> Iterator[Outcome]:
        """The outcomes of as many cases, one after the other."""
        return (self.run_case(seed * 1_000_000 + index) for index in range(count))

    def run_case(self, seed: int, *, reraise: bool = False) -> Outcome:
        """Draw the case of a seed; the same seed is the same case.

        Args:
            seed: of the case.
            reraise: whether an error other than `ConfigError` is raised again.
        """
        rng = Random(seed)
        name = rng.choice(list(self._bases))
        base = self._bases[name]
        verdict, detail = UNCHANGED, ""
        with _captured_output():
            content, is_ours = mutate(base.content, rng)
            path = self._folder / "changed.ckpt"
            torch.save(content, path)
            for use in (self._inspect, self._resume, self._load_module):
                try:
                    with time_limit(TIME_LIMIT_S):
                        found = use(base, path, content, rng, is_ours)
                except ConfigError as error:
                    found = _judge_message(error, path)
                except (Exception, SystemExit, TimeLimitError) as error:
                    if reraise:
                        raise
                    found = _judge_error(error, is_ours and use != self._load_module, content)
                if found[0] not in ALLOWED:
                    return Outcome(seed, name, f"{use.__name__.strip('_')}: {found[0]}", found[1])
                if found[0] != UNCHANGED:
                    verdict, detail = found
        return Outcome(seed, name, verdict, detail)

    def _inspect(self, base: _Base, path: Path, content: Any, rng: Random, is_ours: bool) -> tuple[str, str]:
        if "optimizer_states" in content and content["optimizer_states"] is base.content["optimizer_states"]:
            return UNCHANGED, ""
        if rng.random() < 0.5:
            to_json(describe_report(path))
            to_json(describe_comparison(path, base.path))
        else:
            file = io.StringIO()
            console = Console(file=file, width=100)
            print_report(console, path)
            print_comparison(console, base.path, path)
            if bad := _hidden(file.getvalue().replace("\n", "")):
                return f"prints {bad!r}", ""
        return UNCHANGED, ""

    def _resume(self, base: _Base, path: Path, content: Any, rng: Random, is_ours: bool) -> tuple[str, str]:
        probe, expected = resume(base.run, path), base.expected
        if probe.loaded is None:
            return (NOT_OURS, "nothing is left to train") if not is_ours else ("nothing is trained", "")
        if equal(probe.loaded, expected.loaded) and equal(probe.ended, expected.ended):
            return UNCHANGED, ""
        problems = list(_differences("", probe.loaded, expected.loaded, content))
        if problems:
            return "silently wrong", "; ".join(problems)[:500]
        return AS_SAVED, ""

    def _load_module(self, base: _Base, path: Path, content: Any, rng: Random, is_ours: bool) -> tuple[str, str]:
        if (
            "hyper_parameters" not in base.content
            or content.get("hyper_parameters") is base.content["hyper_parameters"]
        ):
            return UNCHANGED, ""
        module = FactoryNet.load_from_checkpoint(path)
        hparams = base.content["hyper_parameters"]
        built = module.configure_optimizers()
        if equal(dict(module.hparams), dict(hparams)):
            return UNCHANGED, ""
        return AS_SAVED, repr(built)


def _judge_message(error: ConfigError, path: Path) -> tuple[str, str]:
    message = str(error)
    if not message or len(message) > MAX_MESSAGE or "\n" in message:
        return f"message of {len(message)} characters", message
    if bad := _hidden(message):
        return f"message with {bad!r}", message
    if re.search(r"\bweights_only=False", message):
        return "advises weights_only=False", message
    return REFUSED, message


def _judge_error(error: BaseException, is_ours: bool, content: Any) -> tuple[str, str]:
    """Errors of Lightning, torch and the module are allowed where nothing of ours was changed.

    And Lightning's own of a checkpoint that has no optimizers or schedulers, as `save_weights_only` writes it.
    """
    is_partial = not {"optimizer_states", "lr_schedulers"} <= content.keys()
    if isinstance(error, KeyError) and is_partial and "save_weights_only" in str(error):
        return NOT_OURS, "weights only"
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/lightning_optim/" in frame.filename]
    if not is_ours and frames[-1] not in ours:
        return NOT_OURS, type(error).__name__
    where = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in (*ours[-2:], frames[-1])]
    return f"raw {type(error).__name__}", f"{' > '.join(where)}: {str(error)[:200]!r}"


def _hidden(text: str) -> str:
    return "".join(it for it in text if unicodedata.category(it) in ("Cc", "Cf", "Cs"))[:3]


def _differences(path: str, found: Any, expected: Any, saved: Any) -> Iterator[str]:
    """Values with which a run resumes that are neither the unchanged file's nor legal ones of the changed file."""
    if equal(found, expected):
        return
    if re.fullmatch(r"\.callbacks\.\w+", path) and (saved is _ABSENT or _is_empty(saved)):
        return  # as of a run without this callback; optimizer and schedule are compared all the same
    if re.fullmatch(_STATE, path) and _is_empty(found) and _is_empty(saved):
        return  # as of a parameter that has had no gradient
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in found.keys() | expected.keys():
            if key not in expected and _same_value(found[key], _get(saved, key)):
                continue  # nothing reads it
            if re.fullmatch(_OPTIONAL, f"{path}.{key}") and key not in found and _get(saved, key) is _ABSENT:
                continue
            values = [_get(container, key) for container in (found, expected, saved)]
            if key in ("lr", "momentum") and _is_derived(key, *values, expected, saved):
                continue
            yield from _differences(f"{path}.{key}", *values)
        return
    if path == ".callbacks.StagedUnfreeze.thaw_log" and found == ([] if saved is _ABSENT else saved):
        return  # older versions had none; nothing but the log reads it
    if re.search(r"_schedulers\[\d\]\._last_lr$", path):
        return  # as above: the optimizer's lr, where the names beside it were changed
    if path.endswith("_last_lr") and sorted(found) == sorted(expected):
        return  # the names beside it were changed; nothing but the log reads it
    if type(found) is type(expected) and isinstance(found, (list, tuple)) and len(found) == len(expected):
        for index in range(len(found)):
            values = [found[index], expected[index], _get(saved, index)]
            yield from _differences(f"{path}[{index}]", *values)
        return
    if re.search(r"\.ns_coefficients\[\d\]$|\.dampening$|\.best$", path) and _same_value(found, saved):
        return  # of either sign; the best metric is infinite at first
    if not (_same_value(found, saved) and _is_legal(expected, saved)):
        yield f"{path}: {str(found)[:60]} in place of {str(expected)[:60]} and of {str(saved)[:60]}"


def _is_derived(key: str, found: Any, expected: Any, saved: Any, group: Any, saved_group: Any) -> bool:
    """Whether a group's lr or momentum follows from other values of the changed file, by these rules:

    - an lr of one element has the type that was saved, and the value is that of the unchanged file;
    - where the saved peak is not the config's, lr is at the saved fraction of the config's peak;
    - a cycled momentum is as far between the saved bounds as the unchanged one is between its own.
    """
    if key == "lr" and isinstance(saved, Tensor) and isinstance(found, Tensor):
        return torch.equal(found, torch.full_like(found, float(expected)))
    bounds = ("peak_lr",) if key == "lr" else ("base_momentum", "max_momentum")
    numbers = [_get(of, bound) for of in (group, saved_group) for bound in bounds]
    if not all(isinstance(it, (int, float)) for it in (found, expected, saved, *numbers)):
        return False
    if key == "lr":
        return numbers[1] > 0 and math.isclose(found, numbers[0] * saved / numbers[1])
    low, high, saved_low, saved_high = numbers
    fraction = (expected - low) / (high - low)
    return math.isclose(found, saved_low + fraction * (saved_high - saved_low), rel_tol=1e-6)


def _is_empty(value: Any) -> bool:
    return isinstance(value, dict) and not value


def _get(container: Any, key: Any) -> Any:
    try:
        return container.get(key, _ABSENT) if isinstance(container, dict) else container[key]
    except (TypeError, KeyError, IndexError):
        return _ABSENT


def _same_value(found: Any, saved: Any) -> bool:
    if found is _ABSENT or saved is _ABSENT:
        return False
    if isinstance(found, (bool, str)) or isinstance(saved, (bool, str)):
        return type(found) is type(saved) and found == saved
    try:
        if isinstance(found, Tensor) and isinstance(saved, Tensor) and found.numel() > 1:
            saved = saved.to(found.dtype)  # torch's classes cast on load
            return equal(found.nan_to_num(7.5), saved.nan_to_num(7.5))
        return float(found) == float(saved)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return found is saved or (type(found) is type(saved) and equal(found, saved))


def _is_legal(expected: Any, saved: Any) -> bool:
    """Whether a value could have been saved in place of the expected one: of its kind, finite, and not negative."""
    if isinstance(expected, bool) or isinstance(saved, bool):
        return isinstance(expected, bool) and isinstance(saved, bool)
    if isinstance(expected, Tensor) and isinstance(saved, Tensor) and expected.ndim:
        return expected.shape == saved.shape and saved.is_floating_point() == expected.is_floating_point()
    if isinstance(expected, (int, float, Tensor)) and isinstance(saved, (int, float, Tensor)):
        return math.isfinite(saved) and (saved >= 0 or expected < 0)
    return isinstance(expected, str) and isinstance(saved, str)


@contextmanager
def _captured_output() -> Iterator[None]:
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level = logger.level
    logger.setLevel(logging.ERROR)
    logging.disable(logging.WARNING)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a network of 30 numbers is slower on more
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's of quantized tensors
            yield
    finally:
        logger.setLevel(level)
        logging.disable(logging.NOTSET)
        torch.set_num_threads(threads)


@contextmanager
def checkpoint_fuzzer() -> Iterator[CheckpointFuzzer]:
    """A fuzzer with a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        yield CheckpointFuzzer(Path(folder))
