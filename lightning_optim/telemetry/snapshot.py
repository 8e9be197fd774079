"""The measurements of one optimizer step, from the hooks around it to a summary on the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count, islice

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from ..groups.group import ALL
from ..optim.real_view import real
from .inventory import Contents, Inventory, SignalBatch
from .reading import SignalTensors, find_momentum, read_gradients, read_settings
from .reductions import Reduce, Reductions, Request
from .state_leaves import is_float_tensor
from .step_sums import FoundSums, StepSums
from .summary import DOT, MOMENTUM, SignalNumbers, Summary, summarize


class Snapshot:
    """What one optimizer step used and what it left.

    Call `before_step`, `before_clipping` and `after_step` in the course of the step; `read` it once it `is_ready`.

    Args:
        inventory: of the optimizer that takes the step.
        step: the step at which loggers show it.
        update: whether to measure the updates of parameters.
        cosine: whether to measure the cosine between gradient and momentum.
        histograms: whether to copy all measured tensors to the host.
        from_kernels: whether to take what the optimizer's kernels have added up in the step: nothing may change the
            tensors between the step and `after_step`.
    """

    def __init__(
        self,
        inventory: Inventory,
        step: int,
        *,
        update: bool = False,
        cosine: bool = False,
        histograms: bool = False,
        from_kernels: bool = True,
    ) -> None:
        self.step = step
        self._from_kernels = from_kernels and not histograms
        self._update, self._cosine, self._histograms = update, cosine, histograms
        self.unmeasured: Sequence[str] = ()
        """What has no norm, in sentences."""
        self.histograms: list[SignalTensors] = []
        """Tensors on the host, if histograms were asked for."""
        self._inventory, self._optimizer, self._plan = inventory, inventory.optimizer, inventory.plan
        self._reductions = Reductions()
        self._measured: list[SignalNumbers] = []
        """Signals whose numbers are yet to come, in the order of the reductions."""
        self._host_values: list[tuple[tuple[str, str], float]] = []
        """`((signal, group), value)` of what needs no reduction."""
        self._params_before: dict[Tensor, Tensor] = {}
        self._momentum_before: dict[Tensor, Tensor] = {}
        self._sums: StepSums | None = None
        self._found: FoundSums | None = None
        """Only after the step: in the course of it, nothing is known."""
        self._is_clipped = False

    @torch.no_grad()
    def before_step(self) -> None:
        """Copy what the step will change: parameters for the update norm, momentum for its cosine with the gradient."""
        if self._from_kernels:
            self._sums = StepSums(self._optimizer, self._inventory.names, update=self._update)
        if self._update:
            covered = self._sums.covered if self._sums else ()
            self._params_before = {p: p.detach().clone() for p in self._params() if p not in covered}
        if self._cosine:
            momenta = ((p, find_momentum(self._optimizer.state.get(p, {}), p)) for p in self._params())
            self._momentum_before = {p: momentum.clone() for p, momentum in momenta if momentum is not None}

    def before_clipping(self) -> None:
        """Measure the unclipped gradients; LBFGS clips several times in a step, and the first counts."""
        if not self._is_clipped:
            self._is_clipped = True
            self._measure(self._read_gradients("norm/grad_unclipped"), Reduce.SQUARES)

    @torch.no_grad()
    def after_step(self) -> None:
        """Measure everything else, and start to copy the numbers to the host."""
        found = self._found = self._sums.found() if self._sums else None
        self._params_before |= found.before if found else {}
        summed = self._inventory.summed_by(found.tables) if found else None
        contents, gradients = summed or (self._inventory.contents(), self._read_gradients("norm/grad"))
        self.unmeasured = contents.unmeasured
        self._measure_settings(contents)
        is_read = self._measure_all(
            {
                gradients: (Reduce.SQUARES,),
                contents.params_and_buffers: (Reduce.SQUARES,),
                contents.second_moments: (Reduce.SQUARES, Reduce.NON_NEGATIVE_SUM),
            }
        )
        if found and not is_read and not summed:
            few = contents._replace(steps_on_host=found.one_of_each_launch(contents.steps_on_host))
            self._inventory.set_summed_by(found.tables, few, gradients)
        updates = self._measure_updates(contents.params)
        if self._momentum_before:
            self._measure_cosine(contents.params)
        self._reductions.start_copy()
        mib = {**contents.state.mib, ALL: sum(contents.state.mib.values())}
        self._host_values += [(("state_mib", group), size) for group, size in mib.items()]
        if self._histograms:
            signals = [
                *(*gradients.signals, *contents.params_and_buffers.signals),
                *(*contents.second_moments.signals, *updates),
            ]
            self.histograms = [
                signal._replace(tensors=[_to_host(tensor) for tensor in signal.tensors]) for signal in signals
            ]
        self._params_before, self._momentum_before, self._sums, self._found = {}, {}, None, None

    @property
    def is_ready(self) -> bool:
        """Whether `read` would not have to wait."""
        return self._reductions.is_ready

    def read(self) -> Summary:
        """All signals; waits until their numbers are on the host."""
        numbers = iter(self._reductions.results())
        measured = [signal._replace(numbers=list(islice(numbers, len(signal.parameters)))) for signal in self._measured]
        summary = summarize(measured)
        for key, value in self._host_values:
            summary.values[key] = max(summary.values.get(key, value), value)  # of a group's step counts, the largest
        return summary

    def _params(self) -> list[Tensor]:
        return [p for group in self._optimizer.param_groups for p in group["params"] if is_float_tensor(p)]

    def _measure(self, batch: SignalBatch, *kinds: Reduce) -> None:
        self._measure_all({batch: kinds})

    def _measure_all(self, batches: Mapping[SignalBatch, tuple[Reduce, ...]]) -> bool:
        """Whether some of the tensors have to be read, because nobody has summed them."""
        known = [self._found.find(batch) if self._found else [] for batch in batches]
        requests = [
            Request(batch.tensors, kinds, sums) for (batch, kinds), sums in zip(batches.items(), known, strict=True)
        ]
        for batch, kinds in batches.items():
            self._name(batch, *kinds)
        self._reductions.add_all(requests)
        return any(
            sum(len(sums.indices) for sums in request.known) < len(request.batch.sizes) * len(request.kinds)
            for request in requests
        )

    def _name(self, batch: SignalBatch, *kinds: Reduce) -> None:
        """Say what the numbers are that are reduced next."""
        for kind in kinds:
            for (signal, group, names, _), sizes in zip(batch.signals, batch.sizes, strict=True):
                name = signal.replace("norm/", "rms/") if kind is Reduce.NON_NEGATIVE_SUM else signal
                self._measured.append(SignalNumbers(name, group, names, sizes, []))

    def _read_gradients(self, signal: str) -> SignalBatch:
        return SignalBatch(read_gradients(self._optimizer, self._plan, signal))

    def _measure_settings(self, contents: Contents) -> None:
        on_device = []
        for signal, group, value in read_settings(self._optimizer, self._plan):
            if isinstance(value, Tensor):
                on_device.append(SignalTensors(signal, group, [signal], [value]))
            else:
                self._host_values.append(((signal, group), float(value)))
        if on_device:
            self._measure(SignalBatch(on_device), Reduce.VALUE)
        if contents.steps.signals:
            self._measure(contents.steps, Reduce.VALUE)
        if on_host := contents.steps_on_host:
            counts = iter(torch.stack([tensor for steps in on_host for tensor in steps.tensors]).tolist())
            self._host_values += [(("step", steps.group), max(islice(counts, len(steps.tensors)))) for steps in on_host]
        self._host_values += [(("step", group), count) for group, count in contents.state.step_counts.items()]

    def _measure_updates(self, params: Sequence[SignalTensors]) -> list[SignalTensors]:
        if not self._update:
            return []
        before, indices = self._params_before, count()
        parameters = tuple([("norm/update", tuple(signal.parameters)) for signal in params])
        known = self._found.find_updates(parameters) if self._found else []
        # Of these very sums, so that nothing reads what is in the place of an update.
        summed = {index for sums in known for index in sums.indices.tolist()}
        updates = [
            SignalTensors(
                "norm/update", group, names, [_update_of(p, before, next(indices) in summed) for p in tensors]
            )
            for _, group, names, tensors in params
        ]
        batch = SignalBatch(updates)
        self._name(batch, Reduce.SQUARES)
        self._reductions.add(batch.tensors, Reduce.SQUARES, known=known)
        return updates

    def _measure_cosine(self, params: Sequence[SignalTensors]) -> None:
        """Measure the parts of the cosine of gradient and momentum, for parameters that have both."""
        for _, group, names, tensors in params:
            pairs = [
                (name, p.grad, self._momentum_before[p])
                for name, p in zip(names, tensors, strict=True)
                if p in self._momentum_before and p.grad is not None
            ]
            pair_names = [name for name, *_ in pairs]
            momenta = SignalTensors(MOMENTUM, group, pair_names, [momentum for *_, momentum in pairs])
            products = SignalTensors(DOT, group, pair_names, [_product(grad, momentum) for _, grad, momentum in pairs])
            self._measure(SignalBatch([momenta]), Reduce.SQUARES)
            self._measure(SignalBatch([products]), Reduce.SUM)


def _update_of(param: Tensor, before: Mapping[Tensor, Tensor], is_summed: bool) -> Tensor:
    """What a step has added to a parameter; if its sum is known, the parameter in its place, which is not read."""
    if is_summed:
        return param.detach()
    return before[param].neg_().add_(param) if param in before else torch.zeros_like(param)


def _product(grad: Tensor, momentum: Tensor) -> Tensor:
    """The elementwise product; a complex element counts as a pair of real ones."""
    return real(grad) * real(momentum)


def _to_host(tensor: Tensor) -> Tensor:
    full = (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach()
    return real(full).float().cpu()
