"""The folder of a run: nothing half-written, nothing overwritten unasked, and an interrupted run goes on.

::

    run.json            what the run is (recipe, seed, schedule): written first
    rows/<row>/         one finished row: its checkpoint, its logits, row.json; appears at once and complete
    table.md figure.png the report
    metrics.json        all numbers: written last, so its presence means "finished"
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mi2p_inject.recipes.errors import RecipeError

__all__ = ["FINISHED", "RunFolder"]

FINISHED = "metrics.json"
_IDENTITY = "run.json"
_ROWS = "rows"
_TEMPORARY = ".unfinished-"


class RunFolder:
    """Opens a run folder, new or unfinished.

    Args:
        path: the folder; made if absent.
        identity: what the run is, as JSON values. An unfinished run goes on only if it has the very same identity.
        overwrite: delete an earlier run there first. Only what a run writes is deleted, and only where run.json says
            that the folder is a run's.

    Raises:
        RecipeError: the path is a file, holds a finished or another run, or holds files that are no run's.
    """

    def __init__(self, path: Path, identity: dict[str, Any], *, overwrite: bool = False) -> None:
        self.path = path
        self._check(identity, overwrite)
        try:
            path.mkdir(parents=True, exist_ok=True)
            if overwrite:
                self._clear()
            (path / _ROWS).mkdir(exist_ok=True)
        except OSError as error:
            raise RecipeError(f"cannot write to {path}: {error.strerror}", fix="choose another --out") from error
        self._sweep()
        if not (path / _IDENTITY).exists():
            self.write(_IDENTITY, lambda file: file.write_text(_json(identity)))

    def finished_rows(self) -> list[str]:
        """Names of the rows that are complete."""
        rows = self.path / _ROWS
        return (
            sorted(row.name for row in rows.iterdir() if not row.name.startswith(_TEMPORARY)) if rows.is_dir() else []
        )

    def row(self, name: str) -> Path:
        """The folder of a row, finished or not."""
        return self.path / _ROWS / name

    def save_row(self, name: str, fill: Callable[[Path], None]) -> None:
        """Let ``fill`` write into a temporary folder, which becomes ``rows/<name>`` in one step."""
        temporary = self.path / _ROWS / f"{_TEMPORARY}{name}"
        try:
            temporary.mkdir()
            fill(temporary)
            os.replace(temporary, self.row(name))
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def write(self, name: str, fill: Callable[[Path], object]) -> Path:
        """Let ``fill`` write a temporary file, which becomes ``name`` in one step."""
        stem, dot, suffix = name.rpartition(".")
        temporary = self.path / f"{_TEMPORARY}{stem}{dot}{suffix}"
        try:
            fill(temporary)
            os.replace(temporary, self.path / name)
        finally:
            temporary.unlink(missing_ok=True)
        return self.path / name

    def write_json(self, name: str, value: Any) -> Path:
        """`write` of an indented JSON document."""
        return self.write(name, lambda file: file.write_text(_json(value)))

    def _check(self, identity: dict[str, Any], overwrite: bool) -> None:
        path = self.path
        if path.exists() and not path.is_dir():
            raise RecipeError(f"--out {path} is a file, not a folder", fix="name a new folder, e.g. --out runs/demo")
        if not path.is_dir() or not any(path.iterdir()):
            return
        known = _read(path / _IDENTITY)
        if known is None:
            raise RecipeError(
                f"--out {path} holds files, but no run of mi2p", fix="name a new folder; --overwrite deletes runs only"
            )
        if overwrite:
            return
        if (path / FINISHED).exists():
            raise RecipeError(
                f"--out {path} holds a finished run", fix="add --overwrite to replace it, or name another --out"
            )
        if known != identity:
            different = sorted(key for key in {*known, *identity} if known.get(key) != identity.get(key))
            raise RecipeError(
                f"--out {path} holds an unfinished run of other settings ({', '.join(different)} differ)",
                fix="repeat its settings to go on with it, add --overwrite to replace it, or name another --out",
            )

    def _clear(self) -> None:
        for name in (FINISHED, "table.md", "figure.png"):  # the mark of a finished run first
            (self.path / name).unlink(missing_ok=True)
        shutil.rmtree(self.path / _ROWS, ignore_errors=True)
        (self.path / _IDENTITY).unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what a killed run left half-written."""
        for leftover in (*self.path.glob(f"{_TEMPORARY}*"), *(self.path / _ROWS).glob(f"{_TEMPORARY}*")):
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()


def _read(path: Path) -> dict[str, Any] | None:
    """The run's identity; None where there is none that can be read."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) and "recipe" in value else None


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
