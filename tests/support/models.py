"""Small models that several tests share, and one way to train them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_optim import optimizer_info


class Tiny(nn.Module):
    """A backbone and a head of one linear layer each, with a loss of its own."""

    def __init__(self, *, bias: bool = True) -> None:
        super().__init__()
        self.backbone = nn.Linear(4, 8, bias=bias)
        self.head = nn.Linear(8, 2, bias=bias)
        self.register_buffer("batch", torch.randn(16, 4))

    def loss(self) -> Tensor:
        return (self.head(torch.tanh(self.backbone(self.batch))) - 1).square().mean()


class Tables(nn.Module):
    """As `Tiny`, but of embeddings with sparse gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Embedding(6, 3, sparse=True)
        self.head = nn.Embedding(6, 3, sparse=True)

    def loss(self) -> Tensor:
        rows = torch.tensor([0, 2, 2, 5])
        return (self.backbone(rows) * self.head(rows) - 1).square().mean()


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)


class Net(nn.Module):
    """An embedding, a backbone of two layers and a head: eleven parameters for rules to select from."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.backbone = nn.Module()
        self.backbone.layer = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(4, 2)


class Tied(nn.Module):
    """One matrix under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5)
        self.head.weight = self.embed.weight


class Deep(nn.Module):
    """A backbone whose three matrices are between parameters of other kinds, and a head; the same weights each time."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 6), nn.Linear(6, 8))
        self.head = nn.Linear(8, 2)

    def loss(self, seed: int = 0) -> Tensor:
        batch = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))
        return (self.head(self.backbone(batch)) - 1).square().mean()


def names_of(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters()]


def weights_of(model: nn.Module) -> list[Tensor]:
    """A copy of every parameter."""
    return [parameter.detach().clone() for parameter in model.parameters()]


def model_for(optimizer: str) -> nn.Module:
    """A model that the optimizer takes, with the same weights each time."""
    torch.manual_seed(0)
    return Tables() if optimizer == "sparse_adam" else Tiny(bias=not optimizer_info(optimizer).matrices_only)


def train(model: nn.Module, optimizer: Optimizer, num_steps: int) -> list[list[Tensor]]:
    """The weights after each step."""

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = model.loss()
        loss.backward()
        return loss

    weights = []
    for _ in range(num_steps):
        optimizer.step(closure)
        weights.append(weights_of(model))
    return weights


def same(ours: list[list[Tensor]], theirs: list[list[Tensor]]) -> bool:
    """Whether two trajectories of weights are equal, bit by bit."""
    pairs = [pair for a, b in zip(ours, theirs, strict=True) for pair in zip(a, b, strict=True)]
    return all(torch.equal(a, b) for a, b in pairs)
