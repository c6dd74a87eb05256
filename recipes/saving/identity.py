"""What a run is, as run.json says it, and whether a command goes on with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mi2p_inject.core.files.read import read_regular
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["FINISHED", "IDENTITY", "PLACES", "check_identity", "read_identity"]

FINISHED = "metrics.json"
IDENTITY = "run.json"
PLACES = ("data", "image_root", "source_cache", "source_run")
"""Options that say where something is. What the data hold and what a source run has learned stand in run.json by
themselves: from another folder, or by another path, they are the same."""
_MOST_BYTES = 2**22
"""Of run.json."""
_WORDS = {"data": "what the data hold", "cells": "what the columns hold"}


def read_identity(path: Path) -> dict[str, Any] | None:
    """What the run in a folder is; None where there is none that can be read."""
    try:
        value = json.loads(read_regular(path / IDENTITY, _MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and "recipe" in value else None


def check_identity(path: Path, identity: Mapping[str, Any]) -> None:
    """That the run in a folder, where there is one, is the run that a command describes.

    Args:
        path: the run folder.
        identity: of the command's run; where its data, sources and caches are may differ.

    Raises:
        RecipeError: it is another one.
    """
    known = read_identity(path)
    if known is None or not (different := sorted(_differences(_without_places(known), _without_places(identity)))):
        return
    which = "a run" if (path / FINISHED).exists() else "an unfinished run"
    raise RecipeError(
        f"--out {path} holds {which} of other settings ({', '.join(different)} differ)",
        fix="repeat its settings to go on with it, add --overwrite to replace it, or name another --out",
    )


def _without_places(identity: Mapping[str, Any]) -> dict[str, Any]:
    config = identity.get("config")
    if not isinstance(config, Mapping):
        return dict(identity)
    given = {name: config.get(name) is not None for name in PLACES if name.startswith("source_")}
    return {**identity, "config": {**{name: value for name, value in config.items() if name not in PLACES}, **given}}


def _differences(known: Mapping[str, Any], identity: Mapping[str, Any]) -> set[str]:
    """Names of the settings that differ, those inside a group of settings by their own names."""
    found = set()
    for key in {*known, *identity}:
        old, new = known.get(key), identity.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found |= _differences(old, new)
        elif old != new:
            found.add(_WORDS.get(key, key))
    return found
