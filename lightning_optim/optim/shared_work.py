"""`map_in_shares`: a function of a stack that every rank has, of which each rank computes a share and gets the rest."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from .tensor_list import TensorList


def map_in_shares(function: Callable[[Tensor], Tensor], stack: Tensor, like: Any) -> Tensor:
    """A function of the matrices in a stack; where parameters are sharded, each is computed on one rank.

    Every rank has what that one computed. Otherwise they might drift apart: the eigenvectors of a matrix whose rank is
    deficient are others on another kind of processor, and with another number of threads.

    Args:
        function: of stacks; what a matrix becomes must not depend on the others in its stack.
        stack: of the shape (number, ...), and the same on every rank.
        like: a parameter or a `TensorList` of them.

    Raises:
        torch.linalg.LinAlgError: it was raised on one of the ranks.
    """
    mesh = _find_mesh(like)
    if mesh is None:
        return function(stack)
    dim = max(range(mesh.ndim), key=mesh.size)
    count = -(-len(stack) // mesh.size(dim))
    start = mesh.get_local_rank(dim) * count
    failed = 0.0
    try:
        computed = function(stack[start : start + count])
    except torch.linalg.LinAlgError:  # the other ranks wait, so this one must send something first
        computed, failed = function(stack[:0]), 1.0
    sent = stack.new_zeros(count * prod(computed.shape[1:]) + 1)
    sent[: computed.numel()] = computed.reshape(-1)
    sent[-1] = failed
    taken = sent.new_empty(mesh.size(dim), len(sent))
    dist.all_gather(list(taken.unbind()), sent, group=mesh.get_group(dim))
    if taken[:, -1].any():
        raise torch.linalg.LinAlgError("a rank has found no decomposition")
    return taken[:, :-1].reshape(-1, *computed.shape[1:])[: len(stack)]


def _find_mesh(like: Any) -> DeviceMesh | None:
    """The mesh that all parameters are sharded over; None if they are not, or over several: then not all have all."""
    tensors = like.tensors if isinstance(like, TensorList) else [like]
    meshes = {tensor.device_mesh if isinstance(tensor, DTensor) else None for tensor in tensors}
    mesh = meshes.pop()
    return None if meshes or mesh is None or mesh.size() == 1 else mesh
