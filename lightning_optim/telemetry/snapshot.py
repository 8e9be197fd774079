"""What one optimizer step was taken with and what it left, on its way from the device to the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from ..groups.plan import Plan
from .reading import Samples, gradients, is_second_moment, momentum, parameters, settings, state
from .reductions import Reduce, Reductions
from .summary import ALL, DOT, MOMENTUM, Numbers, Summary, summarize


class Snapshot:
    """Built in the course of one step: `before`, `clip`, `after`; to be read once it has `arrived`.

    Args:
        optimizer: whose step it is.
        plan: its groups.
        step: where loggers show it.
    """

    def __init__(self, optimizer: Optimizer, plan: Plan, step: int) -> None:
        self.step = step
        self.skipped: Mapping[str, str] = {}
        """State that cannot be measured: by key, what it is."""
        self.histograms: list[Samples] = []
        """Tensors on the host, if they are asked for."""
        self._optimizer, self._plan = optimizer, plan
        self._reductions = Reductions()
        self._measured: list[Numbers] = []
        self._known: list[tuple[tuple[str, str], float]] = []
        self._on_device: list[tuple[str, str]] = []
        self._before: dict[Tensor, Tensor] = {}
        self._momenta: dict[Tensor, Tensor] = {}
        self._clipped = False

    @torch.no_grad()
    def before(self, *, update: bool, cosine: bool) -> None:
        """Before the step: keep what it will change and is asked for."""
        held = [p for group in self._optimizer.param_groups for p in group["params"]]
        if update:
            self._before = {p: p.detach().clone() for p in held}
        if cosine:
            momenta = ((p, momentum(self._optimizer.state.get(p, {}), p)) for p in held)
            self._momenta = {p: tensor.clone() for p, tensor in momenta if tensor is not None}

    def clip(self) -> None:
        """Before gradients are clipped; LBFGS has that several times in a step, and the first counts."""
        if not self._clipped:
            self._clipped = True
            self._measure(gradients(self._optimizer, self._plan, "norm/grad_unclipped"), Reduce.SQUARES)

    @torch.no_grad()
    def after(self, *, histograms: bool = False) -> None:
        """After the step: measure what there is, and let the numbers go to the host."""
        optimizer, plan = self._optimizer, self._plan
        params = parameters(optimizer, plan, "norm/param")
        held = state(optimizer, plan)
        self.skipped = held.skipped
        samples = [*gradients(optimizer, plan, "norm/grad"), *params, *held.samples, *self._updates(params)]
        self._measure([each for each in samples if not is_second_moment(each)], Reduce.SQUARES)
        self._measure([each for each in samples if is_second_moment(each)], Reduce.SQUARES, Reduce.SIZES)
        if self._momenta:
            self._measure_angles(params)
        self._read_settings()
        self._reductions.send()
        mib = {**held.mib, ALL: sum(held.mib.values())}
        self._known += [(("state_mib", group), size) for group, size in mib.items()]
        if histograms:
            self.histograms = [s._replace(tensors=[_on_host(tensor) for tensor in s.tensors]) for s in samples]
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
        for (signal, group), number in (*self._known, *zip(self._on_device, numbers, strict=True)):
            before = summary.values.get((signal, group), number)
            summary.values[signal, group] = max(before, number)  # of a group's steps, the largest
        return summary

    def _measure(self, found: Sequence[Samples], *hows: Reduce) -> None:
        for how in hows:
            for signal, group, names, tensors in found:
                shown = signal.replace("norm/", "rms/") if how is Reduce.SIZES else signal
                self._measured.append(Numbers(shown, group, names, [tensor.numel() for tensor in tensors], []))
        self._reductions.add([tensor for samples in found for tensor in samples.tensors], *hows)

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
            self._measure([Samples(MOMENTUM, group, names_of_both, [before for *_, before in both])], Reduce.SQUARES)
            products = [_product(grad, before) for _, grad, before in both]
            self._measure([Samples(DOT, group, names_of_both, products)], Reduce.SUM)

    def _read_settings(self) -> None:
        on_device = []
        for signal, group, value in settings(self._optimizer, self._plan):
            if isinstance(value, Tensor):
                self._on_device.append((signal, group))
                on_device.append(value)
            else:
                self._known.append(((signal, group), float(value)))
        self._reductions.add(on_device, Reduce.VALUE)


def _product(gradient: Tensor, momentum: Tensor) -> Tensor:
    """Element by element, of complex ones as of pairs of real ones."""
    if gradient.is_complex():
        gradient, momentum = torch.view_as_real(gradient), torch.view_as_real(momentum)
    return gradient * momentum


def _on_host(tensor: Tensor) -> Tensor:
    whole = (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach()
    return (torch.view_as_real(whole) if whole.is_complex() else whole).float().cpu()
