"""What one optimizer step was taken with and what it left, on its way from the device to the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from .inventory import Collection, Inventory, Look
from .reading import Samples, gradients, momentum, settings
from .reductions import Reduce, Reductions
from .summary import ALL, DOT, MOMENTUM, Numbers, Summary, summarize


class Snapshot:
    """Built in the course of one step: `before`, `clip`, `after`; to be read once it has `arrived`.

    Args:
        inventory: of the optimizer whose step it is.
        step: where loggers show it.
    """

    def __init__(self, inventory: Inventory, step: int) -> None:
        self.step = step
        self.skipped: Mapping[str, str] = {}
        """State that cannot be measured: by key, what it is."""
        self.histograms: list[Samples] = []
        """Tensors on the host, if they are asked for."""
        self._inventory, self._optimizer, self._plan = inventory, inventory.optimizer, inventory.plan
        self._reductions = Reductions()
        self._measured: list[Numbers] = []
        self._known: list[tuple[tuple[str, str], float]] = []
        self._before: dict[Tensor, Tensor] = {}
        self._momenta: dict[Tensor, Tensor] = {}
        self._clipped = False

    @torch.no_grad()
    def before(self, *, update: bool, cosine: bool) -> None:
        """Before the step: keep what it will change and is asked for."""
        if update:
            self._before = {p: p.detach().clone() for p in self._held()}
        if cosine:
            momenta = ((p, momentum(self._optimizer.state.get(p, {}), p)) for p in self._held())
            self._momenta = {p: tensor.clone() for p, tensor in momenta if tensor is not None}

    def clip(self) -> None:
        """Before gradients are clipped; LBFGS has that several times in a step, and the first counts."""
        if not self._clipped:
            self._clipped = True
            self._measure_gradients("norm/grad_unclipped")

    @torch.no_grad()
    def after(self, *, histograms: bool = False) -> None:
        """After the step: measure what there is, and let the numbers go to the host."""
        now = self._inventory.look()
        self.skipped = now.state.skipped
        self._read_settings(now)
        samples = self._measure_gradients("norm/grad")
        self._measure(now.plain, Reduce.SQUARES)
        self._measure(now.second, Reduce.SQUARES, Reduce.SIZES)
        updates = self._updates(now.params)
        if updates:
            self._measure(Collection(updates), Reduce.SQUARES)
        if self._momenta:
            self._measure_angles(now.params)
        self._reductions.send()
        mib = {**now.state.mib, ALL: sum(now.state.mib.values())}
        self._known += [(("state_mib", group), size) for group, size in mib.items()]
        if histograms:
            every = [*samples, *now.plain.samples, *now.second.samples, *updates]
            self.histograms = [s._replace(tensors=[_on_host(tensor) for tensor in s.tensors]) for s in every]
        self._before, self._momenta = {}, {}

    @property
    def arrived(self) -> bool:
        """Whether reading it would wait for nothing."""
        return self._reductions.arrived

    def read(self) -> Summary:
        """All of it; waits until it has arrived."""
        numbers = iter(self._reductions.numbers())
        measured = [each._replace(numbers=list(islice(numbers, len(each.parameters)))) for each in self._measured]
        summary = summarize(measured)
        for key, number in self._known:
            summary.values[key] = max(summary.values.get(key, number), number)  # of a group's steps, the largest
        return summary

    def _held(self) -> list[Tensor]:
        return [p for group in self._optimizer.param_groups for p in group["params"]]

    def _measure(self, found: Collection, *hows: Reduce) -> None:
        for how in hows:
            for (signal, group, names, _), sizes in zip(found.samples, found.sizes, strict=True):
                shown = signal.replace("norm/", "rms/") if how is Reduce.SIZES else signal
                self._measured.append(Numbers(shown, group, names, sizes, []))
        self._reductions.add(found.bundle, *hows)

    def _measure_gradients(self, signal: str) -> list[Samples]:
        samples = gradients(self._optimizer, self._plan, signal)
        self._measure(Collection(samples), Reduce.SQUARES)
        return samples

    def _updates(self, params: Sequence[Samples]) -> list[Samples]:
        if not self._before:
            return []
        return [
            Samples("norm/update", group, names, [self._before[p].neg_().add_(p) for p in held])
            for _, group, names, held in params
        ]

    def _measure_angles(self, params: Sequence[Samples]) -> None:
        """What the cosine of gradient and momentum is made of, where there are both."""
        for _, group, names, held in params:
            there = zip(names, held, strict=True)
            both = [(n, p.grad, self._momenta[p]) for n, p in there if p in self._momenta and p.grad is not None]
            names_of_both = [name for name, *_ in both]
            momenta = Samples(MOMENTUM, group, names_of_both, [before for *_, before in both])
            products = Samples(DOT, group, names_of_both, [_product(grad, before) for _, grad, before in both])
            self._measure(Collection([momenta]), Reduce.SQUARES)
            self._measure(Collection([products]), Reduce.SUM)

    def _read_settings(self, now: Look) -> None:
        on_device = []
        for signal, group, value in settings(self._optimizer, self._plan):
            if isinstance(value, Tensor):
                on_device.append(Samples(signal, group, [signal], [value]))
            else:
                self._known.append(((signal, group), float(value)))
        if on_device:
            self._measure(Collection(on_device), Reduce.VALUE)
        self._measure(now.steps, Reduce.VALUE)
        self._known += [(("step", group), count) for group, count in now.state.counts.items()]


def _product(gradient: Tensor, momentum: Tensor) -> Tensor:
    """Element by element, of complex ones as of pairs of real ones."""
    if gradient.is_complex():
        gradient, momentum = torch.view_as_real(gradient), torch.view_as_real(momentum)
    return gradient * momentum


def _on_host(tensor: Tensor) -> Tensor:
    whole = (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach()
    return (torch.view_as_real(whole) if whole.is_complex() else whole).float().cpu()
