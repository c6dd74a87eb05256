"""Paths as a user writes them."""

from __future__ import annotations

from pathlib import Path

__all__ = ["home_path"]


def home_path(value: str | Path) -> Path:
    """The path, with ``~`` as the home folder: shells do not expand it in ``--out=~/run``.

    Examples:
        >>> home_path("~/run") == Path.home() / "run"
        True
    """
    try:
        return Path(value).expanduser()
    except RuntimeError:  # ~somebody, who is not here: a folder of that name
        return Path(value)
