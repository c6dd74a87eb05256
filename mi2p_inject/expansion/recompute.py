"""Gradient checkpointing: which call a recomputed region belongs to.

A checkpointed region runs in the forward pass, and again in the backward pass, where no forward of the expanded model
is running. torch has one object for each run of a region: the context of an `autograd.Function` (reentrant, as
DeepSpeed's and FairScale's are too), or a `_CheckpointFrame`. Either is on the Python stack in both passes, so the call
is noted on it in the first and read off it in the second. Where another version of torch keeps it elsewhere nothing is
found, and the site raises `RecomputeError`.

Source: torch/utils/checkpoint.py.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType, GeneratorType
from typing import Any

import torch
import torch.utils.checkpoint
from torch.autograd.function import FunctionCtx

from mi2p_inject.core.errors import RecomputeError, SiteError
from mi2p_inject.expansion.call import Call, Calls, backward_pass

__all__ = ["Noted", "check_gradients", "in_backward", "in_region", "recall", "remember", "was_disabled"]

NOTE = "_mi2p_calls"
_SEVERAL = object()
"""Noted on a region where forwards of several calls ran."""
_FILE = torch.utils.checkpoint.__file__


@dataclass(frozen=True)
class Noted:
    """What is noted on a region: the call that ran it, and what of the call may be another thing later.

    Attributes:
        call: one with a source.
        image: the size of the image that the call had gone on to; a block runs many.
    """

    call: Call
    image: tuple[int, int] | None


def in_backward() -> bool:
    """Whether this code runs inside a backward pass."""
    return backward_pass() != -1


def in_region() -> bool:
    """Whether this code runs in a checkpointed region that is being recomputed."""
    return any(recomputed for _, recomputed in _regions())


def remember(calls: Calls, noted: Noted | None) -> None:
    """Note on each checkpointed region that this code runs in whose call it is; None: a forward without a source."""
    _note(calls, noted)


def was_disabled(calls: Calls) -> bool:
    """Whether a forward that begins here is in a `with me.disabled()` block; of one that is recomputed, whether it was.

    The backward pass may run in or outside such a block, and in another thread, which knows of none.

    Raises:
        RecomputeError: as `recall`.
    """
    now = calls.now.disabled
    if torch.compiler.is_compiling():
        return now
    if not in_backward():
        _note((calls, "disabled"), now)
        return now
    found, then = _recalled((calls, "disabled"))
    return bool(then) if found else now


def _note(key: Any, noted: Any) -> None:
    for region, _ in _regions():
        with suppress(AttributeError):  # nothing can be noted on it, so its recompute is refused
            notes = vars(region).setdefault(NOTE, {})
            notes[key] = noted if notes.get(key, noted) == noted else _SEVERAL


def recall(calls: Calls) -> tuple[bool, Noted | None]:
    """Whether the region that is being recomputed was noted, and what was noted on it.

    Raises:
        RecomputeError: several forwards ran in it, and not all with one source and one size of image.
    """
    return _recalled(calls)


def _recalled(key: Any) -> tuple[bool, Any]:
    for region, _ in _regions():
        notes = getattr(region, NOTE, {})
        if key not in notes:
            continue
        if notes[key] is _SEVERAL:
            raise RecomputeError(
                "several forwards of the backbone are in one checkpointed region, and they had different sources",
                expected="one forward in a region, or me(x, source=...) in it in place of me.backbone(x)",
                given="a region with forwards of several sources (or none), sizes of image, or partly in me.disabled()",
                fix="give each forward a checkpoint of its own, or call me(x, source=...) in the region",
            )
        return True, notes[key]
    return False, None


def check_gradients(path: str, trains: bool) -> None:
    """Raise where a forward that wants gradients reaches a site without them, so that they would be lost silently.

    Args:
        path: the site.
        trains: whether its unit is to be trained by this forward.

    Raises:
        RecomputeError: inside a reentrant checkpoint none of whose inputs requires gradients.
        SiteError: in a part of the backbone that runs under `torch.no_grad`.
    """
    region = None
    for around, recomputed in _regions():
        if recomputed:
            break
        region = around if isinstance(around, FunctionCtx) else region  # the outermost: what is inside has no gradients
    if region is None and trains:
        raise SiteError(
            "runs without gradients in training, so its unit would never learn",
            path=path,
            expected="a site outside the backbone's `torch.no_grad` blocks",
            given="a part of the backbone that runs under no_grad",
            fix="choose another module, let this part run with gradients, or freeze this unit (requires_grad_(False))",
        )
    if region is not None and not any(getattr(region, "needs_input_grad", (True,))):
        raise RecomputeError(
            "stands in a reentrant checkpoint, and none of its inputs requires gradients: nothing in it would get any",
            path=path,
            expected="use_reentrant=False",
            given="a reentrant checkpoint (use_reentrant=True, or TIMM_REENTRANT_CKPT=1)",
            fix="switch checkpointing on with use_reentrant=False, or let the input require gradients",
        )


def _regions() -> Iterator[tuple[Any, bool]]:
    """The checkpointed regions around this code, the innermost first, and whether each is being recomputed."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if code.co_filename == _FILE and code.co_name == "unpack_hook":
            yield frame.f_locals.get("frame"), True
        elif code.co_filename == _FILE and isinstance(generator := frame.f_locals.get("gen"), GeneratorType):
            if generator.gi_frame is not None:
                yield generator.gi_frame.f_locals.get("new_frame"), False
        elif code.co_name in ("forward", "backward") and code.co_varnames[:1] not in ((), ("self",)):
            context = frame.f_locals.get(code.co_varnames[0])
            if isinstance(context, FunctionCtx):
                yield context, code.co_name == "backward"
        frame = frame.f_back
