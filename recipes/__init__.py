"""Training on image-text data: `fit`, `load_run`, `load_mean`, and the command `mi2p`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mi2p_inject.recipes.api import MeanOfRuns as MeanOfRuns
    from mi2p_inject.recipes.api import Run as Run
    from mi2p_inject.recipes.api import fit as fit
    from mi2p_inject.recipes.api import load_mean as load_mean
    from mi2p_inject.recipes.api import load_run as load_run

__all__ = ["MeanOfRuns", "Run", "fit", "load_mean", "load_run"]


def __getattr__(name: str) -> Any:
    """Looked up when it is used: the command line starts without torch."""
    if name in __all__:
        return getattr(_api(name), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _api(name: str) -> Any:
    try:
        from mi2p_inject.recipes import api
    except ModuleNotFoundError as error:
        from mi2p_inject.recipes.errors import RECIPES_EXTRA, MissingLibraryError, missing_library

        if (library := missing_library(error)) is None:
            raise
        raise MissingLibraryError(f"{name} needs {library}, which is not installed", fix=RECIPES_EXTRA) from error
    return api


def __dir__() -> list[str]:
    return __all__
