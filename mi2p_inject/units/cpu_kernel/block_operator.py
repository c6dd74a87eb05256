"""Attention in blocks as an operator that `torch.compile` calls and does not look into."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mi2p_inject.units.cpu_kernel.blockwise import backward, forward

__all__ = ["opaque", "opaque_backward"]

_INPUTS = (
    "Tensor queries, Tensor keys, Tensor? learned_keys, Tensor? key_strengths, Tensor values, Tensor? learned_values, "
    "Tensor? value_strengths, Tensor? mask, SymInt width"
)


@torch.library.custom_op(
    "mi2p_inject::attend_in_blocks", mutates_args=(), schema=f"({_INPUTS}, SymInt groups) -> (Tensor, Tensor)"
)
def opaque(*inputs: Any) -> tuple[Tensor, Tensor]:
    """`mi2p_inject.units.cpu_kernel.blockwise.forward`, given the groups of its result."""
    return forward(*inputs[:-1])


@torch.library.custom_op(
    "mi2p_inject::attend_in_blocks_backward", mutates_args=(),
    schema=f"({_INPUTS}, Tensor logs, Tensor grad, bool[] wanted) -> Tensor[]",
)  # fmt: skip
def opaque_backward(*inputs: Any) -> list[Tensor]:
    """`mi2p_inject.units.cpu_kernel.blockwise.backward`, without the gradients that are not wanted."""
    *rest, grad, wanted = inputs
    return [one for one in backward(*rest, grad.contiguous(), wanted) if one is not None]


@opaque.register_fake
def _(queries: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    *_, width, groups = rest
    return queries.new_empty(groups, queries.shape[1], width), queries.new_empty(groups, queries.shape[1])


@opaque_backward.register_fake
def _(*inputs: Any) -> list[Tensor]:
    *tensors, _, _, _, _, wanted = inputs
    return [torch.empty_like(one) for one, needed in zip(tensors, wanted, strict=True) if needed]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.width, _ = inputs
    ctx.save_for_backward(*tensors, output[1])


def _gradients(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    wanted = list(ctx.needs_input_grad[:7])
    *tensors, logs = ctx.saved_tensors
    found = iter(opaque_backward(*tensors, ctx.width, logs, grad, wanted))
    return *(next(found) if needed else None for needed in wanted), None, None, None


opaque.register_autograd(_gradients, setup_context=_keep)
