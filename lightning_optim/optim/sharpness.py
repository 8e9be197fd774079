"""`sharpness`: the gradient of a step is taken where the loss is highest nearby (SAM, arXiv:2010.01412)."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ..core.errors import ConfigError
from .checks import check_dense
from .closures import has_new_gradients, no_gradients_error, read_gradient_versions
from .finite import full_tensor
from .half_precision import HALF_DTYPES
from .real_view import real
from .state_keys import MASTER

_KEY = "sharpness"
# As in https://github.com/davda54/sam.
_EPS = 1e-12

Groups = Sequence[Mapping[str, Any]]


def is_sharpened(groups: Groups) -> bool:
    """Whether a step takes a second gradient, elsewhere."""
    return any(group.get(_KEY) for group in groups)


class SharpnessMixin:
    """What an optimizer needs to take the second gradient; `AdaptiveOptimizer` and `Composite` have it."""

    param_groups: list[dict[str, Any]]
    state: Any
    _find_model: Callable[[], nn.Module | None] | None = None
    """Gives the model, or None where it has no buffers or is gone; None where nobody knows the model."""

    def set_model(self, model: nn.Module | None) -> None:
        """Say which model the closure evaluates: with `sharpness`, the second pass leaves its buffers as they are.

        `OptimizerFactory` calls it where it is given the module, its `named_parameters()` or a generator over them.

        Args:
            model: it is not kept alive; None for one without buffers.
        """
        self._find_model = _no_model if model is None else weakref.ref(model)

    @property
    def gradients_per_step(self) -> int:
        """How often a step calls its closure."""
        return 2 if is_sharpened(self.param_groups) else int(getattr(self, "evaluations", 1))

    @torch.no_grad()
    def _evaluate_sharpened(self, closure: Callable[[], Any] | None) -> Any:
        """Leave the gradient at the perturbed parameters in `p.grad`; returns the loss at the current ones.

        Raises:
            ConfigError: there is no closure, it computes no gradients, one is sparse, or the model is not known.
        """
        if closure is None:
            # torch's distributed checkpoints take a step with lr 0 to create a state that they can load into.
            if all(float(group["lr"]) == 0 for group in self.param_groups):
                return None
            raise ConfigError(
                f"sharpness: {type(self).__name__} takes 2 gradients a step, and step() got no closure to compute them "
                "with. Type optimizer.step(closure), where closure calls optimizer.zero_grad() and loss.backward(), "
                "and returns the loss. A GradScaler calls step() without one, so train in bfloat16 instead"
            )
        if self._find_model is None:
            raise ConfigError(
                "sharpness: the model is not known, and the second pass must leave its buffers, such as BatchNorm's "
                "running statistics, as they are. Build the optimizer with lightning_optim.OptimizerFactory from the "
                "module, or type optimizer.set_model(module), or optimizer.set_model(None) if it has no buffers"
            )
        loss = self._call(closure)
        for index, group in enumerate(self.param_groups):
            if group.get(_KEY):
                check_dense(group, index, type(self).__name__)
        with _perturbed(self.param_groups, self.state), _kept_buffers(self._find_model()):
            for group in self.param_groups:
                for param in group["params"]:
                    param.grad = None
            self._call(closure)
        return loss

    def _call(self, closure: Callable[[], Any]) -> Any:
        before = read_gradient_versions(self.param_groups)
        with torch.enable_grad():
            loss = closure()
        if not has_new_gradients(self.param_groups, before):
            raise no_gradients_error(type(self).__name__, 2)
        return loss


@contextmanager
def _perturbed(groups: Groups, state: Mapping[Tensor, Any]) -> Iterator[None]:
    """Move the parameters to where the second gradient is taken, and back to the bit."""
    origins = _perturb(groups, state)
    try:
        yield
    finally:
        for param, origin in origins:
            _local(param).copy_(origin)


def _perturb(groups: Groups, state: Mapping[Tensor, Any]) -> list[tuple[Tensor, Tensor]]:
    """Move the parameters by ρ g / ‖g‖, or in an adaptive group by ρ p² g / ‖|p| g‖; returns copies of them.

    ‖·‖ is the norm over all parameters with `sharpness`, on all devices and shards. A parameter without gradient stays
    where it is, and so does one in a group without `sharpness`. A group that is maximized moves to where it is lowest.
    """
    moved = [
        (group, param, _local(real(state.get(param, {}).get(MASTER, param))), real(param.grad))
        for group in groups
        if group.get(_KEY)
        for param in group["params"]
        if param.grad is not None and param.numel()
    ]
    origins = [(param, _local(param).clone()) for _, param, _, _ in moved]
    if not moved:
        return origins
    norm = _norm([_scaled(grad, real(param)) if group[_KEY]["adaptive"] else grad for group, param, _, grad in moved])
    for group, param, start, grad in moved:
        sign = -1.0 if group["maximize"] else 1.0
        wide = start.float() if start.dtype in HALF_DTYPES else start  # float16 holds neither ρ/‖g‖ nor p²
        scale = (sign * group[_KEY]["rho"] / (norm + _EPS)).to(wide)
        direction = _local(grad).to(wide.dtype)
        if group[_KEY]["adaptive"]:
            direction = direction * wide.square()
        _local(real(param)).copy_(wide + direction * scale)
    return origins


def _scaled(grad: Tensor, param: Tensor) -> Tensor:
    """|p| g, in float32 where they are 16-bit."""
    return (grad.float() if grad.dtype in HALF_DTYPES else grad) * param.abs()


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    """The norm of all tensors as one vector, the same on every rank; without waiting for the device.

    Where they are sharded, every rank must call it.
    """
    by_kind: dict[Any, list[Tensor]] = {}
    for tensor in tensors:
        mesh = (tensor.device_mesh, tensor.placements) if isinstance(tensor, DTensor) else None
        by_kind.setdefault((tensor.device, tensor.dtype, mesh), []).append(tensor)
    norms = []
    for (_, dtype, _), same in by_kind.items():
        each = torch._foreach_norm(same, 2.0, dtype=torch.float32 if dtype in HALF_DTYPES else None)
        norms.append(full_tensor(torch.linalg.vector_norm(torch.stack(each))))
    widest = max((norm.dtype for norm in norms), key=lambda dtype: torch.finfo(dtype).bits)
    total: Tensor = torch.linalg.vector_norm(torch.stack([norm.to(norms[0].device, widest) for norm in norms]))
    return total


@contextmanager
def _kept_buffers(model: nn.Module | None) -> Iterator[None]:
    """Restore a model's buffers: a second pass must not count."""
    modules = [] if model is None else list(model.modules())
    kept = [
        (module, name, buffer, buffer.clone())
        for module in modules
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        for module, name, buffer, copy in kept:
            module._buffers[name] = buffer.copy_(copy)


def _local(tensor: Tensor) -> Tensor:
    """This rank's shard, where a tensor is sharded; writing into it writes into the tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _no_model() -> None:
    return None
