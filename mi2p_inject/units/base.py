"""What every plug-in kind is: a configuration that builds, for one site and one source, a module giving a residual."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from mi2p_inject.core.errors import UnitError
from mi2p_inject.core.views import ViewSpec
from mi2p_inject.sources.features import PreparedSource

ZeroInit = Literal["value_proj", "scalar", "channel"]


class Unit(nn.Module, ABC):
    """A plug-in at one site: (view, source) -> residual of the view's shape."""

    site: ViewSpec
    source: ViewSpec
    num_heads: int

    @abstractmethod
    def forward(self, view: Tensor, source: PreparedSource) -> Tensor:
        """The residual for `view`, zero in rows whose source is missing."""


@dataclass(frozen=True)
class UnitConfig(ABC):
    """The typed options of one plug-in kind; JSON-ready through `dataclasses.asdict`."""

    @property
    @abstractmethod
    def kind(self) -> str:
        """The kind's name in the table of units."""

    @abstractmethod
    def build(self, site: ViewSpec, source: ViewSpec, default_heads: int = 8) -> Unit:
        """A unit for one site and one source."""


def check_option(name: str, value: Any, ok: bool, expected: str) -> None:
    """Raise `UnitError` for an option out of range."""
    if not ok:
        raise UnitError(
            f"unit option {name} is out of range", expected=expected, given=repr(value), fix=f"change {name}="
        )


def largest_divisor(number: int, at_most: int) -> int:
    """The largest divisor of `number` that is at most `at_most`: heads that a width of 196 or 49 allows.

    Example:
        >>> from mi2p_inject.units.base import largest_divisor
        >>> [largest_divisor(n, 8) for n in (3136, 784, 196, 49)]
        [8, 8, 7, 7]
    """
    return next(num_heads for num_heads in range(min(number, at_most), 0, -1) if number % num_heads == 0)
