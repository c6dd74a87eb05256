"""What every unit kind is: a configuration that builds, for one site and one source, a module giving a residual."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mi2p_inject.core.errors import LayoutError, UnitError
from mi2p_inject.core.layout import describe
from mi2p_inject.core.numerics.precision import autocast_dtype, compute_dtype, floating_dtype
from mi2p_inject.core.numerics.weights_taken import Axis
from mi2p_inject.core.views import ViewSpec
from mi2p_inject.sources.prepared import PreparedSource

__all__ = [
    "Unit",
    "UnitConfig",
    "ZeroInit",
    "attention_weights",
    "check_flag",
    "check_option",
    "check_residual",
    "check_source_norm",
    "check_unit",
    "is_positive",
    "largest_divisor",
    "later_option",
    "options_as_saved",
]

ZeroInit = Literal["value_proj", "scalar", "channel"]


class Unit(nn.Module, ABC):
    """A plug-in at one site: (view, source) -> residual, which the site's hook adds to the hidden state.

    Args:
        site: the view it adds to.
        source: the features it reads.

    What a kind guarantees (`tests/units/test_kinds.py` checks it for every kind of the table):

    - The residual has the view's shape: (B, C, H, W) of any H, W, or (B, L, D) of any L, as `site` says.
    - It starts at exactly zero, so that the expanded model starts as the backbone bit for bit (unless an option asks
      for something else), and some parameter has a gradient then.
    - It is exactly zero in rows where `source.rows` is False. Tokens where `source.mask` is False do not count.
    - float16 gives the float32 result, rounded: nothing leaves the range of float16 on the way.
    - Rows are independent of each other, and nothing is kept between calls.
    - It has a floating parameter (views are cast to its dtype), is built on the meta device too, and can be deep-copied
      and pickled.
    - Its `nn.Linear`s are called: LoRA and quantisation replace such layers, without effect where code uses their
      `weight`. A weight that code uses is a parameter of a module of another class (`mi2p_inject.units.layers.linear`).
    """

    def __init__(self, site: ViewSpec, source: ViewSpec) -> None:
        super().__init__()
        self.site, self.source = site, source

    @abstractmethod
    def forward(self, view: Tensor, source: PreparedSource) -> Tensor:
        """The residual for `view`, zero in rows whose source is missing."""

    def describe(self) -> dict[str, str]:
        """What the summary and `mi2p layers` say of this unit beside its size: column -> words; by default nothing."""
        return {}

    def attention_axes(self) -> tuple[Axis, Axis] | None:
        """What its attention's queries and keys are; None: it has none, by default.

        A kind that has says so here, and hands its weights over with `give_weights` where `wants_weights()`
        (`mi2p_inject.core.numerics.weights_taken`); then `record_attention` records them.
        """
        return None

    def axes(self, of_map: Axis) -> tuple[Axis, Axis]:
        """What queries and keys are where those of tokens are the tokens, and those of a map `of_map`."""
        return of_map if self.site.kind == "map" else "tokens", of_map if self.source.kind == "map" else "tokens"

    def check_width(self, view: Tensor) -> None:
        """Raise `LayoutError` for a view of another width than the site's."""
        width = view.shape[1] if self.site.kind == "map" else view.shape[2]
        if width != self.site.width:
            raise LayoutError(
                "the unit was built for another width",
                expected=str(self.site),
                given=str(tuple(view.shape)),
                fix="inject again into the model as it is now",
            )

    def widened(self, view: Tensor, source: PreparedSource) -> tuple[Tensor, PreparedSource]:
        """View and source as the unit computes with them: float32 instead of float16.

        Under autocast to bfloat16 a source in float32 is converted once for all units, not by each of them.
        """
        if torch.float16 not in (view.dtype, source.tokens.dtype):
            lower = source.tokens.dtype == torch.float32 and autocast_dtype(view) == torch.bfloat16
            return view, source.to(dtype=torch.bfloat16) if lower else source
        dtype = compute_dtype(floating_dtype(self))
        return view.to(dtype), source.to(dtype=dtype)

    @staticmethod
    def zero_missing(residual: Tensor, source: PreparedSource) -> Tensor:
        """The residual, exactly zero in rows whose source is missing."""
        if source.rows is None:
            return residual
        return residual.masked_fill(~source.rows.view(-1, *[1] * (residual.dim() - 1)), 0)


@dataclass(frozen=True)
class UnitConfig(ABC):
    """The typed options of one unit kind.

    A kind is a frozen dataclass of options, each None, a boolean, a number or a string (a checkpoint keeps them as
    JSON), that checks them when it is made (`check_option`). It is named by `kind`, which is also its name in the table
    `UNITS`: a line there, an entry point of the group `mi2p_inject.units`, or `UNITS.register(kind, config)`.
    """

    @property
    @abstractmethod
    def kind(self) -> str:
        """The kind's name in the table of units."""

    @abstractmethod
    def build(self, site: ViewSpec, source: ViewSpec, default_heads: int = 8) -> Unit:
        """A unit for one site and one source.

        Args:
            site: the view it adds to.
            source: the features it reads.
            default_heads: the adapter's number of attention heads; for kinds that have heads.

        Raises:
            UnitError: this kind has no form for these views; the message says which it has.
        """


def later_option(default: Any, before: Any) -> Any:
    """A field of a `UnitConfig` that checkpoints may lack, because the option came after them.

    Args:
        default: of new units.
        before: what it was for units when there was no such option.
    """
    return field(default=default, metadata={"before": before})


def options_as_saved(config: UnitConfig, saved: Mapping[str, Any]) -> dict[str, Any]:
    """Options that a file holds; those that came after it was written are as its units had them.

    Args:
        config: of the kind, with its default options.
        saved: what the file holds.

    Examples:
        >>> from mi2p_inject import MI2P
        >>> from mi2p_inject.units.base import options_as_saved
        >>> options_as_saved(MI2P(), {"num_heads": 4, "source_norm": True})
        {'source_norm': True, 'pooled_shift': False, 'num_heads': 4}
    """
    return {one.name: one.metadata["before"] for one in fields(config) if "before" in one.metadata} | {**saved}


def check_option(name: str, value: Any, ok: bool, expected: str) -> None:
    """Raise `UnitError` for an option out of range."""
    if not ok:
        raise UnitError(
            f"unit option {name} is out of range", expected=expected, given=repr(value), fix=f"change {name}="
        )


def check_unit(unit: object, config: UnitConfig, path: str = "") -> None:
    """Raise `UnitError` where what a kind built is no unit, or one without weights that can be read now.

    Args:
        unit: what `build` gave.
        config: whose.
        path: of the site.
    """
    parameters = list(unit.parameters()) if isinstance(unit, Unit) else []
    lazy = any(is_lazy(one) for one in parameters)
    if lazy or not any(one.is_floating_point() for one in parameters):
        has = "lazy parameters" if lazy else f"{len(parameters)} parameters, none of them floating"
        raise UnitError(
            f"build of the kind {config.kind!r} gives no unit that can stand here",
            path=path,
            expected="a mi2p_inject.units.Unit with a floating parameter, all of known shape",
            given=f"{type(unit).__name__}, {has}" if isinstance(unit, Unit) else type(unit).__name__,
            fix=f"change {type(config).__name__}.build, which knows the widths: site.width, source.width",
        )


def check_residual(residual: object, view: Tensor, unit: nn.Module, path: str = "") -> None:
    """Raise `UnitError` for a residual of another shape than the view's: a sum would broadcast it, or not.

    Args:
        residual: what the unit gave.
        view: what it was given.
        unit: for the message.
        path: of the site.
    """
    if not isinstance(residual, Tensor) or residual.shape != view.shape:
        raise UnitError(
            f"{type(unit).__name__} gives no residual of its view's shape",
            path=path,
            expected=f"a tensor {tuple(view.shape)}",
            given=describe(residual),
            fix="give it that shape in the unit's forward: one number for several positions is .expand_as(view)",
        )


def check_flag(name: str, value: Any) -> None:
    """Raise `UnitError` for an option that is neither True nor False."""
    check_option(name, value, isinstance(value, bool), "True or False")


def is_positive(value: object) -> bool:
    """Whether an option is a positive integer."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def attention_weights(queries: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(QKᵀ) over the tokens of the mask (as the scores, in all leading axes); queries come scaled."""
    scores = queries @ keys.mT
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(-1)


def check_source_norm(source_norm: bool, source: ViewSpec) -> None:
    """Raise `UnitError` where normalisation would leave nothing of the source."""
    if source_norm and source.width == 1:
        raise UnitError(
            "layer normalisation leaves nothing of a source of width 1",
            expected="a source of width 2 or more, or source_norm=False",
            given=str(source),
            fix="pass source_norm=False",
        )


def largest_divisor(number: int, at_most: int) -> int:
    """The largest divisor of `number` that is at most `at_most`: heads that a width of 196 or 49 allows.

    Examples:
        >>> from mi2p_inject.units.base import largest_divisor
        >>> [largest_divisor(n, 8) for n in (3136, 784, 196, 49)]
        [8, 8, 7, 7]
    """
    return next(num_heads for num_heads in range(min(number, at_most), 0, -1) if number % num_heads == 0)
