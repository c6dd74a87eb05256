"""The call that each thread is in: its source, its units, and the sites that have fired so far."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mi2p_inject.sources.features import PreparedSource
from mi2p_inject.units.unit_dict import UnitDict

__all__ = ["Call", "Calls"]


@dataclass
class Call:
    """One forward of an expanded model, or one call of a method of its backbone."""

    source: PreparedSource
    units: UnitDict
    """The expanded model's units as they are now: whoever replaces one needs no new hooks."""
    image: tuple[int, int] | None = None
    """Size of the image that went into the backbone, if one did."""
    fired: list[str] = field(default_factory=list)
    repeat: Callable[[Tensor], PreparedSource] | None = None
    """Set where a method of the backbone runs it as often as it likes (generation): the source with some of its rows
    repeated, given their indices. None: one forward, in which each site fires once."""
    gradients: bool = field(default_factory=torch.is_grad_enabled)
    """Whether gradients were wanted when it began."""
    _repeated: dict[int, PreparedSource] = field(default_factory=dict)

    def source_for(self, batch: int) -> PreparedSource:
        """The source for a batch at a site: the batch of the call, or each of its rows repeated alike."""
        rows = self.source.batch
        if self.repeat is None or batch == rows or batch % rows:
            return self.source
        if batch not in self._repeated:
            indices = torch.arange(rows, device=self.source.tokens.device).repeat_interleave(batch // rows)
            self._repeated[batch] = self.repeat(indices)
        return self._repeated[batch]


class Calls(threading.local):
    """The call each thread is in; None outside a forward with a source. Copies and pickles start empty."""

    call: Call | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return (Calls, ())

    def __deepcopy__(self, memo: dict[int, Any]) -> Calls:
        copied: Calls = memo.setdefault(id(self), Calls())
        return copied
