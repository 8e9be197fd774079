"""Configs of every public class, right and wrong, drawn from a seeded generator."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lightning_optim import ConfigError, list_optimizers, optimizer_info
from lightning_optim.core.config_values import to_plain
from lightning_optim.core.hyperparameters import (
    Choice,
    Fields,
    Flag,
    Hyperparameter,
    IncreasingIntegers,
    Number,
    Numbers,
    Parts,
    Text,
)
from lightning_optim.groups.kinds import KINDS
from lightning_optim.schedule.catalog import SCHEDULES
from tests.support.junk_values import draw_junk, draw_key

PATTERNS = (
    *(
        "*",
        "backbone",
        "head",
        "head.weight",
        "*.bias",
        "*weight*",
        "layers.0",
        "layers.*",
        "w",
        "weight",
        "bias",
        "[x]",
    ),
    *("re:.*", "re:.*bias", "re:(head|layers).*", "re:(?P<a>w)", "re:\\w+", "re:(?i)HEAD.*", "re:[^.]*"),
    *(
        "re:a{e}",
        "re:{i}",
        "re:\\{",
        "re:(",
        "re:[",
        "re:*",
        "re:(?P<a>",
        "re:\\",
        "re:a{99999999999}",
        "re:(?<=a*)b",
        "re:[[a]",
        "re:[a--b]",
    ),
    *(
        "re:(?R)",
        "re:\\p{L}+",
        "re:(?|a|b)",
        "re:(a)\\2",
        "re:" + "(" * 90 + ")" * 90,
        "re:" + "a?" * 90,
        "re:\\N{BULLET}",
    ),
    *("re:((?:a|b)*)*c", "re:(?:(?:.{0,9}){0,9}){0,9}", "re:(?#", "re:(?s:.)*", "re:(?a)(?u)a", "re:\\x", "re:\ud800"),
    *(
        "[!a]*",
        "[",
        "]",
        "[]",
        "[z-a]",
        "[[]*",
        "[\\",
        "**",
        "???",
        "?*?",
        "head..weight",
        ".",
        "..",
        "*.*.*.*.*.*",
        "{i}",
    ),
    *(
        "*" * 150,
        "a" * 201,
        "*a" * 70,
        "été",
        "\x1b[31m",
        "층.*",
        "a\nb",
        "head.",
        ".head",
        " head ",
        "HEAD",
        "{j}",
        "{}",
    ),
)
LAYER_PATTERNS = (
    "layers.{i}",
    "*.{i}",
    "auto",
    "*.{i}",
    "{i}",
    "layers.{i}.{j}",
    "{j}.{i}",
    "re:{i}",
    "[{i}]",
    "{i}{i}",
    "a{i}[",
)
RULE_NAMES = ("a", "b", "no_decay", "head", "x-1", "default", "all", "a.b", "1", "", "été", "a b", "\x1b[1m", "\ud800")
STAGE_KEYS = ("lr_scale", "warmup_steps", "allow_unused", "allow_empty")
UNKNOWN_KEYS = (
    "self",
    "foo",
    "lr_mult",
    "params",
    "optimizer",
    "groups.a.lr",
    "groups.",
    "groups.a",
    "_target_",
    "cls",
)


class ConfigFuzzer:
    """Draws configs; `rate` is the share of values that are junk."""

    def __init__(self, rng: Random, rate: float) -> None:
        self.rng = rng
        self.rate = rate

    def optimizer(self) -> dict[str, Any]:
        """Arguments of `OptimizerFactory`."""
        rng = self.rng
        name = rng.choice(list_optimizers())
        config: dict[str, Any] = {"name": self._or_junk(name)}
        config |= self._hyperparameters(optimizer_info(name).hyperparameters, rng.choice((0, 1, 3)))
        if rng.random() < 0.6:
            config["groups"] = self._or_junk(self._rules(name))
        if rng.random() < 0.1:
            config["implementation"] = self._or_junk(rng.choice(("auto", "torch", "own")))
        if rng.random() < self.rate:
            config[rng.choice(UNKNOWN_KEYS)] = draw_junk(rng)
        return self._disguise(config)

    def schedule(self) -> dict[str, Any]:
        """Arguments of `SchedulerFactory`."""
        rng = self.rng
        config = self._schedule(rng.choice(list(SCHEDULES)), depth=2)
        if rng.random() < 0.1:
            config["interval"] = self._or_junk(rng.choice(("step", "epoch")))
        if rng.random() < 0.1:
            config["on_resume"] = self._or_junk(rng.choice(("continue", "extend", "restart")))
        return self._disguise(config)

    def stages(self) -> dict[str, Any]:
        """Arguments of `StagedUnfreeze`."""
        rng = self.rng
        names = rng.sample(RULE_NAMES[:5], rng.randrange(1, 4))
        stages: dict[Any, Any] = {name: self._or_junk(self._stage(index)) for index, name in enumerate(names)}
        if rng.random() < 0.8:
            stages["rest"] = {"params": "*", "allow_empty": True, "allow_unused": True}
        if rng.random() < self.rate:
            stages[draw_key(rng)] = self._stage(1)
        config: dict[str, Any] = {"stages": self._or_junk(stages)}
        for key in ("frozen_norm", "frozen_dropout"):
            if rng.random() < 0.1:
                config[key] = self._or_junk(rng.choice(("train", "eval")))
        return self._disguise(self._with_unknown(config))

    def monitor(self) -> dict[str, Any]:
        """Arguments of `OptimizerMonitor`."""
        flags = ("overlay", "update_norm", "cosine", "per_parameter", "histograms", "layout", "hparams")
        steps = Number(default=50, low=1, integer=True, optional=True)
        specs = {"every_n_steps": steps, "depth_every": steps, **dict.fromkeys(flags, Flag(default=True))}
        return self._with_unknown(self._hyperparameters({**specs, "to_callback_metrics": Flag(default=False)}, 3))

    def hessian(self) -> dict[str, Any]:
        """Arguments of `SophiaHessian`."""
        return self._with_unknown(self._hyperparameters({"every_n_steps": Number(default=1, low=1, integer=True)}, 1))

    def no_arguments(self) -> dict[str, Any]:
        """Arguments of `RNGState`: it takes none."""
        return self._with_unknown({})

    def _with_unknown(self, config: dict[str, Any]) -> dict[str, Any]:
        if self.rng.random() < self.rate:
            config[self.rng.choice(("every_n_step", *UNKNOWN_KEYS))] = draw_junk(self.rng)
        return config

    def _or_junk(self, value: Any) -> Any:
        return draw_junk(self.rng) if self.rng.random() < self.rate else value

    def _hyperparameters(self, specs: Mapping[str, Hyperparameter], optional: int) -> dict[str, Any]:
        """Values of all required ones, and of up to as many of the others."""
        required = [key for key, spec in specs.items() if spec.required]
        others = [key for key in specs if key not in required]
        keys = required + self.rng.sample(others, min(optional, len(others)))
        return {key: self._value(specs[key]) for key in keys if self.rng.random() >= self.rate / 4}

    def _value(self, spec: Hyperparameter) -> Any:
        """A value that is right, on the border of what is right, or junk."""
        rng = self.rng
        if rng.random() < self.rate:
            return draw_junk(rng)
        if spec.optional and rng.random() < 0.3:
            return None
        if isinstance(spec, Parts) and rng.random() < 0.3:
            return [rng.randrange(1, 6) for _ in range(rng.randrange(1, 4))]
        if isinstance(spec, Number):
            return self._number(spec)
        if isinstance(spec, Flag):
            return rng.random() < 0.5
        if isinstance(spec, Choice):
            return rng.choice(spec.options)
        if isinstance(spec, Numbers):
            return [self._value(item) for item in spec.items]
        if isinstance(spec, IncreasingIntegers):
            return sorted(rng.sample(range(1, 20), rng.randrange(1, 4)))
        if isinstance(spec, Fields):
            return {key: self._value(item) for key, item in spec.items.items() if rng.random() < 0.7}
        if isinstance(spec, Text):
            return "val/loss"
        return spec.default if not spec.required else draw_junk(rng)

    def _number(self, spec: Number) -> Any:
        rng = self.rng
        low = spec.low if spec.low is not None else -sys.float_info.max
        high = spec.high if spec.high is not None else sys.float_info.max
        if rng.random() < 0.6 and not spec.required and spec.default is not None:
            return spec.default
        if rng.random() < 0.3:
            return rng.choice((low, high, math.nextafter(low, high), math.nextafter(high, low), -0.0, 1e-45, 3.5e38))
        value = rng.uniform(max(low, 0), min(high, 4))
        return max(round(value), math.ceil(low)) if spec.integer else value

    def _rules(self, name: str) -> dict[Any, Any]:
        rng = self.rng
        rules: dict[Any, Any] = {}
        for _ in range(rng.randrange(1, 4)):
            key = rng.choice(RULE_NAMES[:5]) if rng.random() >= self.rate else draw_key(rng)
            rules[key] = self._or_junk(self._rule(name))
        return rules

    def _rule(self, name: str) -> dict[Any, Any]:
        rng = self.rng
        rule = self._selectors()
        rule["allow_empty"] = self._or_junk(rng.random() < 0.9)
        for effect in rng.sample(("hyperparameter", "lr_scale", "weight_decay_scale", "layer_decay", "frozen"), 2):
            if effect == "hyperparameter":
                rule |= self._hyperparameters(optimizer_info(name).hyperparameters, 1)
            elif effect == "frozen":
                rule[effect] = self._or_junk(rng.random() < 0.2)
            elif effect != "layer_decay" or "layers" in rule:
                rule[effect] = self._value(Number(default=0.5, low=0, high=2))
        if rng.random() < 0.15:
            other = rng.choice(list_optimizers())
            rule["optimizer"] = self._or_junk(other)
            rule |= self._hyperparameters(optimizer_info(other).hyperparameters, 1)
        if rng.random() < 0.15:
            block = self._schedule(rng.choice(list(SCHEDULES)), depth=1)
            rule["schedule"] = self._or_junk(rng.choice((block, {"warmup_steps": 2}, "constant")))
        for option, value in (("priority", rng.choice((-1, 0, 5))), ("name", "x"), ("stem", self._patterns(PATTERNS))):
            if rng.random() < 0.05 and (option != "stem" or "layer_decay" in rule):
                rule[option] = self._or_junk(value)
        if rng.random() < self.rate:
            rule[draw_key(rng)] = draw_junk(rng)
        return rule

    def _selectors(self) -> dict[Any, Any]:
        rng = self.rng
        kind = rng.choice(("params", "params", "params", "classes", "kinds", "layers"))
        if kind == "params":
            return {kind: self._or_junk(self._patterns(PATTERNS))}
        if kind == "classes":
            return {kind: self._or_junk(rng.choice(("Linear", ["LayerNorm", "Embedding"], "torch.nn.Linear", "Foo")))}
        if kind == "kinds":
            return {kind: self._or_junk(rng.sample(list(KINDS), 2))}
        return {kind: self._or_junk(self._patterns(LAYER_PATTERNS)), "params": "*"}

    def _patterns(self, patterns: Sequence[str]) -> Any:
        rng = self.rng
        usual = patterns[:12] if patterns is PATTERNS else patterns[:2]
        drawn = [rng.choice(patterns if rng.random() < 0.1 + self.rate else usual) for _ in range(rng.randrange(1, 3))]
        return drawn[0] if len(drawn) == 1 and rng.random() < 0.6 else drawn

    def _schedule(self, name: str, depth: int) -> dict[str, Any]:
        rng = self.rng
        info = SCHEDULES[name]
        config: dict[str, Any] = {"name": self._or_junk(name), **self._hyperparameters(info.hyperparameters, 2)}
        if info.takes_blocks and depth:
            count = rng.randrange(1, 4)
            blocks = [self._or_junk(self._schedule(rng.choice(list(SCHEDULES)[:8]), depth - 1)) for _ in range(count)]
            config["schedulers"] = self._or_junk(blocks)
            if name == "sequential" and rng.random() < 0.9:
                config["milestones"] = self._or_junk([2 * index + 2 for index in range(count - 1)] or [1])
        if info.takes_function and rng.random() < 0.7:
            function = self._or_junk(_half)
            # A function that fails in the middle of a run is its author's.
            config["lr_lambda"] = _half if callable(function) else function
        if (info.needs_warmup or rng.random() < 0.3) and depth == 2:
            key = rng.choice(("warmup_steps", "warmup_fraction", "warmup_epochs"))
            config[key] = self._or_junk(rng.choice((0, 1, 2) if key == "warmup_steps" else (0, 0.5, 0.1, None)))
        if rng.random() < 0.2:
            config["total_steps"] = self._or_junk(rng.choice((10, 100, 10**9, 2**62)))
        if rng.random() < self.rate:
            config[rng.choice(("max_lr", "epochs", *UNKNOWN_KEYS))] = draw_junk(rng)
        return config

    def _stage(self, index: int) -> dict[Any, Any]:
        rng = self.rng
        stage = self._selectors()
        stage["allow_empty"] = True
        if index:
            stage["at"] = self._or_junk(self._trigger(2))
        if rng.random() < 0.15:
            stage |= {"layers": "layers.{i}", "each": self._or_junk(rng.choice(({"epochs": 1}, {"steps": 2})))}
        key = rng.choice(STAGE_KEYS)
        number = key in ("lr_scale", "warmup_steps")
        stage[key] = self._value(Number(default=1, low=0, integer=True) if number else Flag(default=True))
        stage["allow_empty"] = True
        if rng.random() < 0.3:
            name = rng.choice(list_optimizers())
            if rng.random() < 0.5:
                stage["optimizer"] = self._or_junk(name)
            stage |= self._hyperparameters(optimizer_info(name).hyperparameters, 1)
        if rng.random() < self.rate:
            stage[draw_key(rng)] = draw_junk(rng)
        return stage

    def _trigger(self, depth: int) -> Any:
        rng = self.rng
        kind = rng.choice(("epoch", "step", "fraction", "after", "plateau", *(("any",) if depth else ())))
        position = self._value(Number(default=1, low=0, integer=True))
        if kind == "any":
            return {kind: [self._or_junk(self._trigger(depth - 1)) for _ in range(rng.randrange(3))]}
        if kind == "after":
            return {kind: self._or_junk({rng.choice(("epochs", "steps", "fraction")): position})}
        if kind == "plateau":
            return {kind: self._or_junk({"monitor": self._or_junk("loss"), "patience": position})}
        return {kind: position}

    def _disguise(self, config: dict[str, Any]) -> dict[str, Any]:
        """Some values as OmegaConf would pass them, where it can hold them."""
        if self.rng.random() < 0.8:
            return config
        disguised = {}
        for key, value in config.items():
            try:
                disguised[key] = OmegaConf.create(to_plain(value)) if isinstance(value, (dict, list)) else value
            except (ConfigError, OmegaConfBaseException):  # OmegaConf cannot hold it
                disguised[key] = value
        return disguised


def _half(step: int) -> float:
    return 0.5**step
