"""The two canonical forms a unit sees: a map (B, C, H, W) or tokens (B, L, D)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from mi2p_inject.core.errors import UnitError

__all__ = ["Kind", "ViewSpec"]

Kind = Literal["map", "tokens"]


@dataclass(frozen=True)
class ViewSpec:
    """What a unit must know of a view before any tensor flows: its kind, its width, its grid.

    Args:
        kind: "map" or "tokens".
        width: channels C of a map, feature dimension D of tokens.
        grid: (H, W) of a map; None for tokens, whose length may change from call to call.

    Raises:
        UnitError: the numbers contradict the kind.

    Examples:
        >>> from mi2p_inject import ViewSpec
        >>> print(ViewSpec.tokens(768), ViewSpec.map(1024, 7, 7))
        tokens (B, L, 768) map (B, 1024, 7, 7)
    """

    kind: Kind
    width: int
    grid: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        sizes = (self.width, *(self.grid or ()))
        positive = all(isinstance(size, int) and size > 0 for size in sizes)
        if self.kind not in ("map", "tokens") or (self.kind == "map") != (self.grid is not None) or not positive:
            raise UnitError(
                "a view is a map with a grid, or tokens without one",
                expected="ViewSpec.map(C, H, W) or ViewSpec.tokens(D), all positive integers",
                given=f"kind={self.kind!r}, width={self.width}, grid={self.grid}",
                fix="build it with ViewSpec.map or ViewSpec.tokens",
            )

    @classmethod
    def map(cls, channels: int, height: int, width: int) -> ViewSpec:
        """The spec of a map (B, channels, height, width)."""
        return cls("map", channels, (height, width))

    @classmethod
    def tokens(cls, width: int) -> ViewSpec:
        """The spec of tokens (B, L, width) of any length."""
        return cls("tokens", width)

    @classmethod
    def of(cls, view: Tensor) -> ViewSpec:
        """The spec of a view: four axes are a map, three are tokens."""
        if view.dim() == 4:
            return cls.map(int(view.shape[1]), int(view.shape[2]), int(view.shape[3]))
        return cls.tokens(int(view.shape[-1]))

    @property
    def vector(self) -> int:
        """How many numbers one token of this view holds: H·W for a map (its tokens are channels), else D."""
        return self.grid[0] * self.grid[1] if self.grid else self.width

    def accepts(self, other: ViewSpec) -> bool:
        """Whether features of `other` can be read as this: same kind and width (the grid may be pooled)."""
        return (self.kind, self.width) == (other.kind, other.width)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form; `from_json` reads it back."""
        return {"kind": self.kind, "width": self.width, "grid": list(self.grid) if self.grid else None}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ViewSpec:
        """Inverse of `to_json`."""
        grid = data["grid"]
        return cls(data["kind"], int(data["width"]), (int(grid[0]), int(grid[1])) if grid else None)

    def __str__(self) -> str:
        return f"map (B, {self.width}, {self.grid[0]}, {self.grid[1]})" if self.grid else f"tokens (B, L, {self.width})"
