"""Rows of JSON lines files: one object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from mi2p_inject.recipes.data.tables.lines import check_regular, lines, unreadable
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["json_columns", "json_rows"]

_OBJECT = "write one JSON object a line"
_ARRAY = "write one object a line; of an array: jq -c '.[]'"


def json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number of each line that is not empty, and its object.

    Raises:
        RecipeError: the file cannot be read; a line is no JSON, no object, or has a key twice.
    """
    for number, line in enumerate(lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_unique)
        except RecursionError as error:
            raise unreadable(path, number, ValueError("nested too deeply"), _OBJECT) from error
        except ValueError as error:
            raise _no_json(path, number, line, error) from error
        if not isinstance(row, dict):
            raise RecipeError(
                f"{path}, line {number}: {type(row).__name__}, expected an object {{...}}",
                given=line.strip()[:100],
                fix=_ARRAY if isinstance(row, list) else _OBJECT,
            )
        yield number, row


def _no_json(path: Path, number: int, line: str, error: ValueError) -> RecipeError:
    if line.strip() == "[":
        return unreadable(path, number, ValueError(f"{error} (a JSON array)"), _ARRAY)
    if isinstance(error, json.JSONDecodeError) or "there twice" in str(error):
        return unreadable(path, number, error, _OBJECT)
    return unreadable(
        path, number, ValueError("a number of too many digits"), "write a long number as a text: in quotes"
    )


def json_columns(path: Path) -> list[str]:
    """The keys of all rows, in the order in which they come first.

    Raises:
        RecipeError: as `json_rows`; the file is empty.
    """
    status = check_regular(path)
    return list(_columns(path, status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=64)
def _columns(path: Path, size: int, changed: int) -> tuple[str, ...]:
    names: dict[str, None] = {}
    empty = True
    for _, row in json_rows(path):
        names.update(dict.fromkeys(row))
        empty = False
    if empty:
        raise RecipeError(f"{path} is empty", fix="write one JSON object a line")
    return tuple(names)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = sorted({name for name, _ in pairs if [one for one, _ in pairs].count(name) > 1})
        raise ValueError(f"the key {twice[0]!r} is there twice")
    return found
