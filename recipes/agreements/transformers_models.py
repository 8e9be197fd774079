"""The models of transformers, one for each configuration, and what its Trainer exempts from weight decay."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator

import torch
import transformers
from torch import nn
from transformers import CONFIG_MAPPING, Trainer
from transformers.models.auto import modeling_auto as auto

from .differences import Difference, Reason
from .library import Library

# The first that has the configuration and can build it counts. Those with a language-model head come first, and of
# these those that also have an encoder.
_CLASSES = (
    (auto.AutoModelForSeq2SeqLM, auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES),
    (auto.AutoModelForSpeechSeq2Seq, auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES),
    (auto.AutoModelForMultimodalLM, auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES),
    (auto.AutoModelForCausalLM, auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
    (auto.AutoModelForMaskedLM, auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES),
    (auto.AutoModelForPreTraining, auto.MODEL_FOR_PRETRAINING_MAPPING_NAMES),
    (auto.AutoModel, auto.MODEL_MAPPING_NAMES),
)


def build(model_type: str) -> nn.Module:
    """A model of the default configuration of a model type, such as `bert`, on the meta device."""
    with _silent():
        config = CONFIG_MAPPING[model_type]()
    classes = [cls for cls, names in _CLASSES if model_type in names]
    assert classes, model_type
    for cls in classes:
        try:
            with _silent(), torch.device("meta"):
                model: nn.Module = cls.from_config(config)
            return model
        except Exception:
            if cls is classes[-1]:
                raise
    raise AssertionError


def no_decay(model: nn.Module) -> set[str]:
    """The names of the parameters that transformers' Trainer exempts from weight decay."""
    decay = Trainer.get_decay_parameter_names(None, model)  # the method uses the model only
    return {name for name, _ in model.named_parameters(remove_duplicate=False)} - set(decay)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Hide what transformers warns about and prints when it builds a default configuration and its model."""
    verbosity = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.utils.logging.set_verbosity(verbosity)


_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)
_MATRIX_LAYERS = (nn.Linear, nn.modules.conv._ConvNd)
_NORM_CLASS = re.compile(r"Norm(?!al)|GRN")  # of transformers and timm


def _is_norm(difference: Difference) -> bool:
    is_flat = sum(size > 1 for size in difference.shape) <= 1
    is_norm = issubclass(difference.owner, _NORMS) or _NORM_CLASS.search(difference.owner.__name__)
    return is_flat and bool(is_norm)


def _is_in_norm(difference: Difference) -> bool:
    """Whether a module's name, not the parameter's, contains what the Trainer's patterns look for."""
    return bool(re.search("bias|norm", difference.name.rpartition(".")[0].lower()))


REASONS = (
    Reason(
        text="ours only: a norm layer whose name the patterns miss (`norm1`, `bn1`, `normalization`, `0`)",
        applies=lambda d: d.is_ours and _is_norm(d),
        is_missed_norm=True,
    ),
    Reason(
        text="ours only: in a timm model inside the model, what timm exempts: its `no_weight_decay()` and every vector",
        applies=lambda d: d.is_ours and d.is_exempt_in_timm,
    ),
    Reason(
        text="theirs only: a matrix of a linear layer or convolution in a module whose name contains `norm` or `bias`",
        applies=lambda d: not d.is_ours and issubclass(d.owner, _MATRIX_LAYERS) and len(d.shape) > 1 and _is_in_norm(d),
    ),
    Reason(
        text="theirs only: an embedding in a module whose name contains `norm`",
        applies=lambda d: not d.is_ours and issubclass(d.owner, nn.Embedding) and _is_in_norm(d),
    ),
    Reason(
        text="theirs only: a scalar whose name contains `bias`, but that is not a bias",
        applies=lambda d: not d.is_ours and not d.shape and "bias_" in d.name.rpartition(".")[2],
    ),
)

TRANSFORMERS = Library(
    name="transformers",
    version=transformers.__version__,
    models=sorted(auto.MODEL_MAPPING_NAMES),
    build=build,
    no_decay=no_decay,
    reasons=REASONS,
)
