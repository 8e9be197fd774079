"""`FusedExecution`: steps the tensors of a bucket by kernels, and says which ones it leaves to the loop."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor
from torch.autograd.graph import increment_version
from torch.distributed.tensor import DTensor

from ...core.errors import ConfigError
from .arguments import Call, Rule
from .kernels import BUILDERS, Kernel, Kernels, trace_call
from .program import Program
from .requested_sums import KernelSums, RequestedSums
from .tables import Plan, Table, kind_of
from .trace import TraceError
from .usable import DTYPES, find_usable

_MAX_PLANS = 256
"""More have been made for sets of gradients that do not come again."""


def trace_for(rule: Rule, param: Tensor, buffers: Mapping[str, Tensor]) -> Program:
    """The program of a rule for such a parameter.

    Raises:
        ConfigError: there can be no kernel for it; the message begins with `fused`.
    """
    try:
        if param.device.type not in BUILDERS:
            raise TraceError(f"there are no kernels for {param.device.type}")
        if not all(tensor.dtype in DTYPES for tensor in (param, *buffers.values())):
            raise TraceError(f"there are no kernels for {param.dtype}")
        return trace_call(Call.of(rule), kind_of(("p", "g", *buffers), (param, param, *buffers.values())))
    except TraceError as error:
        raise ConfigError(f"fused: {error}. Type fused: null") from error


class _Launch(NamedTuple):
    """A kernel that is ready to be launched."""

    table: Table
    kernel: Kernel
    numbers: list[float]
    gradients: list[int]
    """The addresses of those of the bucket."""
    requested: RequestedSums | None
    owners: list[Tensor]
    """The parameters under which it gets the sums."""


class FusedExecution:
    """The kernels of one optimizer, and where its tensors are: what a step need not find out again."""

    def __init__(self) -> None:
        self.kernels = Kernels()
        self._launches: list[_Launch] = []
        self.on_launch: list[Callable[[], None]] = []
        self._plans: dict[Hashable, Plan] = {}

    def run(
        self,
        rule: Rule,
        tensors: Mapping[str, list[Tensor]],
        *,
        required: bool,
        elementwise: bool = False,
        requested: RequestedSums | None = None,
        owners: Sequence[Tensor] = (),
        layout: Any = None,
    ) -> list[int]:
        """Prepare a step of all parameters that a kernel can take; `launch` takes it.

        Args:
            rule: a partial call; a kernel is made for its arguments, apart from the floats among them.
            tensors: the parameters, the gradients, and each buffer, by name.
            required: whether to raise where there can be no kernel.
            elementwise: take only kernels that compute each element by itself, so that shards may be stepped.
            requested: gets the sums that kernels add up.
            owners: the parameters under which it gets them.
            layout: of the bucket, where it is known.

        Returns:
            The positions of the other parameters.

        Raises:
            ConfigError: there can be no kernel; then nothing has changed.
        """
        params, grads, *_ = columns = list(tensors.values())
        owners = owners or params
        options: dict[str, Any] = {"required": required, "requested": requested}
        if isinstance(params[0], DTensor):
            return self._run_shards(rule, tensors, owners=owners, **options)
        slot = tuple(tensors), id(params[0]), len(params), params[0].dtype, grads[0].dtype
        plan = self._plans.get(slot)
        if plan is None or not plan.holds_for(columns, layout):
            usable = find_usable(columns)
            if len(usable) < len(params):
                chosen = {name: [column[i] for i in usable] for name, column in tensors.items()}
                options |= {"elementwise": elementwise, "owners": [owners[i] for i in usable]}
                skipped = self.run(rule, chosen, **options) if usable else []
                return sorted({*range(len(params))}.difference(usable).union(usable[i] for i in skipped))
            if len(self._plans) == _MAX_PLANS:
                self._plans.clear()
            plan = self._plans[slot] = Plan(tensors, layout)
        addresses = list(map(Tensor.data_ptr, grads))
        sums = requested.kinds(tensors) if requested else ()
        stepped: list[int] = []
        call = Call.of(rule)
        for table, found in [(t, self.kernels.find(call, t.kind, sums, required=required)) for t in plan.tables]:
            if found and table.can_launch(found[0], elementwise=elementwise):
                known = [owners[i] for i in table.positions] if requested else []
                self._launches.append(_Launch(table, *found, addresses, requested, known))
                stepped += table.positions
        is_all = len(stepped) == len(params)
        for column in [params] if owners is params else [params, owners]:  # autograd refuses it if it was saved
            changed = column if is_all else [column[i] for i in stepped]
            self.on_launch.append(partial(increment_version, changed))
        return [] if is_all else sorted({*range(len(params))}.difference(stepped))

    def launch(self) -> None:
        """Launch the kernels that are prepared, with what is to happen `on_launch`.

        On a CPU that comes first: it reads what the last lines have read, which kernels drive out of the caches. On a
        GPU it comes last: a kernel is compiled when it is first launched, and if it cannot be, nothing has changed.
        """
        launches, callbacks = self._launches, self.on_launch
        self.drop()
        on_cpu = all(launch.table.kind.device == "cpu" for launch in launches)
        for callback in callbacks if on_cpu else ():
            callback()
        for table, kernel, numbers, gradients, requested, owners in launches:
            reductions = table.launch(kernel, numbers, gradients)
            if requested:
                values = reductions[list(kernel.sums)]
                requested.found.append(KernelSums(table, tuple(kernel.program.sums), owners, values))
        for callback in () if on_cpu else callbacks:
            callback()

    def drop(self) -> None:
        """Forget what is prepared."""
        self._launches, self.on_launch = [], []

    def _run_shards(self, rule: Rule, tensors: Mapping[str, list[Any]], **options: Any) -> list[int]:
        """Step the shards on this rank, if the tensors of each parameter are sharded alike."""
        layouts = ({(x.device_mesh, x.placements) for x in row} for row in zip(*tensors.values(), strict=True))
        params = next(iter(tensors.values()))
        if any(len(layout) > 1 or any(p.is_partial() for p in next(iter(layout))[1]) for layout in layouts):
            return list(range(len(params)))
        shards = {name: [tensor.to_local() for tensor in column] for name, column in tensors.items()}
        self.on_launch.append(partial(increment_version, params))
        return self.run(rule, shards, elementwise=True, **options)
