"""Flipped bits, truncated and wrong files, wrong contents: refused by the file's name, or the values are unchanged."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from lightning_optim import (
    ConfigError,
    OptimizerMonitor,
    OptimizerOverride,
    RNGState,
    StagedUnfreeze,
)
from lightning_optim.cli import main
from lightning_optim.cli.checkpoint_reader import read_checkpoint
from tests.support.damaged_files import flip_bits, write_wrong_files, wrong_contents
from tests.support.damaged_runs import FACTORY, PLAN, as_data, build_net, inspect, resume, write_checkpoint
from tests.support.equality import equal
from tests.support.training import Net, fit

NUM_FLIPS = 300


WRONG_FILES = {
    "empty": "the file is empty",
    **dict.fromkeys(
        ("text", "zeros", "a zip file's end alone", "a pickle", "an image"), "this is no checkpoint: torch"
    ),
    "bytes before the archive": "does not begin with the first entry",
    "two checkpoints in one file": "does not begin with the first entry",
    "a pipe without a writer": "this is no regular file",
    "a device without an end": "this is no regular file",
    "torch before 1.6": "torch before 1.6, which has no checksums",
    "a compressed entry": "is compressed or encrypted in the archive",
    "entries that overlap": "in the archive is wrong",
    "an entry of a size that the file does not have": "in the archive is wrong",
    "two entries of one name": "two entries of the archive have one name",
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a real run in stages, after both have thawed."""
    folder = tmp_path_factory.mktemp("run")
    return write_checkpoint(folder)


def refused(path: Path, read: Callable[[Path], Any]) -> str:
    """The message with which a file is refused: one line, which names the file and advises nothing unsafe."""
    with pytest.raises(ConfigError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and "weights_only=False" not in message, message
    assert caught.value.__suppress_context__ or not isinstance(caught.value.__context__, ConfigError)
    return message


def num_changed(path: Path, content: bytes, number: int, read: Callable[[Path], Any], expected: Any) -> tuple[int, int]:
    """How many of the flips are refused, and how many load other values: this must be 0."""
    num_refused, wrong = 0, []
    for byte, bit, changed in flip_bits(content, number):
        path.write_bytes(changed)
        try:
            found = read(path)
        except ConfigError as error:
            num_refused += 1
            is_right = str(error).startswith(f"{path}: ") and "\n" not in str(error)
        else:
            is_right = equal(found, expected)
        if not is_right:
            wrong.append((byte, bit))
    assert wrong == []
    return num_refused, number - num_refused


@pytest.mark.parametrize("number", [40, pytest.param(NUM_FLIPS, marks=pytest.mark.slow)])
def test_a_flipped_bit_is_refused_by_inspect_or_changes_nothing(checkpoint, tmp_path, number) -> None:
    expected = as_data(read_checkpoint(checkpoint))
    counts = num_changed(
        tmp_path / "flip.ckpt", checkpoint.read_bytes(), number, lambda path: as_data(read_checkpoint(path)), expected
    )
    assert min(counts) > 0, counts


@pytest.mark.parametrize("number", [24, pytest.param(NUM_FLIPS, marks=pytest.mark.slow)])
def test_a_flipped_bit_is_refused_by_resume_or_changes_nothing(checkpoint, tmp_path, number) -> None:
    counts = num_changed(tmp_path / "flip.ckpt", checkpoint.read_bytes(), number, resume, resume(checkpoint))
    assert min(counts) > 0, counts


@pytest.mark.parametrize("read", [inspect, resume])
def test_ten_truncations_are_refused(checkpoint, tmp_path, read) -> None:
    content = checkpoint.read_bytes()
    for tenth in range(10):
        path = tmp_path / "cut.ckpt"
        path.write_bytes(content[: len(content) * tenth // 10 + (tenth == 9)])
        message = refused(path, read)
        assert "the file is truncated" in message or (tenth == 0 and "the file is empty" in message)


@pytest.mark.parametrize("read", [inspect, resume])
def test_what_is_no_checkpoint_file_is_refused_at_once(checkpoint, tmp_path, read) -> None:
    paths = write_wrong_files(tmp_path, checkpoint)
    assert paths.keys() == WRONG_FILES.keys()
    for name, path in paths.items():
        assert WRONG_FILES[name] in refused(path, read), name


@pytest.mark.parametrize("is_fast", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["a few", "all"])
@pytest.mark.parametrize("read", [inspect, resume])
def test_wrong_contents_are_refused(checkpoint, tmp_path, read, is_fast) -> None:
    cases = list(wrong_contents(torch.load(checkpoint)).items())
    for index, (name, content) in enumerate(cases[::9] if is_fast else cases):
        path = tmp_path / f"{index}.ckpt"
        torch.save(content, path)
        try:
            message = refused(path, read)
        except BaseException as error:
            raise AssertionError(name) from error
        assert "optimizer_states" in message, (name, message)


@pytest.mark.parametrize("content", [[1], 3, torch.zeros(2), {"state_dict": {}}, {}], ids=repr)
def test_what_is_no_lightning_checkpoint_is_not_resumed(tmp_path, content) -> None:
    torch.save(content, tmp_path / "other.ckpt")
    assert "this is no checkpoint of Lightning" in refused(tmp_path / "other.ckpt", resume)


@pytest.mark.parametrize("key", ["state_dict", "lr_schedulers", "callbacks", "loops", "epoch", "global_step"])
def test_wrong_types_beside_the_optimizers_are_refused(checkpoint, tmp_path, key) -> None:
    torch.save({**torch.load(checkpoint), key: "text"}, tmp_path / "wrong.ckpt")
    assert f"{key}: must be" in refused(tmp_path / "wrong.ckpt", resume)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("betas", "x", "the checkpoint's betas of param group 'backbone' is a value of type str"),
        ("eps", {}, "the checkpoint's eps of param group"),
        ("amsgrad", 3, "the checkpoint's amsgrad of param group"),
        ("exp_avg", 3, "the checkpoint's exp_avg of .* is a int, not a tensor"),
        ("exp_avg_sq", None, "has no exp_avg_sq"),
    ],
)
def test_a_value_that_would_fail_in_the_first_step_is_refused_before_it(
    checkpoint, tmp_path, key, value, message
) -> None:
    content = torch.load(checkpoint)
    optimizer = content["optimizer_states"][0]
    (optimizer["state"][0] if key.startswith("exp") else optimizer["param_groups"][0])[key] = value
    torch.save(content, tmp_path / "wrong.ckpt")
    with pytest.raises(ConfigError, match=message.replace("'backbone'", ".*")):
        resume(tmp_path / "wrong.ckpt")


@pytest.mark.parametrize("name", ["StagedUnfreeze", "RNGState"])
@pytest.mark.parametrize("value", [{"a": 1}, {"ranks": [3], "plateaus": 3}], ids=str)
def test_wrong_states_of_our_callbacks_are_refused(checkpoint, tmp_path, name, value) -> None:
    content = torch.load(checkpoint)
    content["callbacks"][name] = value
    torch.save(content, tmp_path / "wrong.ckpt")
    message = rf"callbacks\.{name}: (the checkpoint's state of this callback|state: the checkpoint has a, which)"
    with pytest.raises(ConfigError, match=message):
        resume(tmp_path / "wrong.ckpt")


@pytest.mark.parametrize(
    "path", [("epoch_progress", "total"), ("epoch_loop.batch_progress",), ("state_dict",)], ids=str
)
def test_wrong_counts_of_loops_are_refused(checkpoint, tmp_path, path) -> None:
    content = torch.load(checkpoint)
    *parents, last = path
    loop = content["loops"]["fit_loop"]
    for key in parents:
        loop = loop[key]
    loop[last] = "text"
    torch.save(content, tmp_path / "wrong.ckpt")
    assert f"loops.fit_loop: {'.'.join(path)}: must be a dict" in refused(tmp_path / "wrong.ckpt", resume)


def test_a_weight_without_data_is_refused(checkpoint, tmp_path) -> None:
    content = torch.load(checkpoint)
    content["state_dict"]["head.weight"] = torch.zeros(3, 8, device="meta")
    torch.save(content, tmp_path / "meta.ckpt")
    assert "state_dict.head.weight: the tensor has no data" in refused(tmp_path / "meta.ckpt", resume)


def flip_weight(checkpoint: Path, path: Path) -> None:
    """Flips a bit of a weight, in a file that torch loads without a word."""
    content = bytearray(checkpoint.read_bytes())
    weight = torch.load(checkpoint)["state_dict"]["head.weight"]
    content[content.index(weight.numpy().tobytes())] ^= 1
    path.write_bytes(content)
    assert not torch.equal(torch.load(path)["state_dict"]["head.weight"], weight)


@pytest.mark.parametrize(
    "callback",
    [
        lambda **options: StagedUnfreeze(PLAN, **options),
        lambda **options: OptimizerMonitor(**options, to_callback_metrics=True),
        lambda **options: OptimizerOverride(FACTORY, **options),
        RNGState,
    ],
    ids=["stages", "monitor", "override", "rng"],
)
def test_each_callback_checks_and_a_key_turns_it_off(checkpoint, tmp_path, callback) -> None:
    path = tmp_path / "flip.ckpt"
    flip_weight(checkpoint, path)
    staged = [] if isinstance(callback(), StagedUnfreeze) else [StagedUnfreeze(PLAN)]
    with pytest.raises(ConfigError, match=r"flip\.ckpt: the file is damaged: .* does not have the checksum"):
        fit(build_net(), tmp_path, callback(), epochs=2, ckpt_path=path)
    off = callback(verify_checkpoints=False)
    assert "verify_checkpoints=False" in repr(off) or isinstance(off, RNGState)
    resume(path, off, *staged)
    with pytest.raises(ConfigError, match="verify_checkpoints"):
        callback(verify_checkpoints="text")


def test_evaluation_checks_too(checkpoint, tmp_path) -> None:
    path = tmp_path / "flip.ckpt"
    flip_weight(checkpoint, path)

    class Tested(Net):
        def test_step(self, batch: Any, batch_idx: int) -> None:
            raise AssertionError

    trainer = Trainer(accelerator="cpu", logger=False, callbacks=[RNGState()], enable_progress_bar=False)
    with pytest.raises(ConfigError, match=r"flip\.ckpt: the file is damaged"):
        trainer.test(
            Tested(lambda module: None), [(torch.zeros(1, 4), torch.zeros(1))], ckpt_path=path, weights_only=True
        )


def test_the_trainer_has_its_own_methods_back(checkpoint, tmp_path) -> None:
    for path in (checkpoint, tmp_path / "flip.ckpt"):
        flip_weight(checkpoint, tmp_path / "flip.ckpt")
        trainers: list[Trainer] = []

        class Remember(Callback):
            def setup(self, trainer: Trainer, pl_module: Any, stage: str, trainers: list[Trainer] = trainers) -> None:
                assert "resume_start" in vars(trainer._checkpoint_connector)
                trainers.append(trainer)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if path is checkpoint:
                fit(build_net(), tmp_path, StagedUnfreeze(PLAN), RNGState(), Remember(), epochs=2, ckpt_path=path)
            else:
                with pytest.raises(ConfigError, match="damaged"):
                    fit(build_net(), tmp_path, StagedUnfreeze(PLAN), RNGState(), Remember(), epochs=2, ckpt_path=path)
        assert "resume_start" not in vars(trainers[0]._checkpoint_connector)
        assert "load_checkpoint" not in vars(trainers[0].strategy)


def test_a_state_dict_of_wrong_types_is_refused_without_a_trainer(checkpoint) -> None:
    net = build_net()
    for name, content in wrong_contents(torch.load(checkpoint)).items():
        if not isinstance(states := content["optimizer_states"], list) or not isinstance(states[0], dict):
            continue
        optimizer = FACTORY(net)
        try:
            optimizer.load_state_dict(states[0])
        except ConfigError as error:
            message = str(error)
        else:
            message = "loaded"
        assert message.startswith("the checkpoint's optimizer: "), (name, message)


def test_no_control_character_of_a_file_reaches_the_terminal(checkpoint, tmp_path, capsys) -> None:
    hostile = "\x1b[2J\x1b]0;owned\x07\u202ename\nlightning-optim: all is well"
    content = torch.load(checkpoint)
    group = content["optimizer_states"][0]["param_groups"][0]
    group["name"], group["algorithm"], group["param_names"][0] = hostile, hostile, hostile
    state = content["optimizer_states"][0]["state"]
    state[group["params"][0]] |= {hostile: torch.full((2,), float("nan"))}
    group[hostile] = hostile
    torch.save(content, tmp_path / "first.ckpt")
    group[hostile] = state[group["params"][0]][hostile] = 1
    torch.save(content, tmp_path / "second.ckpt")
    group["params"] = {hostile: 1}
    torch.save(content, tmp_path / f"third{hostile[:9]}.ckpt")
    torch.save({hostile: 1}, tmp_path / "fourth.ckpt")
    first, second = str(tmp_path / "first.ckpt"), str(tmp_path / "second.ckpt")
    runs = [[first], [first, second], [str(tmp_path / f"third{hostile[:9]}.ckpt")], [str(tmp_path / "fourth.ckpt")]]
    for arguments in (*runs, [first, "--json"]):
        main(["inspect", *arguments])
        out, err = capsys.readouterr()
        printed = out + err
        assert "\x1b" not in printed and "\x07" not in printed and "\u202e" not in printed
        assert not any(line.startswith("lightning-optim: all") for line in printed.splitlines())


@pytest.mark.parametrize("read", [inspect, resume])
def test_an_entry_that_is_marked_as_a_folder_is_refused(checkpoint, tmp_path, read) -> None:
    """torch would read it as whatever the memory holds: the one bit that no checksum covers."""
    content = bytearray(checkpoint.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 38] ^= 0x10
    (tmp_path / "folder.ckpt").write_bytes(content)
    assert "is marked as a folder" in refused(tmp_path / "folder.ckpt", read)
