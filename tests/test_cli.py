"""The command line: what it prints, and how it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lightning_optim import list_optimizers, optimizer_info
from lightning_optim.catalog.decay import DECAYS
from lightning_optim.cli import main

RECIPES = str(Path(__file__).parents[1] / "recipes" / "conf")
EXPLAIN = ["explain", "--config-dir", RECIPES, "--config-name", "finetune", "--module"]


def test_list(capsys: Any) -> None:
    assert main(["list"]) == 0
    assert all(f" {name} " in capsys_out for capsys_out in [capsys.readouterr().out] for name in list_optimizers())


def test_list_by_pattern(capsys: Any) -> None:
    assert main(["list", "adam*"]) == 0
    out = capsys.readouterr().out
    assert "adamax" in out and "nadam" not in out


@pytest.mark.parametrize("name", list_optimizers())
def test_show(capsys: Any, name) -> None:
    assert main(["show", name]) == 0
    out, info = capsys.readouterr().out, optimizer_info(name)
    assert all(text in out for text in (info.summary, info.paper, *info.hyperparameters, *info.buffers))
    assert info.equations and all(f"    {line}" in out for line in info.equations)
    modes = [line.split()[0] for line in out.splitlines() if line.strip().split("  ")[0] in DECAYS]
    assert tuple(modes) == info.decay_modes
    assert out.count("(the default)") == (info.decay != "none")


def test_show_says_what_the_state_costs(capsys: Any) -> None:
    lines = {
        "lion": "exp_avg; 4 bytes for",
        "adam": "(with amsgrad); 8 bytes for",
        "amsgrad": "; 12 bytes for",
        "sgd": "; 0 ",
    }
    for name, said in lines.items():
        main(["show", name])
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("state of each parameter")]
        assert said in line


def test_explain(capsys: Any) -> None:
    assert main([*EXPLAIN, "model", "optimizer.lr=3e-4"]) == 0
    out = capsys.readouterr().out
    assert out.index("optimizer: adamw") < out.index("Param groups") < out.index("Unfreeze plan")
    assert "0.0003" in out and "backbone.no_decay" in out and "epoch 1" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "adm"], "no optimizer matches 'adm'. Did you mean 'adam'?"),
        (["show", "admw"], "there is no optimizer 'admw'. Did you mean 'adamw'?"),
        ([*EXPLAIN, "modle"], "modle is no node with a _target_. Such nodes are: "),
        ([*EXPLAIN, "monitor"], "monitor makes a OptimizerMonitor, not a torch.nn.Module"),
        ([*EXPLAIN, "model", "+optimizer.weigth_decay=1"], "weigth_decay: adamw has no hyperparameter 'weigth_decay'"),
        ([*EXPLAIN, "model", "optimizer.weigth_decay=1"], "Could not override 'optimizer.weigth_decay'"),
        ([*EXPLAIN, "model", "optimizer=adamv"], "Could not find 'optimizer/adamv'"),
        ([*EXPLAIN, "model", "unfreeze.stages.backbone.params=bakcbone"], "Did you mean 'backbone'"),
        (["explain", "--config-dir", "nowhere", "--config-name", "x", "--module", "y"], "there is no folder nowhere"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else None,
)
def test_refusals_say_what_is_wrong_on_one_line_and_end_with_2(capsys: Any, arguments, message) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("lightning-optim: ") and message in error
    assert "Traceback" not in error
