"""A list of tensors with the methods of a tensor, so that a rule written for one tensor runs over many."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.nn import Parameter

from .half_precision import HALF_DTYPES


class TensorList:
    """Several tensors on which a method of `torch.Tensor` is called at once.

    A method is the `torch._foreach_*` of the same name (few kernels on a GPU) or, where there is none, a loop. Other
    `TensorList`s among the arguments are matched by position. A method whose name ends in `_` works in place and
    returns the list; any other returns a new one.

    It is not a `list`, for which `+` and `+=` would silently mean something else.

    Args:
        tensors: of any shapes; fast only with the same device and dtype.

    Examples:
        >>> import torch
        >>> TensorList([torch.zeros(2), torch.ones(1)]).add_(1.0).mul(2.0).tensors
        [tensor([2., 2.]), tensor([4.])]
    """

    __slots__ = ("tensors",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self.tensors = list(tensors)

    def __getattr__(self, name: str) -> Callable[..., TensorList]:
        if not callable(getattr(Tensor, name, None)) or name.startswith("_"):
            raise AttributeError(f"a TensorList has the methods of a tensor, and {name!r} is not one")

        def call_on_all(*args: Any, **kwargs: Any) -> TensorList:
            results = _call_method(name, self.tensors, args, kwargs)
            return self if name.endswith("_") else TensorList(results)

        return call_on_all

    def __repr__(self) -> str:
        return f"TensorList({self.tensors!r})"

    def __neg__(self) -> TensorList:
        return self.neg()

    def __add__(self, other: Any) -> TensorList:
        return self.add(other)

    def __sub__(self, other: Any) -> TensorList:
        return self.sub(other)

    def __rsub__(self, other: Any) -> TensorList:
        return self.neg().add_(other)

    def __mul__(self, other: Any) -> TensorList:
        return self.mul(other)

    def __truediv__(self, other: Any) -> TensorList:
        return self.div(other)

    def __rtruediv__(self, other: Any) -> TensorList:
        return self.reciprocal().mul_(other)

    def __pow__(self, other: Any) -> TensorList:
        return self.pow(other)

    __radd__, __rmul__ = __add__, __mul__

    def _refuse(self, *_: Any) -> NoReturn:
        raise TypeError(
            "a TensorList is many tensors: a rule may branch only on bool coefficients, compare with clamp and sign, "
            "and write in place with the methods that end in _"
        )

    __bool__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __iadd__ = __isub__ = __imul__ = __itruediv__ = _refuse


def _call_method(name: str, tensors: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    foreach = getattr(torch, f"_foreach_{name}", None)
    # With two tensors, `max` and `min` are elementwise; torch's foreach has only the reductions. DTensor has no
    # `_foreach_copy_` (torch 2.13).
    unsupported = (name in ("max", "min") and args) or (name == "copy_" and type(tensors[0]) not in (Tensor, Parameter))
    if foreach is None or unsupported or (name == "mul_" and _rounds_the_factor(tensors)):
        return [
            getattr(tensor, name)(*(arg.tensors[i] if isinstance(arg, TensorList) else arg for arg in args), **kwargs)
            for i, tensor in enumerate(tensors)
        ]
    return foreach(tensors, *(arg.tensors if isinstance(arg, TensorList) else arg for arg in args), **kwargs)


def _rounds_the_factor(tensors: list[Tensor]) -> bool:
    """Whether `torch._foreach_mul_` would round a number to the tensors' dtype before it multiplies by it.

    It does on the CPU (seen in torch 2.13): in bfloat16 0.99 becomes 0.98828. The tensor's own `mul_` does not.
    """
    return tensors[0].device.type == "cpu" and tensors[0].dtype in HALF_DTYPES
