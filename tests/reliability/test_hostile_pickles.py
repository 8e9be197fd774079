"""Pickles that call functions or import modules: nothing of ours that reads a checkpoint executes them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from lightning_optim import ConfigError, OptimizerFactory, RNGState, StagedUnfreeze, configure_optimizers
from lightning_optim.callbacks.lightning_internals import callback_state
from lightning_optim.cli import main
from lightning_optim.cli.checkpoint_reader import read_checkpoint
from recipes.checkpoints import read_phase_and_step
from tests.support.checkpointed_runs import RUNS, FactoryNet, save_checkpoint
from tests.support.damaged_files import write_hostile_pickles
from tests.support.hostile_targets import MARK, MODULE, hostile_targets, write_hostile_files
from tests.support.training import Net, fit


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Path]]:
    """The files; their module can be imported."""
    monkeypatch.syspath_prepend(tmp_path)
    yield write_hostile_pickles(tmp_path)
    sys.modules.pop(MODULE, None)


def resume(path: Path) -> Any:
    module = Net(lambda module: configure_optimizers(module, OptimizerFactory("adamw", lr=0.1)))
    fit(module, path.parent / "runs", StagedUnfreeze({"whole": {"params": "*"}}), RNGState(), epochs=1, ckpt_path=path)


def evaluate(path: Path) -> Any:
    class Tested(Net):
        def test_step(self, batch: Any, batch_idx: int) -> None:
            raise AssertionError

    trainer = Trainer(accelerator="cpu", logger=False, callbacks=[RNGState()], enable_progress_bar=False)
    trainer.test(Tested(lambda module: None), [(torch.zeros(1, 4), torch.zeros(1))], ckpt_path=path, verbose=False)


READERS: dict[str, Callable[[Path], Any]] = {
    "inspect": read_checkpoint,
    "inspect --no-verify": lambda path: read_checkpoint(path, verify=False),
    "resume": resume,
    "evaluate": evaluate,
    "recipe": lambda path: read_phase_and_step(str(path), {}),
}


@pytest.mark.parametrize("reader", READERS)
def test_none_is_executed(hostile, reader, tmp_path) -> None:
    assert len(hostile) >= 24
    for name, path in hostile.items():
        with pytest.raises(ConfigError) as caught:
            READERS[reader](path)
        message = str(caught.value)
        assert "weights_only=False" not in message and "\n" not in message and path.name in message, name
        assert caught.value.__cause__ is None or isinstance(caught.value.__cause__, ConfigError), name
        assert not (tmp_path / MARK).exists() and MODULE not in sys.modules, name


def test_the_command_says_what_it_refuses(hostile, capsys, tmp_path) -> None:
    assert main(["inspect", str(hostile["exec"])]) == 2
    out, err = capsys.readouterr()
    assert not out and "refuses builtins.exec in it" in err.replace("__builtin__", "builtins")
    assert not (tmp_path / MARK).exists()


def test_a_callback_s_state_is_read_without_executing_anything(hostile, tmp_path) -> None:
    for path in hostile.values():
        with pytest.raises(Exception):  # noqa: B017, PT011
            callback_state(path, "StagedUnfreeze", None)
    assert not (tmp_path / MARK).exists() and MODULE not in sys.modules


@pytest.mark.parametrize("every_nth", [pytest.param(3, marks=pytest.mark.slow), 20])
def test_no_target_in_a_checkpoint_is_followed(every_nth, tmp_path, monkeypatch) -> None:
    """In the hyperparameters, where a factory should be: as Hydra and as LightningCLI write what is to be called."""
    write_hostile_files(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    run = RUNS["factories in the hyperparameters"]
    content = torch.load(save_checkpoint(run, tmp_path / "run"))
    path = tmp_path / "hostile.ckpt"
    for target in list(hostile_targets(tmp_path))[::every_nth]:
        arguments = {key: value for key, value in target.items() if not key.startswith("_")}
        as_class_path = {"class_path": target["_target_"], "init_args": arguments}
        for key, node in (("optimizer", target), ("scheduler", as_class_path)):
            torch.save({**content, "hyper_parameters": {**content["hyper_parameters"], key: node}}, path)
            with pytest.raises(ConfigError):
                FactoryNet.load_from_checkpoint(path).configure_optimizers()
            assert not (tmp_path / MARK).exists() and MODULE not in sys.modules, node


@pytest.mark.parametrize("name", ["exec", "os.mkdir", "a handwritten call", "an import"])
def test_each_leaves_its_mark_where_it_is_executed(hostile, tmp_path, name) -> None:
    """The canary can sing: else the tests above would prove nothing."""
    with suppress(Exception):  # what the calls return is no checkpoint
        torch.load(hostile[name], weights_only=False)
    assert (tmp_path / MARK).exists()
