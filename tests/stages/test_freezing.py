"""Freezing: gradients are dropped, and the layers of a frozen part stay in evaluation mode until they are released."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from lightning_optim.stages.freezing import EvalModeLock, find_frozen_layers, set_trainable


class Net(nn.Module):
    """Two blocks of a matrix, a norm and layers without parameters; a dropout outside both."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
        self.body = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, affine=False), nn.LayerNorm(2), nn.Dropout())
        self.attention = nn.MultiheadAttention(2, 1)
        self.dropout = nn.Dropout()


def params(net: nn.Module, *modules: str) -> set[str]:
    return {name for name, _ in net.named_parameters() if name.startswith(modules)}


def test_set_trainable_drops_the_gradients_of_frozen_parameters() -> None:
    frozen, trained = (nn.Parameter(torch.ones(1)) for _ in range(2))
    for parameter in (frozen, trained):
        parameter.grad = torch.ones(1)
    set_trainable([frozen], False)
    set_trainable([trained], True)
    assert (frozen.requires_grad, frozen.grad) == (False, None)
    assert trained.requires_grad and trained.grad is not None


@pytest.mark.parametrize(
    ("frozen", "norms", "dropouts"),
    [
        (("stem",), ["stem.1"], ["stem.2"]),
        (("body",), ["body.1"], ["body.3"]),
        (("stem.0",), [], []),
        (("stem.1",), ["stem.1"], []),
        (("attention",), [], ["attention"]),
        (("stem", "body", "attention"), ["stem.1", "body.1"], ["stem.2", "body.3", "attention", "dropout"]),
        ((), [], []),
    ],
    ids=["with parameters", "norm without parameters", "half a block", "norm alone", "attention", "all", "none"],
)
def test_layers_are_frozen_with_the_innermost_module_that_has_parameters(frozen, norms, dropouts) -> None:
    net = Net()
    names = {id(module): name for name, module in net.named_modules()}
    taken = params(net, *frozen) if frozen else set()
    found = {
        kind: [names[id(layer)] for layer in find_frozen_layers(net, taken, **kinds)]
        for kind, kinds in {
            "norms": {"norms": True, "dropouts": False},
            "dropouts": {"norms": False, "dropouts": True},
            "neither": {"norms": False, "dropouts": False},
        }.items()
    }
    assert found == {"norms": norms, "dropouts": dropouts, "neither": []}


def test_locked_layers_are_in_evaluation_mode_until_they_are_released() -> None:
    net = Net().train()
    net.body[1].eval()  # a user's own choice
    lock = EvalModeLock(norms=True, dropouts=False)
    lock.lock(net, params(net, "stem", "body"))
    assert [net.stem[1].training, net.body[1].training, net.stem[2].training] == [False, False, True]
    lock.lock(net, params(net, "body"))
    assert [net.stem[1].training, net.body[1].training] == [True, False], "the thawed block is released"
    lock.release()
    assert [net.stem[1].training, net.body[1].training] == [True, False], "as before the lock"


def test_a_renamed_parameter_is_frozen_with_its_tensor() -> None:
    """As by pruning, which keeps the tensor under the name `weight_orig`."""
    net = Net()
    frozen, tensors = params(net, "stem"), list(net.stem.parameters())
    for layer in (net.stem[0], net.stem[1]):
        for name in ("weight", "bias"):
            prune.identity(layer, name)
    kinds = {"norms": True, "dropouts": False}
    assert find_frozen_layers(net, frozen, **kinds) == []
    assert find_frozen_layers(net, frozen, tensors, **kinds) == [net.stem[1]]
