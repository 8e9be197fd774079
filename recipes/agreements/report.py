"""`Report`: the comparisons of a library's models as a table of counts and lists of everything that differs."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .compare import Comparison
from .differences import UNEXPLAINED, Difference, Reason, find_reason
from .library import Library

_MAX_ERROR = 110


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A list below the table of counts."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the recipe prints about a library."""

    title: str
    """The library and its version."""
    counts: tuple[tuple[str, int], ...]
    listings: tuple[Listing, ...]
    """Those with rows."""
    num_failures: int
    """Differences without a reason, selected embeddings and output layers, and unexpected errors."""


@dataclass(kw_only=True)
class Outcome:
    """The comparisons of a library, and the errors by model."""

    comparisons: list[Comparison] = field(default_factory=list)
    not_built: dict[str, str] = field(default_factory=dict)
    crashed: dict[str, str] = field(default_factory=dict)


def build_report(library: Library, outcome: Outcome) -> Report:
    """Count and list what an outcome contains."""
    comparisons = outcome.comparisons
    explained = {c.model: [(d, find_reason(d, library.reasons)) for d in c.differences] for c in comparisons}
    reasons = [[reason for _, reason in pairs] for pairs in explained.values()]
    with_layers = [c for c in comparisons if c.lr_differences is not None]
    unexplained = sum(None in found for found in reasons)
    only_norms = sum(bool(found) and all(r is not None and r.is_missed_norm for r in found) for found in reasons)
    equal = sum(not found for found in reasons)
    failed_muon = sum(bool(c.muon_failures) for c in comparisons)
    other_lrs = sum(bool(c.lr_differences) for c in with_layers)
    counts = [
        ("tried", len(comparisons) + len(outcome.not_built) + len(outcome.crashed)),
        ("not built", len(outcome.not_built)),
        ("compared", len(comparisons)),
        ("no weight decay: the same parameters", equal),
        (f"no weight decay: the same, apart from norm layers that {library.name} misses", only_norms),
        ("no weight decay: other differences, each with a reason", len(reasons) - equal - only_norms - unexplained),
        ("no weight decay: differences without a reason", unexplained),
        ("`layers: auto`: finds layers", sum(not c.refusal for c in comparisons)),
        ("`layers: auto`: refused", sum(bool(c.refusal) for c in comparisons)),
    ]
    if with_layers:
        counts += [
            ("`layers: auto, layer_decay`: every lr scale the same", len(with_layers) - other_lrs),
            ("`layers: auto, layer_decay`: a different lr scale", other_lrs),
            (f"{library.name} has no layers for the model", len(comparisons) - len(with_layers)),
        ]
    counts += [
        ("`muon_hidden`: selects an embedding or the output layer", failed_muon),
        (
            "`muon_hidden`: selects tensors of 3 or more dimensions, which torch's Muon refuses",
            _count_tensors(comparisons),
        ),
        ("`muon_hidden`: selects a projection of pixels or audio", sum(bool(c.num_projections) for c in comparisons)),
        ("unexpected errors", len(outcome.crashed)),
    ]
    lr_rows = ((c.model, str(len(found)), found[0]) for c in with_layers if (found := c.lr_differences))
    listings = [
        Listing(title="Not built", header=("error", "models"), rows=_by_error(outcome.not_built)),
        Listing(title="Errors", header=("error", "models"), rows=_by_error(outcome.crashed)),
        Listing(
            title="Differences in weight decay, by reason",
            header=("reason", "parameters", "models"),
            rows=tuple(_by_reason(explained, library.reasons)),
        ),
        Listing(
            title="Differences other than norm layers",
            header=("model", "parameters", "module", "shape", "number", "reason"),
            rows=tuple(_by_parameter(explained)),
        ),
        Listing(title="Other lr scales", header=("model", "parameters", "for example"), rows=tuple(lr_rows)),
        Listing(
            title="Embeddings and output layers that `muon_hidden` selects",
            header=("model", "parameters"),
            rows=tuple((c.model, ", ".join(c.muon_failures)) for c in comparisons if c.muon_failures),
        ),
        Listing(
            title="`layers: auto` refused",
            header=("model", "candidates whose order is not known"),
            rows=tuple((c.model, format_candidates(c.refusal)) for c in comparisons if c.refusal),
        ),
    ]
    return Report(
        title=f"{library.name} {library.version}",
        counts=tuple(counts),
        listings=tuple(listing for listing in listings if listing.rows),
        num_failures=unexplained + failed_muon + other_lrs + len(outcome.crashed),
    )


def format_error(error: Exception) -> str:
    """An error on one line, without paths of this machine."""
    text = re.sub(r"'?/[\w.-]+/[\w./-]+'?", "...", " ".join(str(error).split()))
    return textwrap.shorten(f"{type(error).__name__}: {text}", _MAX_ERROR, placeholder=" ...")


def format_candidates(refusal: str) -> str:
    """The patterns that a refusal names."""
    patterns = dict.fromkeys(re.findall(r"'([^']*)'", refusal))
    return ", ".join(f"`{pattern}`" for pattern in patterns) or "none: no numbered modules that contain others"


def _count_tensors(comparisons: Iterable[Comparison]) -> int:
    return sum(comparison.has_tensors for comparison in comparisons)


def _by_error(errors: Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
    models: dict[str, list[str]] = {}
    for model, error in errors.items():
        models.setdefault(error, []).append(model)
    return tuple((error, ", ".join(names)) for error, names in models.items())


def _text_of(reason: Reason | None) -> str:
    return reason.text if reason else UNEXPLAINED


def _by_reason(
    explained: Mapping[str, Sequence[tuple[Difference, Reason | None]]], reasons: Sequence[Reason]
) -> Iterator[tuple[str, ...]]:
    for reason in (*reasons, None):
        numbers = {
            model: number for model, pairs in explained.items() if (number := sum(r is reason for _, r in pairs))
        }
        if numbers:
            models = ", ".join(numbers)
            yield _text_of(reason), str(sum(numbers.values())), f"{len(numbers)}: {models}"


def _by_parameter(explained: Mapping[str, Sequence[tuple[Difference, Reason | None]]]) -> Iterator[tuple[str, ...]]:
    """A row for the parameters of a model whose names differ in numbers only."""
    for model, pairs in explained.items():
        numbers: dict[tuple[str, ...], int] = {}
        for difference, reason in pairs:
            if reason is None or not reason.is_missed_norm:
                name = re.sub(r"(?<=\.)\d+(?=\.)", "*", difference.name)
                row = (f"`{name}`", difference.owner.__name__, str(difference.shape), _text_of(reason))
                numbers[row] = numbers.get(row, 0) + 1
        for (name, owner, shape, text), number in numbers.items():
            yield model, name, owner, shape, str(number), text
