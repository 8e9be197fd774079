"""A plain reference implementation of the rules, parameter by parameter, that uses nothing of the package."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from torch import nn

from tests.support.rule_strategies import CLASSES, DEFAULTS, EFFECTS, TOPS, Tree


class Refused(Exception):
    """The rules are invalid; the message is the kind of mistake."""


def as_list(value):
    return [value] if isinstance(value, str) else list(value)


class ReferencePlan:
    """The settings of each parameter of a case."""

    def __init__(self, case):
        self.model, self.top, self.rules = case.model, case.top, case.groups
        modules = dict(case.model.named_modules(remove_duplicate=False))
        self.occurrences = [
            (name, parameter, modules[name.rpartition(".")[0]])
            for name, parameter in case.model.named_parameters(remove_duplicate=False)
        ]
        self.check_rules()
        matched = {name: self.match(rule) for name, rule in self.rules.items()}
        self.settings = {}
        self.frozen = []
        for name, parameter in case.model.named_parameters():
            layers = {rule: matched[rule][parameter] for rule in sorted(self.rules) if parameter in matched[rule]}
            found = self.compose(layers)
            if found is None:
                self.frozen.append(name)
            else:
                labels = {rule: self.rules[rule].get("name", rule) for rule in layers}
                segments = [labels[r] if layer is None else f"{labels[r]}.{layer[0]}" for r, layer in layers.items()]
                self.settings[name] = (".".join(segments) or "default", *found)
        if not self.settings:
            raise Refused("all frozen")

    def check_rules(self):
        """Refuse what is wrong whatever the model."""
        short = {name: rule["name"] for name, rule in self.rules.items() if rule.get("name", name) != name}
        if len({*short.values()}) < len(short) or {*short.values()} & self.rules.keys():
            raise Refused("a name of two rules")
        algorithms = {self.top, *(rule["optimizer"] for rule in self.rules.values() if "optimizer" in rule)}
        for rule in self.rules.values():
            effects = set(rule) & set(EFFECTS)
            if not effects and "layers" not in rule:
                raise Refused("sets nothing")
            if "layer_decay" in effects and "layers" not in rule:
                raise Refused("no layers")
            candidates = {rule["optimizer"]} if "optimizer" in rule else algorithms
            for effect in effects:
                needed = {"weight_decay_scale": "weight_decay"}.get(effect, effect)
                if needed in ("weight_decay", "betas", "momentum") and not any(
                    needed in DEFAULTS[a] for a in candidates
                ):
                    raise Refused("no algorithm has it")

    def is_named(self, name, patterns):
        return any(
            re.fullmatch(pattern[3:], name) is not None
            if pattern.startswith("re:")
            else fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")
            for pattern in as_list(patterns)
        )

    def has_kind(self, name, parameter, owner, kind):
        leaf = name.rpartition(".")[2]
        norm = isinstance(owner, (nn.LayerNorm, nn.BatchNorm1d))
        embedding = isinstance(owner, nn.Embedding) or (leaf == "pos_embed" and isinstance(owner, Tree))
        return {
            "bias": leaf == "bias",
            "norm": norm,
            "embedding": embedding,
            "matrix": parameter.ndim >= 2 and not norm and not embedding,
            "vector": parameter.ndim <= 1,
        }[kind]

    def layer_of(self, name, globs):
        """The number of the one module above it that is a layer; None where there is none."""
        path, numbers = name.split(".")[:-1], []
        for end in range(1, len(path) + 1):
            for glob in as_list(globs):
                pattern = re.escape(glob).replace(r"\*", ".*").replace(r"\{i\}", r"(\d+)")
                if match := re.fullmatch(pattern, ".".join(path[:end])):
                    numbers.append(int(match[1]))
                    break
        if len(numbers) > 1:
            raise Refused("a layer inside a layer")
        return numbers[0] if numbers else None

    def match(self, rule):
        """By parameter: `(label, depth)` of its layer, or None where the rule has no layers."""
        allowed = [
            occurrence
            for occurrence in self.occurrences
            if "params" not in rule or self.is_named(occurrence[0], rule["params"])
        ]
        classes = tuple(CLASSES[name] for name in as_list(rule.get("classes", ())) if CLASSES[name] != ())
        selected = [
            (name, parameter)
            for name, parameter, owner in allowed
            if ("classes" not in rule or isinstance(owner, classes))
            and ("kinds" not in rule or any(self.has_kind(name, parameter, owner, k) for k in as_list(rule["kinds"])))
        ]
        if "layers" not in rule:
            found = {parameter: None for _, parameter in selected}
        else:
            found = self.match_layers(rule, [name for name, *_ in allowed], selected)
        if not found and "allow_empty" not in rule:
            raise Refused("matches nothing")
        needs_stem = rule.get("stem") and "allow_empty" not in rule
        if needs_stem and not any(self.is_named(name, rule["stem"]) for name, _ in selected):
            raise Refused("no stem")
        return found

    def match_layers(self, rule, allowed, selected):
        numbers = {name: self.layer_of(name, rule["layers"]) for name in allowed}
        order = sorted({number for number in numbers.values() if number is not None}, reverse=True)
        found = {}
        for name, parameter in selected:
            if numbers[name] is not None and parameter not in found:
                found[parameter] = (str(numbers[name]), order.index(numbers[name]) + 1)
        if found and "layer_decay" in rule:
            for name, parameter in selected:
                if parameter not in found and self.in_stem(name, rule, numbers):
                    found[parameter] = ("stem", len(order) + 1)
        return found

    def in_stem(self, name, rule, numbers):
        if "stem" in rule:
            return self.is_named(name, rule["stem"])
        names = [occurrence[0] for occurrence in self.occurrences]
        first = [n for n in names if numbers.get(n) is not None and n.split(".")[0] == name.split(".")[0]]
        return bool(first) and names.index(name) < names.index(first[0])

    def highest_priority_value(self, field, rules):
        """The value that the rules of the highest priority set; None where no rule sets it."""
        setters = [self.rules[name] for name in rules if field in self.rules[name]]
        if not setters:
            return None
        highest = max(rule.get("priority", 0) for rule in setters)
        values = [self.normalize(field, rule[field]) for rule in setters if rule.get("priority", 0) == highest]
        if any(value != values[0] for value in values):
            raise Refused("a conflict")
        return values[0]

    @staticmethod
    def normalize(field, value):
        if field == "schedule" and isinstance(value, str):
            return {"name": value}
        return tuple(value) if isinstance(value, list) else value

    def compose(self, layers):
        """`(algorithm, hyperparameters, schedule)` under these rules, each with its layer; None where it is frozen."""
        frozen, schedule, optimizer = (
            self.highest_priority_value(field, layers) for field in ("frozen", "schedule", "optimizer")
        )
        algorithm = optimizer or self.top
        values = dict(DEFAULTS[algorithm] if optimizer else TOPS[self.top])
        # Hyperparameters set for an algorithm that another one overrides are ignored; scales are not.
        applicable = [name for name in layers if self.rules[name].get("optimizer", algorithm) == algorithm]
        for field in ("lr", "weight_decay", "betas", "momentum"):
            value = self.highest_priority_value(field, applicable)
            if value is None:
                continue
            if field not in values:
                raise Refused("its algorithm lacks it")
            values[field] = value
        for name, layer in layers.items():
            rule = self.rules[name]
            if "weight_decay_scale" in rule and "weight_decay" not in values:
                raise Refused("its algorithm lacks it")
            values["lr"] *= rule.get("lr_scale", 1)
            if "layer_decay" in rule:
                values["lr"] *= rule["layer_decay"] ** layer[1]
            if "weight_decay_scale" in rule:
                values["weight_decay"] *= rule["weight_decay_scale"]
        return None if frozen else (algorithm, values, schedule)
