"""Complex tensors as real ones."""

from torch import Tensor, view_as_real


def real(tensor: Tensor) -> Tensor:
    """A complex tensor as pairs of real numbers, as torch's optimizers treat it; else the tensor itself.

    A gradient may be conjugated lazily, and has no such view then: it is copied.
    """
    return view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
