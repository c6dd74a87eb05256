"""Whether a graph is being recorded, in which values cannot be looked at."""

from __future__ import annotations

import sys

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = ["hides_values", "is_exporting", "is_recording", "is_tracing", "is_transformed"]


_EXPORTING = "_is_exporting_flag" if hasattr(torch.compiler, "_is_exporting_flag") else "_is_compiling_flag"


def is_recording() -> bool:
    """Whether `torch.compile`, `torch.export` or `torch.jit.trace` records a graph right now.

    Examples:
        >>> from mi2p_inject.core.numerics.recording import is_recording
        >>> is_recording()
        False
    """
    return torch.compiler.is_compiling() or is_tracing()


def hides_values(tensor: Tensor) -> bool:
    """Whether a tensor's values cannot be looked at: while a graph is recorded, on the meta device, under `vmap`.

    Or where it is the gradient of several results at once (``is_grads_batched=True``).

    Examples:
        >>> import torch
        >>> from mi2p_inject.core.numerics.recording import hides_values
        >>> hides_values(torch.zeros(2)), hides_values(torch.zeros(2, device="meta"))
        (False, True)
    """
    batched = not is_recording() and torch._C._functorch.is_legacy_batchedtensor(tensor)
    return is_recording() or tensor.is_meta or _is_fake(tensor) or _is_proxied() or _is_vectorised() or batched


def is_transformed(tensor: Tensor) -> bool:
    """Whether operations on a tensor do more than compute: under torch.func's transforms, dual numbers, fake tensors.

    What is put together of parts in buffers, whose values steer it, cannot be: plain operations can.

    Examples:
        >>> import torch
        >>> from mi2p_inject.core.numerics.recording import is_transformed
        >>> is_transformed(torch.zeros(2)), torch.func.vmap(lambda x: x * is_transformed(x))(torch.ones(2))
        (False, tensor([1., 1.]))
    """
    if is_recording():
        return False
    dual = forward_ad._current_level >= 0
    return dual or _is_fake(tensor) or _is_proxied() or torch._C._functorch.peek_interpreter_stack() is not None


def _is_fake(tensor: Tensor) -> bool:
    return isinstance(tensor, torch._subclasses.FakeTensor)


def _is_proxied() -> bool:
    """Whether `make_fx` records."""
    tracing = sys.modules.get("torch.fx.experimental.proxy_tensor")
    return tracing is not None and tracing.get_proxy_mode() is not None


def _is_vectorised() -> bool:
    """Whether `torch.func.vmap` runs."""
    stack = torch._C._functorch.get_interpreter_stack() or ()
    return any(one.key() == torch._C._functorch.TransformType.Vmap for one in stack)


def is_exporting() -> bool:
    """Whether that graph will leave this process, as those of `torch.export`, ONNX and `torch.jit.trace` do.

    By the flag that `torch.export` sets: torch 2.11's `torch.compiler.is_exporting` is true under `torch.compile` too.
    torch 2.6 has neither; there the flag is that of `is_compiling`, which `torch.compile` leaves alone, and a strict
    export cannot be told from it.
    """
    return is_tracing() or bool(getattr(torch.compiler, _EXPORTING))


def is_tracing() -> bool:
    """Whether `torch.jit.trace` records this call."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]
