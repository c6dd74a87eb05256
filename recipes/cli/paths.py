"""Paths as a shell hands them over."""

from __future__ import annotations

from pathlib import Path

import typer

from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.paths import home_path

__all__ = ["typed_path"]


def typed_path(value: str | Path) -> Path:
    """A path of an option or argument.

    Raises:
        BadParameter: it is empty, as an unset variable of a shell makes it.

    Examples:
        >>> typed_path("runs/first").name
        'first'
    """
    try:
        return home_path(value)
    except RecipeError as error:
        raise typer.BadParameter("it is empty: give a path") from error
