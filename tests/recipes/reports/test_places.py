"""A place that cannot be written to, and a run without what is asked of it: one line, and what to do."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from mi2p_inject.core.files.atomic_write import PREFIX
from mi2p_inject.recipes.cli.exit_codes import reported
from mi2p_inject.recipes.config import with_options
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.saving.hub import portable
from mi2p_inject.recipes.saving.saved import SavedRun, load_run

GOLDEN = Path(__file__).parents[2] / "golden" / "run-3" / "run"


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG]
)
def test_a_full_or_closed_place_is_one_line(number: int) -> None:
    app = typer.Typer()

    @app.command()
    def write() -> None:
        with reported():
            raise OSError(number, os.strerror(number), f"runs/first{os.sep}{PREFIX}1a2b/report.html")

    shown = CliRunner().invoke(app, [])
    assert shown.exit_code == 1
    assert isinstance(shown.exception, SystemExit)
    assert shown.stderr.startswith(f"error: runs/first: {os.strerror(number)}\n  fix: ")


def test_another_error_of_the_system_is_not_hidden() -> None:
    with pytest.raises(IsADirectoryError), reported():
        raise IsADirectoryError(errno.EISDIR, "Is a directory")


def test_what_leaves_finds_no_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`shutil.copytree` tells of a full disk as a list."""
    saved = load_run(shutil.copytree(GOLDEN, tmp_path / "run"))

    def full(*_: object, **__: object) -> None:
        raise shutil.Error([("a", "b", "[Errno 28] No space left on device")])

    monkeypatch.setattr(shutil, "copytree", full)
    with (
        pytest.raises(RecipeError, match=r"No space left on device[\s\S]*make room, or set TMPDIR"),
        portable(saved.path, saved.config, saved.numbers),
    ):
        pass


ASKED: dict[str, Callable[[SavedRun], Any]] = {
    "model": SavedRun.model,
    "encoders": SavedRun.encoders,
    "columns": SavedRun.columns,
    "collator": lambda run: run.collator({}),
}


@pytest.mark.parametrize("asked", ASKED)
def test_a_run_without_weights_says_so(asked: str, tmp_path: Path) -> None:
    """One that reads columns has no file of them either, which is not what is wrong with it."""
    run = load_run(shutil.copytree(GOLDEN, tmp_path / "run"))
    shutil.rmtree(run.path / "model")
    run = replace(run, config=with_options(run.config, {"numeric_cols": ["grams"]}))
    with pytest.raises(RecipeError, match=r"kept no weights\n  fix: train with keep_weights=true"):
        ASKED[asked](run)
