"""What a training writes must not become data of the next one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from mi2p_inject.recipes.data.load import parse_spec
from mi2p_inject.recipes.data.tables.split_files import tables_in
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.paths import home_path

__all__ = ["check_outside_data"]


def check_outside_data(spec: str | Path, outputs: Mapping[str, str | Path | None]) -> None:
    """Refuse an output folder inside a data folder that is read as a whole: it would be a label of the next training.

    Args:
        spec: as in `load_data`.
        outputs: option -> folder that will be written; None: nothing is.

    Raises:
        RecipeError: one is the data folder or lies in it. A folder of tables is read by its tables alone: there it may.

    Examples:
        >>> check_outside_data("pictures/", {"--out": "runs/first"})
    """
    try:
        _, root = parse_spec(str(spec))
    except RecipeError:  # `load_data` says what is wrong with it
        return
    if root is None or not root.is_dir() or tables_in(root):
        return
    data = Path(os.path.realpath(root))
    for option, folder in outputs.items():
        if folder is None:
            continue
        path = Path(os.path.realpath(home_path(folder)))
        if path.is_relative_to(data):
            raise RecipeError(
                f"{option} {folder} lies in the data folder {root}: the next training would take it for a label",
                expected="a folder beside it",
                given=str(path),
                fix=f"{option} {data.parent / 'runs' / (path.name if path != data else 'first')}",
            )
