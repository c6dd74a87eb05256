"""Small models and broken units, from which the mutations are made."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from mi2p_inject import MI2P, ViewSpec
from mi2p_inject.expansion.call import Calls, Now
from mi2p_inject.sources.prepared import PreparedSource
from mi2p_inject.units import Unit, UnitConfig

GENERATOR = torch.Generator().manual_seed(0)
PICTURES = torch.randn(3, 3, 6, 6, generator=GENERATOR)
IDS = torch.randint(0, 20, (3, 5), generator=GENERATOR)


class Network(nn.Module):
    """Two sites, of which the first one's forward lasts long enough for threads to meet."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3)
        self.drop, self.head = nn.Dropout(0.2), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        time.sleep(0.002)
        out: Tensor = self.head(self.drop(self.second(x.relu())).mean((2, 3)))
        return out


class Encoder(nn.Module):
    """Tokens of ids, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.drop, self.linear = nn.Embedding(20, 8), nn.Dropout(0.2), nn.Linear(8, 8)

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.linear(self.drop(self.table(ids)))
        return out


class LengthFirst(nn.Module):
    """Its hidden state is (L, B, D), with as many tokens as samples."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.layer(x.transpose(0, 1)).transpose(0, 1))
        return out


Defect = Callable[[Unit, Tensor, PreparedSource], Tensor]
DEFECTS: dict[str, Defect] = {
    "an unused parameter": lambda unit, view, source: unit(view, source),
    "an infinite gradient": lambda unit, view, source: (unit(view, source) ** 2).sqrt(),
    "always zero on small maps": lambda unit, view, source: unit(view, source) * (view.shape[2] == 4),
    "missing samples": lambda unit, view, source: unit(view, replace(source, rows=None)),
    "padding": lambda unit, view, source: unit(view, source) / source.tokens.shape[1],
    "another sample": lambda unit, view, source: unit(view, source).roll(1, 0),
}


@dataclass(frozen=True)
class Wrapped(UnitConfig):
    """MI2P with a defect of the table."""

    defect: str
    kind = "wrapped"

    def build(self, site: ViewSpec, source: ViewSpec, default_heads: int = 8) -> Unit:
        return WrappedUnit(self.defect, site, source)


class WrappedUnit(Unit):
    def __init__(self, defect: str, site: ViewSpec, source: ViewSpec) -> None:
        super().__init__(site, source)
        self.inner, self.defect = MI2P().build(site, source), defect
        self.unused = nn.Parameter(torch.ones(1)) if defect == "an unused parameter" else None

    def forward(self, view: Tensor, source: PreparedSource) -> Tensor:
        return DEFECTS[self.defect](self.inner, view, source)


class SharedCalls:
    """One call for all threads of an expanded model."""

    block, check_task = Calls.block, Calls.check_task

    def __init__(self) -> None:
        self.now = Now()

    def __deepcopy__(self, memo: Any) -> SharedCalls:
        return type(self)()


class GlobalCalls(SharedCalls):
    """One call for all expanded models."""

    everybodys = Now()

    def __init__(self) -> None:
        self.now = self.everybodys


class StickyNow(Now):
    """A call that an exception does not end."""

    def __setattr__(self, name: str, value: Any) -> None:
        if value is not None or sys.exc_info()[1] is None:
            super().__setattr__(name, value)


class StickyCalls(Calls):
    """Its call is not ended by an exception."""

    def __init__(self) -> None:
        self.now = StickyNow()
