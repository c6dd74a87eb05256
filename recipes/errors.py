"""The one error of the recipes."""

from __future__ import annotations

from mi2p_inject.core.errors import Mi2pError

__all__ = ["RecipeError"]


class RecipeError(Mi2pError, ValueError):
    """A recipe cannot go on: a missing wheel, an unusable folder, data that does not fit.

    The message says what was found, what was expected and what to do.
    """
