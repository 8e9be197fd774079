"""What is found in a checkpoint file, and how one without optimizers or with unsafe content is refused."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory
from lightning_optim.cli.checkpoint_reader import read
from tests.support.checkpoints import group, momentum, saved, state_dict
from tests.support.user_environments import QUIET, batches, trainer

NAMES = ("net.weight", "net.bias", "head.weight", "head.bias")


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        (state_dict(), ["optimizer"]),
        ({"epoch": 3, "optimizer_state_dict": state_dict(), "model": {}}, ["optimizer_state_dict"]),
        ({"optimizer_states": [state_dict(), state_dict()]}, ["optimizer_states[0]", "optimizer_states[1]"]),
        ({"optimizers": {"g": state_dict(), "d": state_dict()}}, ["optimizers.g", "optimizers.d"]),
        ([state_dict()], ["[0]"]),
    ],
    ids=["plain", "under a key", "Lightning's", "by name", "a list"],
)
@pytest.mark.parametrize("archive", [True, False], ids=["archive", "before torch 1.6"])
def test_every_place_an_optimizer_is_saved_at(tmp_path: Path, content, keys, archive) -> None:
    path = tmp_path / "file"
    torch.save(content, path, _use_new_zipfile_serialization=archive)
    found = read(path)
    assert [optimizer.key for optimizer in found] == keys
    for optimizer in found:
        assert optimizer.named
        assert [(each.name, each.params) for each in optimizer.groups] == [("default", NAMES[:2]), ("head", NAMES[2:])]
        assert set(optimizer.state) == {"net.weight", "net.bias", "head.bias"}
        assert torch.equal(optimizer.state["net.weight"]["exp_avg"], torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
        assert optimizer.groups[0].hyperparameters == {"lr": 0.1, "weight_decay": 0.01, "betas": (0.9, 0.999)}


def test_an_archive_is_mapped_and_not_read(tmp_path: Path, monkeypatch) -> None:
    given = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: given.append(kwargs) or load(*args, **kwargs))
    read(saved(tmp_path, state_dict()))
    assert given == [{"map_location": "cpu", "weights_only": True, "mmap": True}]


class Net(LightningModule):
    def __init__(self, optimizer: OptimizerFactory) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.head = nn.Linear(4, 2)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.head(batch[0]), batch[1])

    def configure_optimizers(self):
        return self.hparams.optimizer(self)


@pytest.mark.filterwarnings(*(mark.args[0] for mark in QUIET))
def test_lightnings_own_checkpoint_with_our_factory_in_it(tmp_path: Path) -> None:
    training = trainer(tmp_path, enable_checkpointing=False)
    training.fit(Net(OptimizerFactory("adamw")), batches())
    training.save_checkpoint(tmp_path / "last.ckpt")
    (optimizer,) = read(tmp_path / "last.ckpt")
    assert optimizer.params == ("head.weight", "head.bias")
    live = training.optimizers[0].state[training.model.head.weight]["exp_avg"]
    assert torch.equal(optimizer.state["head.weight"]["exp_avg"], live)


def read_groups(folder: Path, *groups: dict[str, Any], state: dict[Any, Any] | None = None) -> Any:
    (optimizer,) = read(saved(folder, {"state": state or {}, "param_groups": list(groups)}))
    return optimizer


def test_parameters_and_groups_without_names_are_called_by_place(tmp_path: Path) -> None:
    found = read_groups(tmp_path, group(None, [0], None), group(None, [1, 2], None), state={2: momentum(1.0)})
    assert not found.named
    assert [(each.name, each.params) for each in found.groups] == [
        ("default", ("param 0",)),
        ("group1", ("param 1", "param 2")),
    ]
    assert list(found.state) == ["param 2"]


def test_a_state_by_names_as_fsdp_gathers_it(tmp_path: Path) -> None:
    found = read_groups(tmp_path, group(None, ["a.weight", "a.bias"], None), state={"a.bias": momentum(1.0)})
    assert found.named and found.params == ("a.weight", "a.bias") and list(found.state) == ["a.bias"]


def test_names_that_are_repeated_stay_apart(tmp_path: Path) -> None:
    state = {0: momentum(1.0), 1: momentum(2.0)}
    found = read_groups(tmp_path, group("x", [0], ["weight"]), group("x", [1], ["weight"]), state=state)
    assert [(each.name, each.params) for each in found.groups] == [("x", ("weight",)), ("x (1)", ("weight (2)",))]
    assert float(found.state["weight (2)"]["exp_avg"]) == 2.0


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "before torch 1.6"])
def test_what_torch_does_not_load_safely_is_named_and_never_loaded(tmp_path: Path, archive) -> None:
    content = {"optimizer_states": [state_dict()], "hyper_parameters": functools.partial(print)}
    torch.save(content, tmp_path / "file", _use_new_zipfile_serialization=archive)
    message = refused(tmp_path / "file")
    assert "functools.partial" in message and "weights_only=False" in message and "Only if you trust it" in message


def test_what_it_says_to_type_then_works(tmp_path: Path, monkeypatch, run_python) -> None:
    path = saved(tmp_path, {"optimizer_states": [state_dict()], "hyper_parameters": functools.partial(print)})
    (code,) = [part for part in refused(path).split('"') if part.startswith("import torch")]
    monkeypatch.chdir(tmp_path)
    run_python(code)
    assert [optimizer.key for optimizer in read(tmp_path / "optimizers.pt")] == ["[0]"]


def test_files_that_are_none_of_torchs(tmp_path: Path) -> None:
    for name, content in {"text": b"epoch: 3\n", "empty": b"", "cut": b"PK\x03\x04 and no more"}.items():
        (tmp_path / name).write_bytes(content)
        message = refused(tmp_path / name)
        assert "torch cannot load it: " in message and "inspect takes a Lightning checkpoint" in message
        assert "weights_only" not in message


def test_a_missing_file(tmp_path: Path) -> None:
    assert "there is no such file" in refused(tmp_path / "nowhere.ckpt")


def test_a_folder_names_the_files_in_it(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").touch()
    assert refused(tmp_path).endswith("In it: last.ckpt")


def test_a_sharded_checkpoint_is_consolidated_first(tmp_path: Path) -> None:
    (tmp_path / ".metadata").touch()
    command = f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {tmp_path} FILE"
    assert command in refused(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"state_dict": {"weight": torch.zeros(1)}, "epoch": 1}, "Its keys are: state_dict, epoch."),
        ({"optimizer_states": [], "epoch": 1}, "Its keys are: optimizer_states, epoch."),
        (torch.zeros(2), "It is a Tensor."),
    ],
    ids=["weights only", "no optimizer", "a tensor"],
)
def test_a_file_without_optimizers_says_what_there_is(tmp_path: Path, content, said) -> None:
    message = refused(saved(tmp_path, content))
    assert said in message and "optimizer.state_dict()" in message
