"""`read_run`: the curves of a run from its files, whichever logger has written them and however groups are laid out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import ConfigError, format_names
from ..core.printable import to_printable
from ..groups.group import ALL
from ..telemetry.group_runs import is_folder_of
from ..telemetry.tags import ROOT, split_tag
from .curves import Curve, Log, OptimizerCurves, Points, Run, Text, Thaw
from .find_runs import RunFiles
from .read_csv import read_csv
from .read_events import read_event_files

_LOSS = re.compile(r"(^|[/_.-])loss($|[/_.-])", re.IGNORECASE)
_MAX_LOSSES = 4
_SEPARATOR = re.compile(r":?-+:?")

# By root, signal and group.
_Curves = dict[str, dict[str, dict[str, Curve]]]
# By root and the name of the group's folder.
_GroupLogs = dict[tuple[str, str], Log]
# By root, group and key.
_Hyperparameters = dict[str, dict[str, dict[str, Any]]]


def read_run(files: RunFiles) -> Run:
    """A run with all curves that the monitor has logged; names are printable.

    Args:
        files: from `find_runs`.

    Raises:
        ConfigError: a file cannot be read, or has no curves of an optimizer.
    """
    log, group_logs, hyperparameters = _read_logs(files)
    curves = _sort(log, group_logs, hyperparameters)
    if not curves:
        raise ConfigError(_explain_missing(files, log))
    logs = [log, *group_logs.values()]
    return Run(
        name=files.name,
        source=files.source,
        optimizers=tuple(_build(root, signals, hyperparameters.get(root, {}), log) for root, signals in curves.items()),
        losses=_find_losses(log),
        notes=tuple(map(to_printable, dict.fromkeys([*(note for it in logs for note in it.notes), *_notes(logs)]))),
    )


def read_curves_by_tag(files: RunFiles) -> dict[str, Curve]:
    """All curves of a run by tag, those of groups as `optim/<signal>/<group>` even where the groups are runs.

    Args:
        files: from `find_runs`.

    Raises:
        ConfigError: a file cannot be read.
    """
    log, group_logs, hyperparameters = _read_logs(files)
    found = {tag: points.curve() for tag, points in log.points.items()}
    for root, signals in _sort(log, group_logs, hyperparameters).items():
        found |= {f"{root}/{signal}/{group}": it for signal, groups in signals.items() for group, it in groups.items()}
    return found


def _read_logs(files: RunFiles) -> tuple[Log, _GroupLogs, _Hyperparameters]:
    log = read_csv(files.csv) if files.csv is not None else read_event_files(list(files.events))
    group_logs = {key: read_event_files(paths) for key, paths in files.group_events.items()}
    return log, group_logs, _sort_hyperparameters({**_read_yaml(files.hparams, log), **log.hyperparameters})


def _sort(log: Log, group_logs: _GroupLogs, hyperparameters: _Hyperparameters) -> _Curves:
    curves = _sort_flat(log)
    for (root, folder), group_log in group_logs.items():
        _add_group(curves, root, _name_of(folder, root, hyperparameters.get(root, ())), group_log)
    return {root: signals for root, signals in curves.items() if any(signals.values())}


def _explain_missing(files: RunFiles, log: Log) -> str:
    found = f"it has {format_names(map(to_printable, log.points), 4)}" if log.points else "it has no scalars"
    return (
        f"report: {files.name} has no curves of an optimizer (optim/...): {found}. Type "
        "OptimizerMonitor(update_norm=True) in the trainer's callbacks, or +monitor@callbacks.optim=default, and train"
    )


def _sort_flat(log: Log) -> _Curves:
    """The curves whose tags name their group; those of parameters are left out."""
    curves: _Curves = {}
    for tag, points in log.points.items():
        root, signal, group = split_tag(tag) or ("", "", "")
        if group:
            _add(curves, root, signal, group, points)
    return curves


def _add_group(curves: _Curves, root: str, group: str, log: Log) -> None:
    for tag, points in log.points.items():
        tag_root, signal, rest = split_tag(tag) or ("", "", "")
        if tag_root == root and not rest:
            _add(curves, root, signal, group, points)


def _add(curves: _Curves, root: str, signal: str, group: str, points: Points) -> None:
    by_group = curves.setdefault(root, {}).setdefault(to_printable(signal), {})
    curve, known = points.curve(), by_group.get(to_printable(group))
    # A run that was resumed with the other `overlay` has one part of a curve in each place.
    by_group[to_printable(group)] = curve if known is None else known.join(curve)


def _name_of(folder: str, root: str, known: Iterable[str]) -> str:
    """The group whose run is in a folder, whose name cannot have all characters that the group's can.

    Where several groups may have it, it is named by the folder.
    """
    names = [name for name in known if is_folder_of(name, root, f"{root}/{folder}")]
    return names[0] if len(names) == 1 else folder


def _sort_hyperparameters(logged: Mapping[str, Any]) -> _Hyperparameters:
    """`optim/<group>/<key>` by root, group and key."""
    result: _Hyperparameters = {}
    for name, value in logged.items():
        root, _, rest = name.partition("/")
        group, _, key = rest.rpartition("/")
        if group and ROOT.fullmatch(root):
            result.setdefault(root, {}).setdefault(to_printable(group), {})[key] = value
    return result


def _read_yaml(path: Path | None, log: Log) -> dict[str, Any]:
    """Lightning's `hparams.yaml`; objects in it are passed over, not built."""
    if path is None:
        return {}
    import yaml

    class PlainLoader(yaml.SafeLoader):  # type: ignore[misc]
        pass

    PlainLoader.add_multi_constructor("", lambda loader, suffix, node: None)
    try:
        content = yaml.load(path.read_text(encoding="utf-8", errors="replace"), PlainLoader)
    except (OSError, yaml.YAMLError, RecursionError) as error:
        log.notes.append(f"{path.name} cannot be read: {type(error).__name__}")
        return {}
    return {str(key): value for key, value in content.items()} if isinstance(content, dict) else {}


def _build(
    root: str, signals: dict[str, dict[str, Curve]], hyperparameters: dict[str, dict[str, Any]], log: Log
) -> OptimizerCurves:
    found = dict.fromkeys(group for by_group in signals.values() for group in by_group if group != ALL)
    tables = [tuple(_parse_table(text.text)) for text in log.texts.get(f"{root}/groups", [])]
    # That of the plan; otherwise that in which the curves were logged. Hyperparameters have no order in an event.
    listed = dict.fromkeys(row[0] for table in reversed(tables) for row in table if row[0] in found)
    groups = tuple({**listed, **found})
    return OptimizerCurves(
        root=to_printable(root),
        groups=groups,
        signals=signals,
        hyperparameters=hyperparameters,
        thaws=tuple(_find_thaws(groups, signals, log.texts.get("optim/thaw", []))),
        table=tables[-1] if tables else (),
        nonfinite=tuple(log.texts.get(f"{root}/nonfinite", [])),
    )


def _find_thaws(
    groups: Iterable[str], signals: Mapping[str, Mapping[str, Curve]], texts: Iterable[Text]
) -> Iterator[Thaw]:
    """As `StagedUnfreeze` has logged them; otherwise the steps at which curves begin later than those of others."""
    logged = {(text.step, to_printable(name)) for text in texts if (name := _stage_of(text.text))}
    if logged:
        yield from (Thaw(step, name) for step, name in sorted(logged))
        return
    starts = {}
    for group in groups:
        steps = [int(by_group[group].steps[0]) for by_group in signals.values() if group in by_group]
        if steps:
            starts[group] = min(steps)
    first = min(starts.values(), default=0)
    by_step: dict[int, list[str]] = {}
    for group, start in starts.items():
        if start > first:
            by_step.setdefault(start, []).append(group)
    for step, names in sorted(by_step.items()):
        yield Thaw(step, format_names(names, 2))


def _stage_of(text: str) -> str:
    """The name in `epoch 1, step 50: 'backbone' thaws (backbone, backbone.no_decay)`."""
    found = re.search(r": '(.*)' thaws \(", text, re.DOTALL)
    return found[1] if found else ""


def _parse_table(markdown: str) -> Iterator[tuple[str, ...]]:
    for line in markdown.splitlines():
        cells = tuple(
            to_printable(cell.strip()) for cell in line.strip().removeprefix("|").removesuffix("|").split(" | ")
        )
        if line.startswith("|") and not all(_SEPARATOR.fullmatch(cell) for cell in cells):
            yield cells


def _find_losses(log: Log) -> dict[str, Curve]:
    found = [(tag, points.curve()) for tag, points in log.points.items() if _LOSS.search(tag)]
    return {to_printable(tag): curve for tag, curve in found[:_MAX_LOSSES] if np.isfinite(curve.values).any()}


def _notes(logs: list[Log]) -> Iterator[str]:
    steps = sorted(set().union(*(log.resumed_at for log in logs)))
    if steps:
        at = format_names((f"{step:,}" for step in steps), 4)
        yield f"the steps go back to {at}: the run was resumed there, and what it had logged from there on is replaced"
