"""Training on image-text data: `fit`, `load_run`, and the command `mi2p`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mi2p_inject.recipes.api import Run as Run
    from mi2p_inject.recipes.api import fit as fit
    from mi2p_inject.recipes.api import load_run as load_run

__all__ = ["Run", "fit", "load_run"]


def __getattr__(name: str) -> Any:
    """Looked up when it is used: the command line starts without torch."""
    if name in __all__:
        from mi2p_inject.recipes import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
