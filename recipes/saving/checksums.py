"""Checksums of a finished run's files: what is read back is what was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mi2p_inject.core.files.digest import file_digest
from mi2p_inject.core.files.read import read_regular
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["CHECKSUMS", "check_files", "check_weights", "checksums_of", "read_json"]

CHECKSUMS = "checksums.json"
_MOST_BYTES = 2**26
"""Of a JSON in a run folder."""


def checksums_of(folder: Path, names: Iterable[str], texts: dict[str, str]) -> dict[str, str]:
    """SHA-256 of files and of all that is in folders, by their path in a run folder; and of texts not written yet."""
    found = {name: hashlib.sha256(text.encode("utf-8")).hexdigest() for name, text in texts.items()}
    return found | {name: file_digest(folder / name) for name in _files(folder, names)}


def check_files(folder: Path, *names: str) -> None:
    """Files of a run, and all that is in folders of it, are what the run wrote: none changed, missing or added.

    Hidden files, which file managers add, do not count.

    Raises:
        RecipeError: names the first that is not.
    """
    sums = read_json(folder / CHECKSUMS)
    if not isinstance(sums, dict):
        raise _damaged(folder, CHECKSUMS, "an object", type(sums).__name__)
    known = {name for name in sums if any(name == one or name.startswith(f"{one}/") for one in names)}
    there = set(_files(folder, names))
    for name in sorted(known | there):
        try:
            given = file_digest(folder / name)
        except OSError as error:
            given = str(error)
        if name not in known or given != sums[name]:
            raise _damaged(folder, name, f"SHA-256 {sums.get(name, 'of no such file')}", f"SHA-256 {given}")


def check_weights(folder: Path) -> None:
    """A run kept its weights.

    Raises:
        RecipeError: it did not.
    """
    if not (folder / "model" / "model.safetensors").is_file():
        raise RecipeError(f"{folder} kept no weights", fix="train with keep_weights=true")


def read_json(path: Path) -> Any:
    """A JSON of a run folder.

    Raises:
        RecipeError: it cannot be read, or is none.
    """
    try:
        return json.loads(read_regular(path, _MOST_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RecipeError(
            f"the run folder {path.parent} is damaged: {path.name}: {error}",
            expected="the files that `mi2p train` wrote",
            given=path.name,
            fix="copy it again",
        ) from error


def _files(folder: Path, names: Iterable[str]) -> list[str]:
    """Paths of files: those named, and those in folders named."""
    found = []
    for name in names:
        inside = [path for path in (folder / name).rglob("*") if not path.is_dir() or path.is_symlink()]
        paths = inside if (folder / name).is_dir() else [folder / name] if (folder / name).exists() else []
        found += [path.relative_to(folder).as_posix() for path in paths if not path.name.startswith(".")]
    return sorted(found)


def _damaged(folder: Path, name: str, expected: str, given: str) -> RecipeError:
    return RecipeError(
        f"the run folder {folder} is damaged: {name} is not what the run wrote",
        expected=expected,
        given=given,
        fix="copy it again",
    )
