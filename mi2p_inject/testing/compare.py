"""How outputs of models are compared: bit for bit, or sample by sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from mi2p_inject.core.inputs import tensors_in
from mi2p_inject.core.numerics.normal import normal

__all__ = ["batch_axis", "close", "difference", "floats", "mixture", "samples_equal"]

TOLERANCE = 1e-3
"""Of samples computed in another place of the batch, relative to the largest number: other kernels, other rounding."""
PLAIN = (bool, int, float, str, type(None))


def floats(output: Any) -> list[Tensor]:
    """The floating tensors of a model's output."""
    return [tensor for tensor in tensors_in(output) if tensor.is_floating_point()]


def difference(one: Any, other: Any) -> str:
    """How two outputs differ, bit for bit and in type and structure; "" where they do not. NaN equals NaN.

    Examples:
        >>> import torch
        >>> from mi2p_inject.testing.compare import difference
        >>> difference({"a": torch.zeros(2)}, {"a": torch.zeros(2)})
        ''
        >>> difference({"a": torch.zeros(2)}, {"a": torch.tensor([0.0, 0.5])})
        '1 of 2 numbers of tensor 0 differ, by 0.5 at most'
    """
    if type(one) is not type(other):
        return f"a {type(one).__name__} in place of a {type(other).__name__}"
    ours, theirs = tensors_in(one), tensors_in(other)
    if len(ours) != len(theirs):
        return f"{len(ours)} tensors in place of {len(theirs)}"
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            return f"tensor {number} is {a.dtype} {tuple(a.shape)} in place of {b.dtype} {tuple(b.shape)}"
        unequal = (a != b) & ((a == a) | (b == b))
        if bool(unequal.any()):
            most = (a - b).abs()[unequal].max() if a.dtype != torch.bool else torch.ones(())
            count = f"{int(unequal.sum())} of {a.numel()} numbers of tensor {number}"
            return f"{count} differ, by {float(most.detach()):.2g} at most"
    plain = [[leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, PLAIN)] for output in (one, other)]
    return "" if plain[0] == plain[1] else f"{plain[0]} in place of {plain[1]}"


def close(one: Tensor, other: Tensor) -> bool:
    """Equal but for rounding."""
    scale = float(other.abs().max()) or 1.0
    return one.shape == other.shape and bool(((one - other).abs() <= TOLERANCE * scale).all())


def samples_equal(one: Any, other: Any, samples: Sequence[int], batch: int) -> bool | None:
    """Whether two outputs are equal bit for bit in some samples of the batch.

    Args:
        one: an output.
        other: another one of the same structure.
        samples: indices into the batch.
        batch: number of samples.

    Returns:
        None where no tensor has a batch axis.
    """
    known, ours, theirs = False, floats(one), floats(other)
    if len(ours) != len(theirs):
        return False
    for a, b in zip(ours, theirs, strict=True):
        axis = batch_axis(b, batch)
        if axis is None or a.shape != b.shape:
            continue
        known, index = True, torch.tensor(samples, device=a.device)
        if difference(a.index_select(axis, index), b.index_select(axis, index)):
            return False
    return True if known else None


def batch_axis(tensor: Tensor, batch: int) -> int | None:
    """The axis as long as the batch: the first one, or the only one."""
    found = [axis for axis, size in enumerate(tensor.shape) if size == batch]
    return found[0] if len(found) == 1 or (found and found[0] == 0) else None


def mixture(output: Any) -> Tensor | None:
    """A scalar that depends on each number of an output, on each differently; None where the output has no gradient.

    A plain sum does not do: behind a normalisation it is constant.
    """
    generator = torch.Generator().manual_seed(0)
    mixed = [
        (tensor.float() * normal(tensor.shape, generator).to(tensor.device)).sum()
        for tensor in floats(output)
        if tensor.requires_grad
    ]
    return torch.stack(mixed).sum() if mixed else None
