"""`list` and `show`: what they print, how they refuse, and that they need no torch."""

from __future__ import annotations

import pytest

from lightning_optim import list_optimizers, optimizer_info
from lightning_optim.catalog.decay import DECAYS


def test_list(printed) -> None:
    out = printed("list")
    assert all(f" {name} " in out for name in list_optimizers())


def test_list_by_pattern(printed) -> None:
    out = printed("list", "adam*")
    assert "adamax" in out and "nadam" not in out


@pytest.mark.parametrize("name", list_optimizers())
def test_show(printed, name) -> None:
    out, info = printed("show", name), optimizer_info(name)
    assert all(text in out for text in (info.summary, info.paper, *info.hyperparameters, *info.buffers))
    assert info.equations and all(f"    {line}" in out for line in info.equations)
    modes = [line.split()[0] for line in out.splitlines() if line.strip().split("  ")[0] in DECAYS]
    assert tuple(modes) == info.decay_modes
    assert out.count("(the default)") == (info.decay != "none")


def test_show_says_what_the_state_costs(printed) -> None:
    lines = {
        "lion": "exp_avg; 4 bytes for",
        "adam": "(with amsgrad); 8 bytes for",
        "amsgrad": "; 12 bytes for",
        "sgd": "; 0 ",
    }
    for name, said in lines.items():
        (line,) = [line for line in printed("show", name).splitlines() if line.startswith("state of each parameter")]
        assert said in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "adm"], "no optimizer matches 'adm'. Did you mean 'adam'?"),
        (["show", "admw"], "there is no optimizer 'admw'. Did you mean 'adamw'?"),
    ],
    ids=["list", "show"],
)
def test_refusals(refused, arguments, message) -> None:
    assert message in refused(*arguments)


@pytest.mark.parametrize("arguments", [["list"], ["show", "adamw"]], ids=" ".join)
def test_they_load_no_torch(run_python, arguments) -> None:
    code = "import sys; from lightning_optim.cli import main; main(sys.argv[1:]); print(sorted(sys.modules))"
    loaded = run_python(code, *arguments).splitlines()[-1]
    assert "'lightning_optim.cli.list_and_show'" in loaded
    assert not any(f"'{name}'" in loaded for name in ("torch", "lightning", "hydra", "omegaconf"))


def test_it_runs_as_a_module(run_python) -> None:
    code = "import runpy; runpy.run_module('lightning_optim.cli', run_name='__main__', alter_sys=True)"
    assert " lion " in run_python(code, "list", "lion")
