"""Optimizers are found wherever a checkpoint file holds them; a file without them or with unsafe content is refused."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory
from lightning_optim.cli.checkpoint_reader import read_checkpoint
from tests.support.checkpoints import momentum_state, param_group, save, state_dict
from tests.support.short_runs import IGNORED_WARNINGS, build_loader, build_trainer

NAMES = ("net.weight", "net.bias", "head.weight", "head.bias")
FORMATS = pytest.mark.parametrize("is_archive", [True, False], ids=["archive", "before torch 1.6"])


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        (state_dict(), ["optimizer"]),
        ({"epoch": 3, "optimizer_state_dict": state_dict(), "model": {}}, ["optimizer_state_dict"]),
        ({"optimizer_states": [state_dict(), state_dict()]}, ["optimizer_states[0]", "optimizer_states[1]"]),
        ({"optimizers": {"g": state_dict(), "d": state_dict()}}, ["optimizers.g", "optimizers.d"]),
        ([state_dict()], ["[0]"]),
    ],
    ids=["state dict", "under a key", "Lightning", "dict of optimizers", "list"],
)
@FORMATS
def test_optimizers_are_found_wherever_they_are_saved(tmp_path: Path, content, keys, is_archive) -> None:
    path = tmp_path / "file"
    torch.save(content, path, _use_new_zipfile_serialization=is_archive)
    found = read_checkpoint(path, verify=is_archive)
    assert [optimizer.key for optimizer in found] == keys
    for optimizer in found:
        assert optimizer.has_names
        groups = [(group.name, group.params) for group in optimizer.groups]
        assert groups == [("default", NAMES[:2]), ("head", NAMES[2:])]
        assert set(optimizer.state) == {"net.weight", "net.bias", "head.bias"}
        assert torch.equal(optimizer.state["net.weight"]["exp_avg"], torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
        assert optimizer.groups[0].hyperparameters == {"lr": 0.1, "weight_decay": 0.01, "betas": (0.9, 0.999)}


def test_an_archive_is_memory_mapped(tmp_path: Path, monkeypatch) -> None:
    calls = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: calls.append(kwargs) or load(*args, **kwargs))
    read_checkpoint(save(tmp_path, state_dict()))
    assert calls == [{"map_location": "cpu", "weights_only": True, "mmap": True}]


class Net(LightningModule):
    def __init__(self, optimizer: OptimizerFactory) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.head = nn.Linear(4, 2)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.head(batch[0]), batch[1])

    def configure_optimizers(self):
        return self.hparams.optimizer(self)


@pytest.mark.filterwarnings(*(mark.args[0] for mark in IGNORED_WARNINGS))
def test_a_lightning_checkpoint_that_contains_a_factory_is_read(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path, enable_checkpointing=False)
    trainer.fit(Net(OptimizerFactory("adamw")), build_loader())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    (optimizer,) = read_checkpoint(tmp_path / "last.ckpt")
    assert optimizer.params == ("head.weight", "head.bias")
    live = trainer.optimizers[0].state[trainer.model.head.weight]["exp_avg"]
    assert torch.equal(optimizer.state["head.weight"]["exp_avg"], live)


def read_groups(folder: Path, *groups: dict[str, Any], state: dict[Any, Any] | None = None) -> Any:
    (optimizer,) = read_checkpoint(save(folder, {"state": state or {}, "param_groups": list(groups)}))
    return optimizer


def test_parameters_and_groups_without_names_are_named_by_position(tmp_path: Path) -> None:
    groups = param_group(None, [0], None), param_group(None, [1, 2], None)
    found = read_groups(tmp_path, *groups, state={2: momentum_state(1.0)})
    assert not found.has_names
    assert [(group.name, group.params) for group in found.groups] == [
        ("default", ("param 0",)),
        ("group1", ("param 1", "param 2")),
    ]
    assert list(found.state) == ["param 2"]


def test_a_state_keyed_by_names_is_read_as_fsdp_gathers_it(tmp_path: Path) -> None:
    group = param_group(None, ["a.weight", "a.bias"], None)
    found = read_groups(tmp_path, group, state={"a.bias": momentum_state(1.0)})
    assert found.has_names and found.params == ("a.weight", "a.bias") and list(found.state) == ["a.bias"]


def test_repeated_names_are_told_apart(tmp_path: Path) -> None:
    groups = param_group("x", [0], ["weight"]), param_group("x", [1], ["weight"])
    found = read_groups(tmp_path, *groups, state={0: momentum_state(1.0), 1: momentum_state(2.0)})
    assert [(group.name, group.params) for group in found.groups] == [("x", ("weight",)), ("x (1)", ("weight (2)",))]
    assert float(found.state["weight (2)"]["exp_avg"]) == 2.0


def test_the_copy_of_configured_values_is_not_a_hyperparameter(tmp_path: Path) -> None:
    found = read_groups(tmp_path, param_group("x", [0], ["weight"], lr=0.1, peak_lr=0.1, configured={"lr": 0.1}))
    assert found.groups[0].hyperparameters == {"lr": 0.1, "peak_lr": 0.1}


def read_error(path: Path, *, verify: bool = True) -> str:
    """The message with which a file is refused."""
    with pytest.raises(ConfigError) as caught:
        read_checkpoint(path, verify=verify)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


@FORMATS
def test_unsafe_content_is_named_and_not_loaded(tmp_path: Path, is_archive) -> None:
    content = {"optimizer_states": [state_dict()], "hyper_parameters": functools.partial(print)}
    torch.save(content, tmp_path / "file", _use_new_zipfile_serialization=is_archive)
    message = read_error(tmp_path / "file", verify=is_archive)
    assert "functools.partial" in message and "Save plain containers in its place" in message
    assert "save_hyperparameters(ignore=" in message
    assert "only if you trust the file" in message and "add_safe_globals" in message
    assert "weights_only=False" not in message


def test_a_file_without_checksums_is_read_only_on_demand(tmp_path: Path) -> None:
    torch.save([state_dict()], tmp_path / "file", _use_new_zipfile_serialization=False)
    message = read_error(tmp_path / "file")
    assert "torch before 1.6, which has no checksums" in message and message.endswith("add --no-verify")
    assert read_checkpoint(tmp_path / "file", verify=False)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"epoch: 3\n", "this is no checkpoint"),
        (b"", "the file is empty"),
        (b"PK\x03\x04 and no more", "the file is truncated or damaged"),
    ],
    ids=["text", "empty", "truncated archive"],
)
def test_a_file_in_another_format_is_refused(tmp_path: Path, content, expected) -> None:
    (tmp_path / "file").write_bytes(content)
    assert expected in read_error(tmp_path / "file")
    message = read_error(tmp_path / "file", verify=False)
    assert "weights_only" not in message
    assert "the file is empty" in message if not content else "torch cannot load it: " in message


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "there is no such file" in read_error(tmp_path / "nowhere.ckpt")


def test_a_folder_is_refused_with_the_files_in_it(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").touch()
    assert read_error(tmp_path).endswith("In it: last.ckpt")


def test_a_sharded_checkpoint_is_refused_with_the_command_that_consolidates_it(tmp_path: Path) -> None:
    (tmp_path / ".metadata").touch()
    command = f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {tmp_path} FILE"
    assert command in read_error(tmp_path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"state_dict": {"weight": torch.zeros(1)}, "epoch": 1}, "Its keys are: state_dict, epoch."),
        ({"optimizer_states": [], "epoch": 1}, "Its keys are: optimizer_states, epoch."),
        (torch.zeros(2), "It is a Tensor."),
    ],
    ids=["weights only", "no optimizer", "tensor"],
)
def test_a_file_without_optimizers_is_refused_with_what_it_has(tmp_path: Path, content, expected) -> None:
    message = read_error(save(tmp_path, content))
    assert expected in message and "optimizer.state_dict()" in message
