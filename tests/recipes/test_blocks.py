"""The run that docs/telemetry.md shows: a transformer of 16 groups that thaws block by block."""

from __future__ import annotations

import pytest

from lightning_optim import OptimizerFactory, StagedUnfreeze
from recipes.blocks import NUM_BLOCKS, RULES, STAGES, DigitsEncoder, main
from tests.support.tensorboard_events import read_curves, read_runs, read_texts


def test_sixteen_groups_thaw_block_by_block() -> None:
    module = DigitsEncoder()
    plan = StagedUnfreeze(STAGES).plan_of(OptimizerFactory("adamw", lr=1.0, groups=RULES)(module), module)
    names = [group.name for group in plan.groups]
    assert len(names) == 2 * (NUM_BLOCKS + 2) == 16
    assert names[:4] == ["head", "head.no_decay", "blocks.5.layers.5", "blocks.5.layers.5.no_decay"]


@pytest.mark.slow
@pytest.mark.parametrize("flat", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_command_logs_each_group_and_prints_where(tmp_path, capsys, flat) -> None:
    main(["--folder", str(tmp_path), "--epochs", "2", *(["--flat"] if flat else [])])
    assert capsys.readouterr().out.rstrip().endswith(f"tensorboard --logdir {tmp_path}")
    version = tmp_path / "version_0"
    groups = ["all", "head", "head.no_decay", "blocks.5.layers.5", "blocks.5.layers.5.no_decay"]
    assert set(read_runs(version)) == {".", *(() if flat else (f"optim/{group}" for group in groups))}
    steps = [step for step, _ in read_curves(tmp_path)["optim/ratio/update_param/head"]]
    (thaw,) = read_texts(tmp_path, "optim/thaw")
    assert steps == list(range(2 * thaw[0]))
