"""One case of the fuzzing: a config and a module drawn from a seed, and everything that a user does with them."""

from __future__ import annotations

import copy
import io
import logging
import pickle
import signal
import threading
import traceback
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from random import Random
from typing import Any

import torch

from lightning_optim import (
    ConfigError,
    OptimizerFactory,
    OptimizerMonitor,
    OptimizerOverride,
    RNGState,
    SchedulerFactory,
    SophiaHessian,
    StagedUnfreeze,
    configure_optimizers,
)
from tests.support.fuzzed_configs import ConfigFuzzer
from tests.support.fuzzed_models import LightningTree, draw_model, draw_params, fill_gradients
from tests.support.junk_values import draw_junk

TIME_LIMIT_S = 2.0
MAX_MESSAGE = 4000
UNWANTED_WARNINGS = (RuntimeWarning, DeprecationWarning, FutureWarning, SyntaxWarning, ResourceWarning)
RATES = (0.0, 0.0, 0.02, 0.1, 0.3)
"""Shares of junk values: with many, nothing is built."""


class TimeLimitError(BaseException):
    """A case takes too long; no `except Exception` stops it."""


@dataclass
class Outcome:
    """What became of one case."""

    seed: int
    kind: str
    verdict: str
    """`built`, `refused`, or what is wrong."""
    detail: str = ""

    @property
    def is_wrong(self) -> bool:
        """Whether it is neither built nor refused by a `ConfigError`."""
        return self.verdict not in ("built", "refused")


def run_cases(seed: int, count: int) -> tuple[Counter[tuple[str, str]], list[Outcome]]:
    """How often each kind was built and refused, and all cases that went wrong."""
    outcomes = [run_case(seed * 1_000_000 + index) for index in range(count)]
    return Counter((o.kind, o.verdict) for o in outcomes), [o for o in outcomes if o.is_wrong]


def run_case(seed: int, *, reraise: bool = False) -> Outcome:
    """Draw the case of a seed, and use what it builds; the same seed is the same case.

    Args:
        seed: of the case.
        reraise: whether an error other than `ConfigError` is raised again.
    """
    rng = Random(seed)
    kind = rng.choices(list(KINDS), [weight for weight, _ in KINDS.values()])[0]
    torch.manual_seed(seed)
    with warnings.catch_warnings(record=True) as caught, _captured_output():
        warnings.simplefilter("always")
        try:
            with time_limit(TIME_LIMIT_S):
                case = KINDS[kind][1](rng, ConfigFuzzer(rng, rng.choice(RATES)))
                case()
            outcome = Outcome(seed, kind, "built")
        except ConfigError as error:
            outcome = Outcome(seed, kind, _judge_message(error), str(error))
        except (Exception, TimeLimitError) as error:
            if reraise:
                raise
            outcome = Outcome(seed, kind, f"raw {type(error).__name__}", _format(error))
    unwanted = [str(w.message) for w in caught if issubclass(w.category, UNWANTED_WARNINGS)]
    if unwanted and not outcome.is_wrong:
        return Outcome(seed, kind, "warning", unwanted[0])
    return outcome


def _judge_message(error: ConfigError) -> str:
    message = str(error)
    if not message or len(message) > MAX_MESSAGE:
        return f"message of {len(message)} characters"
    if bad := [c for c in message if unicodedata.category(c) in ("Cc", "Cs", "Cf") and c != "\n"]:
        return f"message with {bad[0]!r}"
    return "refused"


def _format(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "lightning_optim" in f.filename]
    where = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in (ours[-3:] or frames[-2:])]
    try:
        message = str(error)[:300]
    except Exception:
        message = "(no message)"
    return f"{' > '.join(where)}: {message}"


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeLimitError` in the block after this time of the processor; without a limit outside the main thread."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: Any) -> None:
        raise TimeLimitError(f"more than {seconds:g} s")

    # Of the process's own time: other processes may have the cores for seconds. And ten times that on the clock.
    timers = ((signal.ITIMER_PROF, signal.SIGPROF, seconds), (signal.ITIMER_REAL, signal.SIGALRM, 10 * seconds))
    previous = [(number, signal.signal(number, stop)) for _, number, _ in timers]
    for timer, _, limit in timers:
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for timer, _, _ in timers:
            signal.setitimer(timer, 0)
        for number, handler in previous:
            signal.signal(number, handler)


class _StrictHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Raises what it cannot write."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        raise


@contextmanager
def _captured_output() -> Iterator[None]:
    """Standard output of UTF-8, which refuses what a terminal's refuses."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    handler = _StrictHandler(stream)
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    handlers, propagate = logger.handlers[:], logger.propagate
    logger.handlers[:], logger.propagate = [handler], False
    try:
        with redirect_stdout(stream):
            yield
            stream.flush()
    finally:
        logger.handlers[:], logger.propagate = handlers, propagate


# The kinds of cases. Each draws everything first: drawing is no part of what is tested, and must not fail.


def _optimizer_case(rng: Random, fuzzer: ConfigFuzzer) -> Callable[[], None]:
    config, schedule, model = fuzzer.optimizer(), fuzzer.schedule(), draw_model(rng)
    params, length = draw_params(rng, model), _draw_length(rng)

    def case() -> None:
        factory = OptimizerFactory(**config)
        _check_object(factory)
        if params is model:
            table = factory.explain(model)
            table._repr_html_().encode()
            str(table).encode()
        optimizer = factory(params)
        scheduler_factory = SchedulerFactory(**schedule) if rng.random() < 0.7 else None
        scheduler = scheduler_factory and scheduler_factory(optimizer, length, steps_per_epoch=3)
        name = scheduler_factory.name if scheduler_factory else None
        _train(rng, model, optimizer, scheduler, name, sparse=params is model)

    return case


def _draw_length(rng: Random) -> Any:
    return draw_junk(rng) if rng.random() < 0.05 else rng.choice((None, 5, 100))


def _schedule_case(rng: Random, fuzzer: ConfigFuzzer) -> Callable[[], None]:
    config, model, length = fuzzer.schedule(), draw_model(rng), _draw_length(rng)

    def case() -> None:
        factory = SchedulerFactory(**config)
        _check_object(factory, pickles="lr_lambda" not in config)  # a function pickles or not, as its author wrote it
        trainable = [p for p in model.parameters() if p.requires_grad] or [torch.zeros(1)]
        optimizer = torch.optim.SGD(trainable, lr=0.1)
        factory.config(optimizer, length, steps_per_epoch=2)
        scheduler = factory(optimizer, length, steps_per_epoch=2)
        _train(rng, model, optimizer, scheduler, factory.name, sparse=True)

    return case


def _stages_case(rng: Random, fuzzer: ConfigFuzzer) -> Callable[[], None]:
    config, model, optimizer = fuzzer.stages(), draw_model(rng), ConfigFuzzer(rng, 0.0).optimizer()

    def case() -> None:
        callback = StagedUnfreeze(**config)
        _check_object(callback, pickles=False)
        table = callback.explain(model, None if rng.random() < 0.3 else OptimizerFactory(**optimizer))
        table._repr_html_().encode()
        str(table).encode()

    return case


def _configure_case(rng: Random, fuzzer: ConfigFuzzer) -> Callable[[], None]:
    optimizer, schedule, model = fuzzer.optimizer(), fuzzer.schedule(), draw_model(rng, LightningTree)
    if rng.random() < 0.6:  # no trainer gives the length of the run
        schedule = {"name": "warmup_cosine", "total_steps": 10}
    is_junk = rng.random() < fuzzer.rate
    junk = {"optimizer": draw_junk(rng), "scheduler": draw_junk(rng)}
    as_class_path = {
        "class_path": "lightning_optim.OptimizerFactory",
        "init_args": optimizer if rng.random() < 0.8 else draw_junk(rng),
        **({"dict_kwargs": draw_junk(rng)} if rng.random() < 0.2 else {}),
    }

    def case() -> None:
        given = [as_class_path if rng.random() < 0.2 else OptimizerFactory(**optimizer), SchedulerFactory(**schedule)]
        if is_junk:
            given[rng.randrange(2)] = junk["optimizer"]
        override = OptimizerOverride(*given)
        _check_object(override, pickles=False)
        built = configure_optimizers(model, override.optimizer, override.scheduler)
        scheduler = built["lr_scheduler"]["scheduler"] if "lr_scheduler" in built else None
        _train(rng, model, built["optimizer"], scheduler, given[1].name, sparse=True)

    return case


def _callback_case(cls: type, draw: str) -> Callable[[Random, ConfigFuzzer], Callable[[], None]]:
    def draw_case(rng: Random, fuzzer: ConfigFuzzer) -> Callable[[], None]:
        config = getattr(fuzzer, draw)()
        return lambda: _check_object(cls(**config), pickles=False)

    return draw_case


KINDS: dict[str, tuple[float, Callable[[Random, ConfigFuzzer], Callable[[], None]]]] = {
    "optimizer": (10, _optimizer_case),
    "schedule": (5, _schedule_case),
    "stages": (5, _stages_case),
    "configure_optimizers": (3, _configure_case),
    "monitor": (1, _callback_case(OptimizerMonitor, "monitor")),
    "hessian": (0.5, _callback_case(SophiaHessian, "hessian")),
    "rng": (0.3, _callback_case(RNGState, "no_arguments")),
}
"""By name: how often it is drawn, and what draws it."""


def _check_object(configured: Any, *, pickles: bool = True) -> None:
    """Show and copy it; a factory survives a pickle unchanged."""
    repr(configured).encode()
    if hasattr(configured, "_repr_html_"):
        configured._repr_html_().encode()
    assert type(copy.deepcopy(configured)) is type(configured)
    if pickles:
        restored = pickle.loads(pickle.dumps(configured))
        assert repr(restored) == repr(configured)
        assert restored == configured
        assert hash(restored) == hash(configured)


def _train(
    rng: Random, model: torch.nn.Module, optimizer: Any, scheduler: Any, schedule: str | None, *, sparse: bool
) -> None:
    """Two steps with gradients, a copy of the optimizer, and a round trip of its state."""

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        fill_gradients(rng, model, sparse=sparse)
        return torch.tensor(1.0)

    for _ in range(2):
        optimizer.step(closure)
        # torch's classes of a fixed length refuse a step after it, whatever the config.
        if getattr(scheduler, "total_steps", None) == getattr(scheduler, "last_epoch", 0) + 1:
            break
        if schedule == "reduce_on_plateau":
            scheduler.step(1.0)
        elif scheduler is not None:
            scheduler.step()
    repr(optimizer).encode()
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
