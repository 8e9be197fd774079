"""Golden files: what a release has saved loads in each later one, and continues to the weights that it holds."""

from __future__ import annotations

import pytest
import torch

from lightning_optim import ConfigError, RNGState
from tests.reliability.golden import CASES, GOLDEN, RNG, STAGED, compare_with_golden, make_golden, newer_schemas
from tests.reliability.scoreboard.outcome import Verdict
from tests.reliability.write_golden import MAX_BYTES, MAX_TOTAL_BYTES
from tests.support.cases import every
from tests.support.damaged_runs import build_net
from tests.support.training import fit

PATHS = sorted(GOLDEN.glob("*/*.pt"))


@pytest.mark.parametrize(
    "path",
    every(
        PATHS, fast=[f"0.1.0/{name}" for name in ("muon_adamw", RNG)], id=lambda path: f"{path.parent.name}/{path.stem}"
    ),
)
def test_a_golden_file_continues_as_it_did(path, tmp_path) -> None:
    outcome = compare_with_golden(path, tmp_path)
    assert outcome.verdict is Verdict.EXACT, outcome.detail


def test_each_release_has_every_case_in_small_files() -> None:
    for folder in GOLDEN.iterdir():
        assert {path.stem for path in folder.iterdir()} >= {*CASES, RNG, STAGED}
    sizes = [path.stat().st_size for path in PATHS]
    assert max(sizes) <= MAX_BYTES and sum(sizes) <= MAX_TOTAL_BYTES


def test_a_changed_weight_is_noticed(tmp_path) -> None:
    content = make_golden("adabelief")
    content["optimizer"]["state"][0]["exp_avg"].view(-1)[0] += 1e-3
    torch.save(content, tmp_path / "adabelief.pt")
    assert compare_with_golden(tmp_path / "adabelief.pt", tmp_path).verdict is Verdict.SILENT_WRONG


@pytest.mark.parametrize("what", ["an algorithm", "a hyperparameter", "a key of the schedule's record"])
def test_what_a_later_release_has_saved_is_refused_by_name(what, tmp_path) -> None:
    with pytest.raises(
        ConfigError, match=r"has future.* lightning-optim .* does not know: a later release has saved it"
    ):
        newer_schemas("adamw_own")[what](tmp_path)


@pytest.mark.parametrize(
    "change", [lambda state: state.update(future=1), lambda state: state["ranks"][0].update(future=1)]
)
def test_a_state_of_generators_of_a_later_release_is_refused(change, tmp_path) -> None:
    fit(build_net(), tmp_path, RNGState(), epochs=1, save=True)
    content = torch.load(tmp_path / "step=2.ckpt", weights_only=True)
    change(content["callbacks"]["RNGState"])
    torch.save(content, tmp_path / "later.ckpt")
    with pytest.raises(ConfigError, match="callbacks.RNGState: .* has future, which lightning-optim"):
        fit(build_net(), tmp_path, RNGState(), epochs=2, ckpt_path=tmp_path / "later.ckpt")
