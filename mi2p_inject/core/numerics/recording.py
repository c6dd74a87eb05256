"""Whether a graph is being recorded, in which values cannot be looked at."""

from __future__ import annotations

import torch

__all__ = ["is_exporting", "is_recording"]


def is_recording() -> bool:
    """Whether `torch.compile`, `torch.export` or `torch.jit.trace` records a graph right now.

    Examples:
        >>> from mi2p_inject.core.numerics.recording import is_recording
        >>> is_recording()
        False
    """
    return torch.compiler.is_compiling() or _is_tracing()


def is_exporting() -> bool:
    """Whether that graph will leave this process, as those of `torch.export`, ONNX and `torch.jit.trace` do.

    torch 2.6 has no `torch.compiler.is_exporting`; there `torch.export` sets a flag that `torch.compile` leaves alone.
    """
    if hasattr(torch.compiler, "is_exporting"):
        return _is_tracing() or torch.compiler.is_exporting()
    return _is_tracing() or bool(torch.compiler._is_compiling_flag)


def _is_tracing() -> bool:
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]
