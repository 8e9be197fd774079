"""`TextTable`: at any width every number is whole, names are shortened before that, and HTML is escaped."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from lightning_optim.core.column_widths import Column
from lightning_optim.core.table_cells import shorten, wrap_text
from lightning_optim.core.text_table import TextTable
from tests.support.printed_numbers import numbers

COLUMNS = (Column("group", "name"), Column("parameters"), Column("weight_decay"), Column("rules", "text"))
ROWS = (
    ("backbone.encoder.no_decay", "23,824", "3.277e-05", "encoder, no_decay"),
    ("backbone.encoder.default", "1,234,567,890", "0.01", "encoder"),
    ("all", "1,234,591,714", "", ""),
)
TABLE = TextTable(columns=COLUMNS, rows=ROWS, title="Param groups", notes=("lr 1.5e-08",), has_total=True)


@pytest.mark.parametrize("width", [*range(1, 100), 200, 1_000_000])
def test_at_any_width_every_number_is_whole(width):
    expected = sorted([23824, 3.277e-05, 1234567890, 0.01, 1234591714, 1.5e-08])
    assert numbers(TABLE.render(width)) == expected


@pytest.mark.parametrize("width", range(30, 100))
def test_no_line_is_wider_than_asked(width):
    assert max(map(cell_len, TABLE.render(width).splitlines())) <= width


def test_first_headings_and_texts_are_wrapped_then_names_are_shortened_then_it_folds():
    wide, wrapped, shortened, folded = (TABLE.render(width) for width in (90, 70, 60, 40))
    assert "┃ weight_decay ┃" in wide and "│ encoder, no_decay │" in wide
    assert "┃ weight_decay ┃" not in wrapped and "backbone.encoder.no_decay" in wrapped
    assert "backbone.encoder.no_decay" not in shortened and "…" in shortened and "│" in shortened
    assert folded.splitlines()[1:5] == [
        "backbone.encoder.no_decay",
        "  parameters: 23,824;",
        "  weight_decay: 3.277e-05;",
        "  rules: encoder, no_decay",
    ]


def test_shortened_names_differ_or_the_table_folds():
    names = [f"a_long_name_{middle}_of_a_group" for middle in "xyz"]
    table = TextTable(columns=COLUMNS[:2], rows=tuple((name, "1") for name in names))
    for width in range(1, 60):
        shown = [line.strip("│ ").split(" ")[0] for line in table.render(width).splitlines() if "name" in line]
        assert len(set(shown)) == len(shown)
    assert all(name in table.render(20) for name in names)


def test_a_console_of_the_users_is_obeyed():
    for width in (40, 60, 200):
        text = io.StringIO()
        Console(file=text, width=width, color_system=None).print(TABLE)
        assert text.getvalue().rstrip() == TABLE.render(width)


def test_print_obeys_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert TABLE.render() == TABLE.render(60)
    monkeypatch.delenv("COLUMNS")
    assert TABLE.render() == TABLE.render(1_000_000)


def test_markup_in_names_is_printed_as_it_stands():
    table = TextTable(columns=(Column("[bold]", "name"),), rows=(("[red]x",),), title="[link=x]", notes=("[/]",))
    assert all(text in table.render(80) for text in ("[bold]", "[red]x", "[link=x]", "[/]"))


def test_html_is_escaped():
    table = TextTable(
        columns=(Column("<b>", "name"),), rows=(("<script>alert('&')</script>",),), title="a < b", notes=("c > d",)
    )
    html = table.html()
    assert "<script>" not in html and "&lt;script&gt;alert(&#x27;&amp;&#x27;)&lt;/script&gt;" in html
    assert "<caption>a &lt; b</caption>" in html and "<p>c &gt; d</p>" in html and "&lt;b&gt;</th>" in html


def test_html_has_every_cell_in_full():
    html = TABLE.html()
    assert all(f">{cell}</td>" in html for row in ROWS for cell in row)
    assert html.count("<tr>") == 4 and html.count('<td style="text-align: right">') == 6


def test_what_is_said_below_has_no_column():
    table = TextTable(columns=COLUMNS, rows=tuple((name, "1", "0.1", "") for name in "ab"), notes=("last",))
    said = table.say_below(["weight_decay", "rules", "unknown"])
    assert [column.name for column in said.columns] == ["group", "parameters", "rules"], "an empty cell says nothing"
    assert said.rows == (("a", "1", ""), ("b", "1", "")) and said.notes == (
        "the same for all groups: weight_decay 0.1",
        "last",
    )
    assert TextTable(columns=COLUMNS, rows=()).say_below(["rules"]).rows == ()


@settings(max_examples=30)
@given(st.text(), st.integers(1, 30))
def test_a_shortened_name_has_both_its_ends(name, width):
    short = shorten(name, width)
    assert cell_len(short) <= max(width, 1)
    if short != name:
        start, end = short.split("…")[0], short.rsplit("…", 1)[1]
        assert name.startswith(start) and name.endswith(end)


@given(st.lists(st.floats(0, 1)), st.integers(1, 30))
def test_wrapped_text_has_its_numbers(values, width):
    text = ", ".join(map(str, values))
    assert wrap_text(text, width).split() == text.split()


def test_a_number_that_fits_only_without_the_indent_is_not_cut_by_the_console():
    table = TextTable(columns=(Column("group", "name"), Column("parameters")), rows=(("all", "10,000,000,000"),))
    text = io.StringIO()
    Console(file=text, width=15, color_system=None).print(table)
    assert "\n10,000,000,000\n" in text.getvalue()
