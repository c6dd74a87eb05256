"""Paths as a user writes them."""

from __future__ import annotations

import os
from pathlib import Path

from mi2p_inject.recipes.errors import RecipeError

__all__ = ["home_path"]


def home_path(value: str | os.PathLike[str]) -> Path:
    """The path, with ``~`` as the home folder: shells do not expand it in ``--out=~/run``.

    Args:
        value: of a file or a folder.

    Raises:
        RecipeError: it is neither a string nor a path, or an empty string, which would be the current folder.

    Examples:
        >>> home_path("~/run") == Path.home() / "run"
        True
    """
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str) or not str(value).strip():
        raise RecipeError(
            "a file or a folder is named by a string or a path",
            expected="str or Path",
            given=f"{type(value).__name__}: {value!r}"[:200],
            fix="pass its path",
        )
    try:
        return Path(value).expanduser()
    except RuntimeError:  # ~somebody, who is not here: a folder of that name
        return Path(value)
