"""Complex tensors as real ones."""

from torch import Tensor, view_as_real


def real(tensor: Tensor) -> Tensor:
    """A complex tensor as pairs of real numbers, as torch's optimizers treat it; else the tensor itself."""
    return view_as_real(tensor) if tensor.is_complex() else tensor
