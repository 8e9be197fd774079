"""The recipe that compares our rules with other libraries: what it reports, and its exit status."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from recipes import agreement
from recipes.agreements.compare import compare
from recipes.agreements.differences import Reason
from recipes.agreements.library import Library, names_of
from recipes.agreements.report import Listing, Report, format_candidates, format_error


class Plain(nn.Module):
    """Biases and norms are its vectors, and its layers are numbered."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.ModuleDict({"fc": nn.Linear(2, 3), "norm": nn.LayerNorm(3)}) for _ in range(2))


class Odd(nn.Module):
    """Has a scale, which is a vector but neither a bias nor part of a norm, and no layers."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.fc = nn.Linear(2, 3)


class WordTable(nn.Module):
    """Its input embeddings are a matrix by its class and name."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Module()
        self.words.rows = nn.Parameter(torch.ones(5, 2))

    def get_input_embeddings(self) -> nn.Module:
        return self.words


MODELS = {"plain": Plain, "odd": Odd}
SCALE = Reason(text="theirs only: a scale", applies=lambda d: not d.is_ours and d.name == "scale" and d.shape == (3,))
EMPTY = Report(title="", counts=(), listings=(), num_failures=0)


def build(name: str) -> nn.Module:
    if name not in MODELS:
        raise ImportError("\nIt needs natten, see\n '/opt/site-packages/natten.py'.")
    return MODELS[name]()


def no_vectors(model: nn.Module) -> set[str]:
    return names_of((p for p in model.parameters() if p.ndim <= 1), model)


def broken(model: nn.Module) -> set[str]:
    raise RuntimeError("broken")


FAKE = Library(
    name="fake", version="1.5", models=["plain", "odd", "missing"], build=build, no_decay=no_vectors, reasons=()
)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def run(library: Library, *arguments: str) -> int:
        monkeypatch.setattr(agreement, "LIBRARIES", {"fake": lambda: library})
        return agreement.main(["fake", *arguments])

    return run


def counts_of(library: Library) -> dict[str, int]:
    return dict(agreement.run(library).counts)


def test_a_difference_without_a_reason_sets_the_exit_status(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(FAKE) == 1
    assert "unexplained" in capsys.readouterr().out
    assert run(replace(FAKE, reasons=[SCALE])) == 0
    output = capsys.readouterr().out
    assert "unexplained" not in output and SCALE.text in output


def test_models_are_counted_by_what_differs() -> None:
    counts = counts_of(FAKE)
    assert (counts["tried"], counts["not built"], counts["compared"]) == (3, 1, 2)
    assert counts["no weight decay: the same parameters"] == 1
    assert counts["no weight decay: differences without a reason"] == 1
    assert (counts["`layers: auto`: finds layers"], counts["`layers: auto`: refused"]) == (1, 1)

    reason = "no weight decay: other differences, each with a reason"
    norms = "no weight decay: the same, apart from norm layers that fake misses"
    assert [counts_of(replace(FAKE, reasons=[SCALE]))[key] for key in (reason, norms)] == [1, 0]
    missed = replace(SCALE, is_missed_norm=True)
    assert [counts_of(replace(FAKE, reasons=[missed]))[key] for key in (reason, norms)] == [0, 1]


def test_lists_name_the_models_and_their_reasons() -> None:
    report = agreement.run(replace(FAKE, reasons=[SCALE]))
    assert report.title == "fake 1.5"
    rows = {listing.title: listing.rows for listing in report.listings}
    assert rows == {
        "Not built": (("ImportError: It needs natten, see ....", "missing"),),
        "Differences in weight decay, by reason": ((SCALE.text, "1", "1: odd"),),
        "Differences other than norm layers": (("odd", "`scale`", "Odd", "(3,)", "1", SCALE.text),),
        "`layers: auto` refused": (("odd", "none: no numbered modules that contain others"),),
    }


def test_every_takes_each_nth_model() -> None:
    assert dict(agreement.run(FAKE, every=2).counts)["tried"] == 2


def test_an_error_in_the_comparison_is_a_failure(run: Callable[..., int]) -> None:
    report = agreement.run(replace(FAKE, no_decay=broken, models=["plain"]))
    assert report.listings == (
        Listing(title="Errors", header=("error", "models"), rows=(("RuntimeError: broken", "plain"),)),
    )
    assert report.num_failures == 1


def test_lr_scales_are_compared_exactly() -> None:
    scales = {name: 0.5 if "1" in name else 0.25 for name, _ in Plain().named_parameters()}
    assert compare("plain", Plain(), FAKE).lr_differences is None
    same = replace(FAKE, lr_scales=lambda model, layer_decay: scales, models=["plain"])
    assert compare("plain", Plain(), same).lr_differences == ()
    assert agreement.run(same).num_failures == 0
    other = replace(same, lr_scales=lambda model, layer_decay: {**scales, "blocks.0.fc.bias": 0.25 + 2**-50})
    assert agreement.run(other).num_failures == 1
    (difference,) = compare("plain", Plain(), other).lr_differences or ()
    assert difference.startswith("blocks.0.fc.bias: 0.25, and 0.25000000000000")


def test_a_selected_embedding_is_a_failure(monkeypatch) -> None:
    assert compare("table", WordTable(), FAKE).muon_failures == ()
    monkeypatch.setattr("lightning_optim.groups.parameters.find_input_layers", lambda modules: set())
    assert compare("table", WordTable(), FAKE).muon_failures == ("words.rows",)
    assert compare("plain", Plain(), FAKE).muon_failures == ()


def test_markdown_has_the_command_the_versions_and_every_list(run: Callable[..., int], tmp_path: Path) -> None:
    file = tmp_path / "agreement.md"
    assert run(FAKE, "--markdown", str(file)) == 1
    text = file.read_text(encoding="utf-8")
    assert f"Versions: fake 1.5, torch {torch.__version__}." in text
    assert f"python -m recipes.agreement fake --markdown {file}\n" in text
    assert "| no weight decay: the same parameters | 1 |\n" in text
    assert "### Not built\n\n| error | models |\n| --- | --- |\n| ImportError: It needs natten" in text
    assert "| unexplained | 1 | 1: odd |\n" in text


def test_markdown_escapes_the_bar_of_a_cell() -> None:
    report = replace(EMPTY, listings=(Listing(title="A", header=("b",), rows=(("c|d",),)),))
    assert agreement.to_markdown([report], "command").endswith("### A\n\n| b |\n| --- |\n| c\\|d |\n")


def test_errors_are_shortened_and_have_no_paths() -> None:
    assert format_error(ValueError("in <module 'x' from '/opt/lib/x.py'>")) == "ValueError: in <module 'x' from ...>"
    assert len(format_error(ValueError("word " * 99))) <= 110


def test_candidates_are_the_patterns_of_a_refusal() -> None:
    assert format_candidates("several series, 'a.{i}' and 'b.{i}'. For example layers: 'a.{i}'") == "`a.{i}`, `b.{i}`"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tim"], "there is no library 'tim'. Did you mean 'timm'?"),
        (["--every", "0"], "--every 0: it must be an integer >= 1"),
        (["--markdown", "nowhere/x.md"], "there is no folder nowhere"),
    ],
    ids=["library", "every", "folder"],
)
def test_wrong_arguments_are_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        agreement.main(arguments)
    assert message in capsys.readouterr().err


def test_stand_in_for_torchvision_is_used_only_if_it_is_missing(run_python: Callable[..., str]) -> None:
    code = (
        "from recipes.agreements import torchvision_stub as stub\n"
        "stub.find_spec = lambda name: {}\n"
        "stub.install(); print(stub.is_in_use())\n"
        "stub.find_spec = lambda name: None\n"
        "stub.install(); print(stub.is_in_use())\n"
        "from torchvision.transforms import InterpolationMode\n"
        "print(InterpolationMode.BICUBIC.value)\n"
    )
    assert run_python(code).split() == ["False", "True", "bicubic"]
