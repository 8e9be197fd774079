"""`build_page`: the report of runs as one HTML file that needs nothing else, no script either."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import PurePath

from .charts import Chart, draw_svg
from .colors import Look, assign_looks
from .curves import OptimizerCurves, Run
from .pictures import charts_of
from .rules import Finding, Rule, Verdict, check
from .summary import group_rows, run_row

_CSS = files("lightning_optim.report") / "page.css"
_MAX_ADVICE = 4


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A run with what the rules say of each of its optimizers."""

    run: Run
    verdicts: tuple[Mapping[str, Verdict], ...]
    """For each optimizer, by rule."""

    @property
    def findings(self) -> list[Finding]:
        """All of them, in the order of optimizers and rules."""
        return [found for verdicts in self.verdicts for verdict in verdicts.values() for found in verdict.findings]

    @property
    def unchecked(self) -> dict[str, str]:
        """By rule: what could not be checked, and what to type."""
        return {
            name: verdict.unchecked
            for verdicts in self.verdicts
            for name, verdict in verdicts.items()
            if verdict.unchecked
        }


def check_run(run: Run, rules: Sequence[Rule]) -> Checked:
    """Apply the rules to all optimizers of a run."""
    return Checked(run=run, verdicts=tuple(check(curves, rules) for curves in run.optimizers))


def build_page(checked: Sequence[Checked], rules: Sequence[Rule]) -> str:
    """The page's HTML.

    Args:
        checked: the runs.
        rules: that they were checked with.
    """
    names = _short_names([it.run.name for it in checked])
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(_title(checked))}</title>",
        f"<style>{_CSS.read_text(encoding='utf-8')}</style>",
        f"</head><body><main><h1>{escape(_title(checked))}</h1>",
    ]
    if len(checked) > 1:
        parts.append(_comparison(checked, names, rules))
    for index, it in enumerate(checked):
        parts.extend(_section(it, rules, index, names[index] if len(checked) > 1 else ""))
    parts.append(_rules_table(rules))
    parts.append("</main></body></html>\n")
    return "\n".join(parts)


def _title(checked: Sequence[Checked]) -> str:
    return checked[0].run.name if len(checked) == 1 else f"{len(checked)} runs"


def _short_names(names: Sequence[str]) -> list[str]:
    """The names without the folders that all have in common."""
    parts = [PurePath(name).parts for name in names]
    shared = next((depth for depth, column in enumerate(zip(*parts, strict=False)) if len(set(column)) > 1), 0)
    return [str(PurePath(*it[shared:])) for it in parts]


def _color_rules(looks: Mapping[str, Look], index: int) -> str:
    """The colors of a run's groups, and that the lines of a group stand out while the mouse is on its name."""
    run = f"#run{index}"
    light = "".join(f"--g{number}:{look.light};" for number, look in enumerate(looks.values()))
    dark = "".join(f"--g{number}:{look.dark};" for number, look in enumerate(looks.values()))
    hovers = "".join(
        f"{run}:has(.n{number}:hover) figure:not(.lone) .line:not(.g{number}){{opacity:.1}}\n"
        for number in range(len(looks))
    )
    return f"<style>{run}{{{light}}}\n@media (prefers-color-scheme: dark){{{run}{{{dark}}}}}\n{hovers}</style>"


def _comparison(checked: Sequence[Checked], names: Sequence[str], rules: Sequence[Rule]) -> str:
    rows = []
    for index, it in enumerate(checked):
        broken = {found.rule for found in it.findings}
        titles = "; ".join(rule.title for rule in rules if rule.name in broken)
        state = f"<span class=bad>{escape(titles)}</span>" if titles else "<span class=good>nothing</span>"
        rows.append([f'<a href="#run{index}">{escape(names[index])}</a>', state, *map(escape, run_row(it.run)[1])])
    head = ["run", "suspicious", *run_row(checked[0].run)[0]]
    return f"<h2>Side by side</h2>{_table(head, rows, num_text_columns=2)}<p class=note>{_HOW_ENDS}</p>"


_HOW_ENDS = "a → b: the medians of the first ten logged steps and of the last ten."


def _section(it: Checked, rules: Sequence[Rule], index: int, title: str) -> Iterator[str]:
    run, (first, last) = it.run, it.run.steps
    looks = assign_looks(group for curves in run.optimizers for group in curves.groups)
    yield f'<section id="run{index}">{_color_rules(looks, index)}'
    if title:
        yield f"<h2>{escape(title)}</h2>"
    yield f"<p class=note>Steps {first:,} to {last:,}; read from {escape(run.source)}.</p>"
    if run.notes:
        yield f"<ul class=notes>{''.join(f'<li>{escape(note)}</li>' for note in run.notes)}</ul>"
    yield _findings(it, rules)
    for number, curves in enumerate(run.optimizers):
        if len(run.optimizers) > 1:
            yield f"<h3>{escape(curves.root)}</h3>"
        yield _legend(curves, looks)
        yield "<div class=charts>"
        for place, (chart, caption) in enumerate(charts_of(curves)):
            yield _figure(chart, caption, looks, curves, (first, last), f"{index}-{number}-{place}")
        if number == 0:
            for place, (tag, loss) in enumerate(run.losses.items()):
                chart = Chart(title=tag, curves={"": loss})
                yield _figure(chart, "", {"": Look("", "", "")}, curves, (first, last), f"{index}-loss-{place}")
        yield "</div>"
        yield _tables(curves, looks)
    yield "</section>"


def _figure(
    chart: Chart, caption: str, looks: Mapping[str, Look], curves: OptimizerCurves, steps: tuple[int, int], salt: str
) -> str:
    svg = draw_svg(chart, looks, curves.thaws, first=steps[0], last=steps[1], salt=salt)
    lone = ' class="lone"' if "" in looks else ""
    return f"<figure{lone}><figcaption><b>{escape(chart.title)}</b> {escape(caption)}</figcaption>{svg}</figure>"


def _findings(it: Checked, rules: Sequence[Rule]) -> str:
    findings, parts = it.findings, []
    for rule in rules:
        found = [one for one in findings if one.rule == rule.name]
        if found:
            parts.append(_finding(rule, found, show_root=len(it.run.optimizers) > 1))
    unchecked = "".join(
        f"<li><b>{escape(rule.title)}</b> could not be checked: {escape(it.unchecked[rule.name])}.</li>"
        for rule in rules
        if rule.name in it.unchecked
    )
    if not parts:
        parts.append(
            f"<p class=good>Nothing suspicious: {len(rules) - len(it.unchecked)} of {len(rules)} rules checked.</p>"
        )
    return "".join(parts) + (f"<ul class=notes>{unchecked}</ul>" if unchecked else "")


def _finding(rule: Rule, found: Sequence[Finding], *, show_root: bool) -> str:
    """A box; findings of many groups are a table."""
    head = ["group", "first step", "what was measured"]
    rows = [
        [escape(f"{one.root}: {one.group}" if show_root else one.group), f"{one.step:,}", escape(one.text)]
        for one in found
    ]
    advice = "".join(
        f"<p><b>Do:</b> {escape(text)}.</p>" for text in list(dict.fromkeys(one.advice for one in found))[:_MAX_ADVICE]
    )
    return (
        f"<div class=finding><h3>{escape(rule.title)}</h3><p class=note>The rule: {escape(rule.statement)}</p>"
        f"{_table(head, rows, num_text_columns=3)}{advice}</div>"
    )


def _legend(curves: OptimizerCurves, looks: Mapping[str, Look]) -> str:
    index_of = {group: index for index, group in enumerate(looks)}
    items = "".join(
        f'<li class="n{index_of[group]}">{_swatch(index_of[group], looks[group])}{escape(group)}</li>'
        for group in curves.groups
    )
    return f"<ul class=legend>{items}</ul>"


def _swatch(index: int, look: Look) -> str:
    dashes = f' stroke-dasharray="{look.dashes}"' if look.dashes else ""
    line = f'<path d="M0 3H22" stroke="var(--g{index})" stroke-width="2"{dashes}/>'
    return f'<svg class=swatch viewBox="0 0 22 6">{line}</svg>'


def _tables(curves: OptimizerCurves, looks: Mapping[str, Look]) -> str:
    index_of = {group: index for index, group in enumerate(looks)}

    def name(group: str) -> str:
        return (_swatch(index_of[group], looks[group]) if group in index_of else "") + escape(group)

    head, rows = group_rows(curves)
    parts = [f"<h3>By group</h3>{_table(head, [[name(row[0]), *map(escape, row[1:])] for row in rows])}"]
    parts.append(f"<p class=note>{_HOW_ENDS}</p>")
    if len(curves.table) > 1:
        columns, *body = curves.table
        cells = [[name(row[0]), *map(escape, row[1:])] for row in body]
        parts.append(f"<h3>The group table, as logged last</h3>{_table(columns, cells)}")
    return "".join(parts)


def _rules_table(rules: Sequence[Rule]) -> str:
    rows = [[escape(rule.title), escape(rule.statement)] for rule in rules]
    return f"<h2>The rules</h2>{_table(['suspicious', 'where'], rows, num_text_columns=2)}"


def _table(head: Iterable[str], rows: Iterable[Sequence[str]], num_text_columns: int = 1) -> str:
    """A table whose cells are HTML already; all columns but the first ones are numbers."""
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    table = f"<thead><tr>{cells}</tr></thead><tbody>{body}</tbody>"
    return f'<div class=wide><table class="text{num_text_columns}">{table}</table></div>'
