"""The folder of a run: nothing half-written, nothing overwritten unasked, and an interrupted run goes on.

::

    run.json            what the run is (recipe, format, seed, settings): written first
    experiments/        of a set of experiments: a run folder for each with each seed
    model/              a trained model: see `mi2p_inject.recipes.saving.saved`; appears at once and complete
    sources/<modality>/ of a training with source=tuned: the run of each source encoder
    checkpoints/        to resume from; gone when the run is finished
    logs/               of --log
    table.md figure.png the report
    report.html         that of `mi2p report --html`
    README.md           of a training: its model card; one that a person wrote stays
    checksums.json      of a training: SHA-256 of every file, verified when it is read back
    metrics.json        all numbers: written last, so its presence means "finished"
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from mi2p_inject.core.files.atomic_write import PREFIX, remove_leftovers, write_file, write_folder
from mi2p_inject.core.files.lock import LockHeldError, WriterLock
from mi2p_inject.core.files.read import read_regular
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.saving.checksums import CHECKSUMS, checksums_of
from mi2p_inject.recipes.saving.identity import FINISHED, IDENTITY, check_identity, read_identity

__all__ = [
    "EXPERIMENTS",
    "FINISHED",
    "IDENTITY",
    "LOCK",
    "REPORT",
    "RunFolder",
    "check_out",
    "keep_hold",
    "read_identity",
    "remove_scratch",
    "runs_in",
    "text_of",
    "which_run",
]

EXPERIMENTS = "experiments"
REPORT = "report.html"
_FILES = (FINISHED, CHECKSUMS, "table.md", "figure.png", REPORT, "history.json", "predictions.safetensors")
_FOLDERS = (EXPERIMENTS, "sources", "model", "checkpoints", "logs", "source-cache")
LOCK = ".lock"
_MOST_REPORT = 2**26
_LOCKS: WeakValueDictionary[Path, WriterLock] = WeakValueDictionary()
"""Those that this process holds: it may open a run folder again."""


class RunFolder:
    """Opens a run folder, new or unfinished, and holds it: no other process can write there while this object lives.

    Args:
        path: the folder; made if absent.
        identity: what the run is, as JSON values. An unfinished run goes on only if it is the same,
            wherever its data are.
        overwrite: delete an earlier run there first. Only what a run writes is deleted, and only where run.json says
            that the folder is a run's.
        extend: a finished run may go on, too.

    Raises:
        RecipeError: the path is a file, holds a finished or another run, holds files that are no run's, or another
            process has it.
    """

    def __init__(self, path: Path, identity: dict[str, Any], *, overwrite: bool = False, extend: bool = False) -> None:
        self.path, self._identity = path, identity
        check_out(path, overwrite=overwrite, extend=extend)
        if not overwrite:
            check_identity(path, identity)
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(path)
            if overwrite:
                self._clear()
            _remove_all_leftovers(path)
            if read_identity(path) != identity:
                self.write_json(IDENTITY, identity)
        except LockHeldError as error:
            raise _in_use(path, error) from error
        except OSError as error:
            raise RecipeError(f"cannot write to {path}: {error.strerror}", fix="choose another --out") from error

    def save_folder(self, name: str, fill: Callable[[Path], None]) -> None:
        """Let ``fill`` write into a temporary folder, which becomes ``name`` in one step; an older one is replaced."""
        keep_hold(self.path)
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        write_folder(self.path / name, fill)

    def write(self, name: str, fill: Callable[[Path], object]) -> Path:
        """Let ``fill`` write a temporary file, which becomes ``name`` in one step."""
        keep_hold(self.path)
        write_file(self.path / name, fill)
        return self.path / name

    def write_json(self, name: str, value: Any) -> Path:
        """`write` of an indented JSON document."""
        return self.write(name, lambda file: file.write_text(_json(value), encoding="utf-8"))

    def finish(self, numbers: dict[str, Any]) -> None:
        """Write the checksums of all files, then metrics.json: the mark of a finished run."""
        if not (self.path / IDENTITY).exists():  # somebody has deleted the folder meanwhile
            self.write_json(IDENTITY, self._identity)
        kept = [name for name in (IDENTITY, *_FILES, "model") if name not in (FINISHED, CHECKSUMS)]
        self.write_json(CHECKSUMS, checksums_of(self.path, kept, {FINISHED: _json(numbers)}))
        self.write_json(FINISHED, numbers)

    def close(self) -> None:
        """Give the folder back to whoever wants to write there next.

        Without it the collector of garbage does, where a Ctrl-C would be lost.
        """
        self._lock.release()

    def _clear(self) -> None:
        for name in _FILES:  # the mark of a finished run first
            (self.path / name).unlink(missing_ok=True)
        for name in _FOLDERS:
            place = self.path / name
            if place.is_symlink():  # to a larger disk; `rmtree` follows none
                place.unlink()
            elif place.exists():
                shutil.rmtree(place)
        (self.path / IDENTITY).unlink(missing_ok=True)


def check_out(path: Path, *, overwrite: bool = False, extend: bool = False) -> None:
    """Whether a run may begin or go on there, before anything is read or made; arguments as `RunFolder`'s.

    Raises:
        RecipeError: the path is a file, cannot be written, holds a finished run, holds files that are no run's, or
            another process is writing there.
    """
    if path.exists() and not path.is_dir():
        raise RecipeError(f"--out {path} is a file, not a folder", fix="name a new folder, e.g. --out runs/demo")
    nearest = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise RecipeError(f"cannot write to {path}: {nearest} is not a writable folder", fix="choose another --out")
    if not path.is_dir():
        return
    try:
        if (path / LOCK).exists():
            _locked(path)  # for this moment only; that removes the lock of a process that was killed
    except LockHeldError as error:
        raise _in_use(path, error) from error
    except OSError as error:
        raise RecipeError(f"cannot write to {path}: {error.strerror}", fix="choose another --out") from error
    if all(one.name == LOCK or one.name.startswith(PREFIX) for one in path.iterdir()):
        return
    if read_identity(path) is None:
        raise RecipeError(
            f"--out {path} holds files, but no run of mi2p", fix="name a new folder; --overwrite deletes runs only"
        )
    if not (path / FINISHED).exists():
        return
    remove_scratch(path)
    if not (overwrite or extend):
        raise RecipeError(
            f"--out {path} holds a finished run", fix="add --overwrite to replace it, or name another --out"
        )


def remove_scratch(path: Path) -> None:
    """Delete what a finished run needs no longer; one that was killed after its last file has it still."""
    sources = path / "sources"
    folders = [path / "checkpoints", *sources.glob("*/checkpoints"), *sources.glob("*-without-fold-*")]
    if (path / EXPERIMENTS).is_dir():  # a table's own cache; one that a training was given is its user's
        folders.append(path / "source-cache")
    for one in folders:
        shutil.rmtree(one, ignore_errors=True)
    _remove_all_leftovers(path)
    for lock in (lock for name in ("sources", EXPERIMENTS) for lock in (path / name).rglob(LOCK)):
        if lock.resolve() not in _LOCKS:
            with suppress(OSError), WriterLock(lock):  # leaving it removes the file; somebody else's is an OSError
                pass


def _remove_all_leftovers(path: Path) -> None:
    """What killed writers left in a folder and below."""
    for folder in {leftover.parent for leftover in path.rglob(f"{PREFIX}*")}:
        remove_leftovers(folder)


def keep_hold(path: Path) -> None:
    """Take a run folder again that somebody has deleted while this process writes there; nothing for others' folders.

    Raises:
        RecipeError: another process has begun a run there since.
    """
    place = path.resolve() / LOCK
    lock = _LOCKS.get(place)
    if lock is None or lock.kept:
        return
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock.release()
        lock.acquire()
    except LockHeldError as error:
        raise _in_use(path, error) from error
    except OSError as error:
        raise RecipeError(f"cannot write to {path}: {error.strerror}", fix="choose another --out") from error


def runs_in(folder: Path) -> list[str]:
    """Names of the run folders in a folder; [] where there is no such folder, or it cannot be read."""
    try:
        return sorted(one.name for one in folder.iterdir() if (one / IDENTITY).is_file())
    except OSError:
        return []


def which_run(path: Path) -> str:
    """What to do where a folder, or a file, is none of a run."""
    if runs := runs_in(path):
        return f"name a run in it: {', '.join(str(path / one) for one in runs[:3])}"
    return "name the folder that was given to --out, or train one: mi2p train --data my.csv --out runs/first"


def text_of(path: Path) -> str:
    """A report of a run folder.

    Raises:
        RecipeError: it cannot be read, is no regular file, or has more than 64 MiB.
    """
    try:
        return read_regular(path, _MOST_REPORT).decode("utf-8", errors="replace")
    except OSError as error:
        raise RecipeError(
            f"cannot read {path}: {error.strerror}", expected="what `mi2p table` wrote", fix="copy it again"
        ) from error


def _locked(path: Path) -> WriterLock:
    """The lock of a run folder, held as long as somebody here keeps it."""
    place = path.resolve() / LOCK
    lock = _LOCKS.setdefault(place, WriterLock(place))
    if not lock.held:
        lock.acquire()
    return lock


def _in_use(path: Path, error: LockHeldError) -> RecipeError:
    return RecipeError(
        f"--out {path} is in use: a run is being written there",
        expected="one process a run folder",
        given=str(error.holder or "another process"),
        fix="wait until it has ended, or name another --out",
    )


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
