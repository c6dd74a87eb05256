"""A site: one hooked module of the backbone, with its layout and the view that its unit sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from mi2p_inject.core.layout import Layout
from mi2p_inject.core.views import ViewSpec

__all__ = ["Site", "View", "unit_key"]

View = Literal["auto", "map", "tokens"]


@dataclass(frozen=True)
class Site:
    """One hooked module of the backbone: its path, how its hidden state is stored, and the view a unit sees."""

    path: str
    layout: Layout
    spec: ViewSpec

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form; `from_json` reads it back."""
        return {"path": self.path, "layout": self.layout.to_json(), "view": self.spec.to_json()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Site:
        """Inverse of `to_json`."""
        return cls(data["path"], Layout.from_json(data["layout"]), ViewSpec.from_json(data["view"]))


def unit_key(path: str, source: str = "") -> str:
    """The key of a unit among the expanded model's units: at `a.b` it is `/a/b`, which no attribute's name is.

    Examples:
        >>> from mi2p_inject.core.site import unit_key
        >>> unit_key("layer.3"), unit_key("layer.3", source="audio")
        ('/layer/3', 'audio/layer/3')
    """
    return f"{source}/" + path.replace(".", "/")
