"""Building a model from a stranger's numbers: it ends where it grows beyond its file, not where memory does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mi2p_inject.core.errors import ZooError

__all__ = ["MOST_MODULES", "bounded", "check_buildable", "check_size"]

MOST_MODULES = 2**16
"""An encoder of timm, transformers or open_clip has some hundreds, or thousands."""
_MOST_BYTES = 2**37
"""Of parameters whose file is not there: 128 GiB."""
_SLACK = 2**26
"""Bytes of masks, positions and a second tower, which no weights file holds."""


@contextmanager
def bounded(most: int) -> Iterator[None]:
    """A block in which a model is built, in this thread: its parts are counted while they are made.

    A number of layers, experts or positions may be small for one key and beyond reason for the next; what it makes of
    them tells. Nothing has to be allocated for it: the meta device will do.

    Args:
        most: bytes of its parameters in float32, such as the size of the file that holds them.

    Raises:
        ZooError: parameters beyond twice that size (some are made anew and tied), or `MOST_MODULES` modules.

    Examples:
        >>> with torch.device("meta"), bounded(2**20):
        ...     layers = [nn.Linear(2**14, 2**14)]
        Traceback (most recent call last):
        mi2p_inject.core.errors.ZooError: the model is larger than its weights
          expected: at most 1,048,576 bytes
          given: 1,073,741,824 bytes, and more to come
          fix: copy the folder again
    """
    here, seen = threading.get_ident(), {"modules": 0, "bytes": 0}

    def on_module(*_: Any) -> None:
        if threading.get_ident() != here:
            return
        seen["modules"] += 1
        if seen["modules"] > MOST_MODULES:
            raise ZooError(
                "the model has more modules than any", expected=f"at most {MOST_MODULES:,}", given="more",
                fix="copy the folder again",
            )  # fmt: skip

    def on_parameter(module: nn.Module, name: str, parameter: Any) -> None:
        if threading.get_ident() != here or not isinstance(parameter, torch.Tensor):
            return
        seen["bytes"] += 4 * parameter.numel()
        if seen["bytes"] > 2 * most + _SLACK:
            raise _too_large(seen["bytes"], most, ", and more to come")

    registered = nn.modules.module
    handles = [
        registered.register_module_module_registration_hook(on_module),
        registered.register_module_parameter_registration_hook(on_parameter),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def check_buildable(build: Callable[[], nn.Module], staged: Path) -> None:
    """Build a model on the meta device, and refuse one that is beyond the weights in its folder.

    Args:
        build: makes it.
        staged: a checked folder, whose weights may be of any floating type; without weights 128 GiB are allowed.

    Raises:
        ZooError: it is; and what `build` raises.
    """
    stored = sum(file.stat().st_size for file in staged.glob("*.safetensors"))
    most = 4 * stored or _MOST_BYTES  # of one byte a number, and computed with in four
    with torch.device("meta"), bounded(most):
        model = build()
    check_size(model, most)


def check_size(model: nn.Module, most: int) -> None:
    """Refuse a model on the meta device that is larger than its file, before memory is taken for it.

    Args:
        model: with all its parameters.
        most: as for `bounded`; tables that are computed, such as masks, may be as large again.

    Raises:
        ZooError: it is.
    """
    size = 4 * sum(one.numel() for one in model.parameters())
    tables = sum(one.nbytes for one in model.buffers())
    if size > most:
        raise _too_large(size, most)
    if tables > most + _SLACK:
        raise _too_large(size + tables, most, " with its masks and tables")


def _too_large(size: int, most: int, more: str = "") -> ZooError:
    return ZooError(
        "the model is larger than its weights",
        expected=f"at most {most:,} bytes",
        given=f"{size:,} bytes{more}",
        fix="copy the folder again",
    )
