"""When a stage thaws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core.errors import ConfigError, choices
from ..core.hyperparameters import Choice, Number
from .plateau import Plateau

_COUNT = Number(default=1, low=0, integer=True)
_DISTANCE = Number(default=1, low=1, integer=True)
_FRACTION = Number(default=0.5, low=0, high=1, open_high=True)
_PLATEAU = {
    "patience": Number(default=3, low=1, integer=True),
    "mode": Choice(default="min", options=("min", "max")),
    "min_delta": Number(default=0.0, low=0),
}


def _alone(function: Callable[..., Any]) -> bool:
    return bool(function())


@dataclass(slots=True, kw_only=True)
class Clock:
    """Where a run stands at the start of a batch, as one stage sees it."""

    epoch: int = 0
    """From 0."""
    step: int = 0
    """Optimizer steps done."""
    total_steps: float | None = None
    """Those of the whole run, for whoever asks for a fraction of it."""
    since: tuple[int, int] | None = (0, 0)
    """Epoch and step at which the stage before it in the plan thawed; None while it has not."""
    ask: Callable[[Callable[..., Any]], bool] = field(default=_alone, repr=False)
    """Calls a function of the user's with the trainer and the module; the answer is the same on every rank."""


class Trigger:
    """Due from some moment on: reached late, it still fires."""

    from_start = False
    """Whether the stage is trained from the first step."""
    needs_length = False
    """Whether it asks how long the run is."""
    counts_epochs = False
    """Whether it asks which epoch it is."""

    length_key = ""
    """Where in the config it does."""
    relative = False
    """Whether it cannot be due before the stage above it has thawed."""

    def due(self, clock: Clock) -> bool:
        """Whether it has been reached."""
        raise NotImplementedError

    def reachable(self, epochs: float, steps: float) -> bool:
        """Whether a run of so many epochs and optimizer steps at most can reach it, as far as that can be known."""
        return True

    def is_predictable(self, previous: bool) -> bool:
        """Whether it can be known before the run when it is due.

        Args:
            previous: whether it can be of the stage before.
        """
        return True

    @property
    def plateaus(self) -> tuple[Plateau, ...]:
        """The metrics it watches."""
        return ()


@dataclass(frozen=True)
class FromStart(Trigger):
    """No trigger."""

    from_start = True

    def due(self, clock: Clock) -> bool:
        """Always."""
        return True

    def __str__(self) -> str:
        return "from the start"


@dataclass(frozen=True)
class AtEpoch(Trigger):
    """From an epoch on, counted from 0."""

    epoch: int
    counts_epochs = True

    def due(self, clock: Clock) -> bool:
        """Whether the epoch has begun."""
        return clock.epoch >= self.epoch

    def reachable(self, epochs: float, steps: float) -> bool:
        """Whether that epoch is one of the run's."""
        return self.epoch < epochs

    def __str__(self) -> str:
        return f"epoch {self.epoch}"


@dataclass(frozen=True)
class AtStep(Trigger):
    """Once so many optimizer steps are done."""

    step: int

    def due(self, clock: Clock) -> bool:
        """Whether they are done."""
        return clock.step >= self.step

    def reachable(self, epochs: float, steps: float) -> bool:
        """Whether there is a step after it."""
        return self.step < steps

    def __str__(self) -> str:
        return f"step {self.step}"


@dataclass(frozen=True)
class AtFraction(Trigger):
    """Once such a part of the run's optimizer steps is done."""

    fraction: float
    key: str = "at.fraction"
    """Where it stands in the config."""
    needs_length = True

    @property
    def length_key(self) -> str:  # type: ignore[override]
        """Here."""
        return self.key

    def due(self, clock: Clock) -> bool:
        """Whether it is done."""
        assert clock.total_steps is not None
        return clock.step >= self.fraction * clock.total_steps - 1e-6  # 0.07 of 100 is 7.000000000000001

    def __str__(self) -> str:
        return f"{self.fraction:.4g} of the run"


@dataclass(frozen=True)
class After(Trigger):
    """So many epochs, or optimizer steps, after the stage before it thawed."""

    count: int
    unit: str
    """`epochs` or `steps`."""
    previous: str
    """What that stage is called."""
    relative = True

    @property
    def counts_epochs(self) -> bool:  # type: ignore[override]
        """Whether it counts those."""
        return self.unit == "epochs"

    def due(self, clock: Clock) -> bool:
        """Whether they have gone by."""
        if clock.since is None:
            return False
        epoch, step = clock.since
        return clock.epoch >= epoch + self.count if self.unit == "epochs" else clock.step >= step + self.count

    def is_predictable(self, previous: bool) -> bool:
        """Whether the stage it counts from can be foreseen."""
        return previous

    def __str__(self) -> str:
        unit = self.unit if self.count > 1 else self.unit.removesuffix("s")
        return f"{self.count} {unit} after {self.previous}"


@dataclass(frozen=True)
class OnPlateau(Trigger):
    """Once a metric gets no better; watched since the stage before it thawed."""

    plateau: Plateau
    relative = True

    def due(self, clock: Clock) -> bool:
        """Whether it has stopped getting better."""
        return self.plateau.reached

    def is_predictable(self, previous: bool) -> bool:
        """Never: a metric is not known before."""
        return False

    @property
    def plateaus(self) -> tuple[Plateau, ...]:
        """The one."""
        return (self.plateau,)

    def __str__(self) -> str:
        return str(self.plateau)


@dataclass(frozen=True)
class Called(Trigger):
    """Once a function of the trainer and the module says so."""

    function: Callable[..., Any]

    def due(self, clock: Clock) -> bool:
        """What it says."""
        return clock.ask(self.function)

    def is_predictable(self, previous: bool) -> bool:
        """Never: it is asked when the run is there."""
        return False

    def __str__(self) -> str:
        return f"{getattr(self.function, '__name__', type(self.function).__name__)}()"


@dataclass(frozen=True)
class AnyOf(Trigger):
    """Once any of several is reached."""

    triggers: tuple[Trigger, ...]

    @property
    def from_start(self) -> bool:  # type: ignore[override]
        """Whether one of them is."""
        return any(trigger.from_start for trigger in self.triggers)

    @property
    def relative(self) -> bool:  # type: ignore[override]
        """Whether all of them are."""
        return all(trigger.relative for trigger in self.triggers)

    @property
    def needs_length(self) -> bool:  # type: ignore[override]
        """Whether one of them asks."""
        return any(trigger.needs_length for trigger in self.triggers)

    @property
    def length_key(self) -> str:  # type: ignore[override]
        """Where the first that does stands."""
        return next((trigger.length_key for trigger in self.triggers if trigger.needs_length), "")

    @property
    def counts_epochs(self) -> bool:  # type: ignore[override]
        """Whether one of them asks."""
        return any(trigger.counts_epochs for trigger in self.triggers)

    def due(self, clock: Clock) -> bool:
        """Whether one of them is."""
        return any(trigger.due(clock) for trigger in self.triggers)

    def reachable(self, epochs: float, steps: float) -> bool:
        """Whether one of them is."""
        return any(trigger.reachable(epochs, steps) for trigger in self.triggers)

    def is_predictable(self, previous: bool) -> bool:
        """Whether all of them can be: the first that is reached decides."""
        return self.from_start or all(trigger.is_predictable(previous) for trigger in self.triggers)

    @property
    def plateaus(self) -> tuple[Plateau, ...]:
        """Those of all of them."""
        return tuple(plateau for trigger in self.triggers for plateau in trigger.plateaus)

    def __str__(self) -> str:
        return " or ".join(map(str, self.triggers))


KINDS = ("epoch", "step", "fraction", "plateau", "after", "any")
_UNITS = ("epochs", "steps")
EACH = (*_UNITS, "plateau")


def parse_trigger(given: Any, key: str) -> Trigger:
    """The trigger in a stage's `at`.

    Args:
        given: as the config has it: None, one of `KINDS` with its value, or a callable.
        key: where it stands in the config.

    Raises:
        ConfigError: it is no trigger.
    """
    if given is None:
        return FromStart()
    if callable(given):
        return Called(given)
    name, value = _only(given, key, KINDS, f"A trigger is one of {', '.join(KINDS)}, for example at: {{epoch: 1}}; ")
    if name == "any":
        return _parse_any(value, f"{key}.any")
    if name == "plateau":
        return OnPlateau(_parse_plateau(value, f"{key}.plateau"))
    if name == "after":
        return _parse_after(value, f"{key}.after")
    if name == "fraction":
        fraction = _FRACTION.check(value, f"{key}.fraction")
        return AtFraction(fraction, f"{key}.fraction") if fraction else FromStart()
    count = _COUNT.check(value, f"{key}.{name}")
    if not count:
        return FromStart()
    return AtEpoch(count) if name == "epoch" else AtStep(count)


def parse_each(given: Any, key: str) -> Each:
    """The triggers in a stage's `each`.

    Raises:
        ConfigError: it is none.
    """
    each = Each(given, key)
    each("the layer before")
    return each


@dataclass(frozen=True)
class Each:
    """The triggers of a stage that thaws layer by layer: a function from the name of the layer before.

    Args:
        given: `each`, as the config has it.
        key: where it stands.
    """

    given: Any
    key: str

    def __call__(self, previous: str) -> Trigger:
        """The trigger of one layer, from the name of the one before."""
        unit, value = _only(self.given, self.key, EACH, _example(EACH, "each"))
        if unit == "plateau":
            return OnPlateau(_parse_plateau(value, f"{self.key}.plateau"))
        return After(_DISTANCE.check(value, f"{self.key}.{unit}"), unit, previous)


def _parse_after(given: Any, key: str) -> Trigger:
    unit, count = _only(given, key, _UNITS, _example(_UNITS, "after"))
    return After(_DISTANCE.check(count, f"{key}.{unit}"), unit, "the stage above")


def _example(known: tuple[str, ...], word: str) -> str:
    return f"It is one of {', '.join(known)}, for example {word}: {{epochs: 1}}; "


def _only(given: Any, key: str, known: tuple[str, ...], example: str) -> tuple[str, Any]:
    # `at.epoch=null +at.step=500` changes the trigger of a preset.
    set_ones = {str(k): v for k, v in given.items() if v is not None} if isinstance(given, Mapping) else {}
    for name in set_ones:
        if name not in known:
            raise ConfigError(f"{key}.{name}: there is no trigger {name!r}.{choices(name, known)}")
    if len(set_ones) != 1:
        several = ". Where any of several is to do: at: {any: [{epoch: 1}, {step: 500}]}"
        advised = several if len(set_ones) > 1 and known == KINDS else ""
        raise ConfigError(f"{key}: got {given!r}. {example}without one, leave {key} out{advised}")
    ((name, value),) = set_ones.items()
    return name, value


def _parse_any(given: Any, key: str) -> Trigger:
    if not isinstance(given, (list, tuple)) or not given:
        raise ConfigError(f"{key}: got {given!r}. It takes a list of triggers, for example any: [{{epoch: 1}}]")
    for place, one in enumerate(given):
        if one is None:
            raise ConfigError(f"{key}[{place}]: got None. Type a trigger, for example {{epoch: 1}}")
    return AnyOf(tuple(parse_trigger(one, f"{key}[{place}]") for place, one in enumerate(given)))


def _parse_plateau(given: Any, key: str) -> Plateau:
    known = ("monitor", *_PLATEAU)
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"{key}: got {given!r}. It takes a mapping, for example plateau: {{monitor: val/loss, patience: 2}}"
        )
    for name in given:
        if name not in known:
            raise ConfigError(f"{key}.{name}: a plateau has no key {name!r}.{choices(str(name), known)}")
    monitor = given.get("monitor")
    if not isinstance(monitor, str) or not monitor:
        raise ConfigError(f"{key}.monitor: got {monitor!r}. Type the name of a logged metric, for example val/loss")
    options = {
        name: spec.check(given[name], f"{key}.{name}") for name, spec in _PLATEAU.items() if given.get(name) is not None
    }
    return Plateau(monitor=monitor, key=f"{key}.monitor", **options)
