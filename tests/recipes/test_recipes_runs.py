"""The run folder: atomic, resumable, never overwritten unasked."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from kills import FORK, killed_in
from safetensors.torch import save_file

from mi2p_inject.core.files.atomic_write import PREFIX
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.experiments.folder import finished_runs, folder_of
from mi2p_inject.recipes.saving.run_folder import (
    FINISHED,
    IDENTITY,
    LOCK,
    RunFolder,
    check_out,
    keep_hold,
    read_identity,
)

SETTINGS = {"recipe": "test", "seed": 0}
ONE_RUN = [
    "experiments",
    "experiments/vision",
    "experiments/vision/seed-0",
    "experiments/vision/seed-0/metrics.json",
]


def fill(folder: Path) -> None:
    (folder / FINISHED).write_text("{}")


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != LOCK)


def test_a_new_folder(tmp_path: Path) -> None:
    RunFolder(tmp_path / "a" / "b", SETTINGS).save_folder("experiments/vision/seed-0", fill)
    assert names(tmp_path / "a" / "b") == [*ONE_RUN, "run.json"]
    assert json.loads((tmp_path / "a" / "b" / "run.json").read_text()) == SETTINGS


def test_an_empty_folder_is_fine(tmp_path: Path) -> None:
    RunFolder(tmp_path, SETTINGS)
    assert finished_runs(tmp_path) == {}


def test_an_unfinished_run_goes_on(tmp_path: Path) -> None:
    RunFolder(tmp_path, SETTINGS).save_folder("experiments/vision/seed-0", fill)
    RunFolder(tmp_path, SETTINGS)
    assert finished_runs(tmp_path) == {"vision": [0]}
    assert (folder_of(tmp_path, "vision", 0) / FINISHED).is_file()


def test_an_unfinished_run_of_other_settings_is_refused(tmp_path: Path) -> None:
    RunFolder(tmp_path, SETTINGS)
    with pytest.raises(RecipeError, match=r"\(seed differ\)[\s\S]*--overwrite"):
        RunFolder(tmp_path, {**SETTINGS, "seed": 1})


def test_where_data_sources_and_caches_are_is_no_other_setting(tmp_path: Path) -> None:
    given: dict[str, Any] = {"data": "my.csv", "image_root": None, "source_run": ["runs/text"], "source_cache": "a"}
    moved = {"data": "/data/my.csv", "image_root": "/data", "source_run": ["/runs/text"], "source_cache": "b"}
    RunFolder(tmp_path, {**SETTINGS, "config": {**given, "epochs": 1}}).close()
    now = {**SETTINGS, "config": {**moved, "epochs": 1}}
    RunFolder(tmp_path, now).close()
    assert read_identity(tmp_path) == now
    with pytest.raises(RecipeError, match=r"\(epochs differ\)"):
        RunFolder(tmp_path, {**SETTINGS, "config": {**moved, "epochs": 2}})


def test_a_finished_run_is_refused_then_overwritten(tmp_path: Path) -> None:
    first = RunFolder(tmp_path, SETTINGS)
    first.save_folder("experiments/vision/seed-0", fill)
    first.write_json(FINISHED, {})
    with pytest.raises(RecipeError, match=r"finished run[\s\S]*--overwrite"):
        RunFolder(tmp_path, SETTINGS)
    (tmp_path / "mine.txt").write_text("keep")
    RunFolder(tmp_path, {**SETTINGS, "seed": 1}, overwrite=True)
    assert finished_runs(tmp_path) == {}
    assert names(tmp_path) == ["mine.txt", "run.json"]


@pytest.mark.fault("S5", "--overwrite of a run whose checkpoints are a link to another disk", "the run starts anew")
def test_what_is_overwritten_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints that stayed would be gone on with, whatever the new settings."""
    RunFolder(tmp_path / "run", SETTINGS)
    (tmp_path / "disk" / "checkpoint-8").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "disk")
    RunFolder(tmp_path / "run", {**SETTINGS, "seed": 1}, overwrite=True)
    assert names(tmp_path / "run") == ["run.json"]
    assert (tmp_path / "disk" / "checkpoint-8").is_dir()  # a person's place: not emptied

    def busy(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "run" / "checkpoints").mkdir()
    monkeypatch.setattr(shutil, "rmtree", busy)
    with pytest.raises(RecipeError, match="cannot write to"):
        RunFolder(tmp_path / "run", SETTINGS, overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_run_is_never_touched(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "thesis.txt").write_text("mine")
    with pytest.raises(RecipeError, match="no run of mi2p"):
        RunFolder(tmp_path, SETTINGS, overwrite=overwrite)
    assert (tmp_path / "experiments" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_is_refused(tmp_path: Path, overwrite: bool) -> None:
    file = tmp_path / "out"
    file.write_text("mine")
    with pytest.raises(RecipeError, match="is a file"):
        RunFolder(file, SETTINGS, overwrite=overwrite)
    with pytest.raises(RecipeError, match="cannot write"):
        RunFolder(file / "below", SETTINGS, overwrite=overwrite)
    assert file.read_text() == "mine"


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
def test_nothing_half_written_stays(tmp_path: Path, stop: type[BaseException]) -> None:
    folder = RunFolder(tmp_path, SETTINGS)

    def interrupted(target: Path) -> None:
        (target / "half" if target.is_dir() else target).write_text("half")
        raise stop

    with pytest.raises(stop):
        folder.save_folder("experiments/vision/seed-0", interrupted)
    with pytest.raises(stop):
        folder.write("table.md", interrupted)
    assert names(tmp_path) == ["experiments", "experiments/vision", "run.json"]


@pytest.mark.parametrize("place", ["model", "experiments/vision/seed-1"])
def test_what_a_killed_run_left_is_swept(tmp_path: Path, place: str) -> None:
    RunFolder(tmp_path, SETTINGS).save_folder("experiments/vision/seed-0", fill)

    def half(here: Callable[[], None]) -> None:
        RunFolder(tmp_path, SETTINGS).save_folder(place, lambda folder: (fill(folder), here())[0])

    killed_in(half)
    (tmp_path / "experiments" / "vision" / "seed-10").mkdir()
    assert len(list(tmp_path.rglob(f"{PREFIX}*"))) == 1
    RunFolder(tmp_path, SETTINGS)
    assert finished_runs(tmp_path) == {"vision": [0]}
    assert names(tmp_path) == [*ONE_RUN, "experiments/vision/seed-10", "run.json"]
    assert not (tmp_path / LOCK).exists()


def test_what_a_run_left_that_was_killed_at_once_is_no_other_folder(tmp_path: Path) -> None:
    def write(here: Callable[[], None]) -> None:
        os.replace = lambda *_: here()  # type: ignore[assignment]
        RunFolder(tmp_path, SETTINGS)

    killed_in(write)
    assert sorted(path.name[:9] for path in tmp_path.iterdir()) == [".lock", ".writing-"]
    RunFolder(tmp_path, SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == [IDENTITY]


@pytest.mark.fault("S5", "a run folder that somebody deletes while it is written", "it is made again, whole")
def test_a_deleted_folder_is_made_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", SETTINGS)
    shutil.rmtree(tmp_path / "run")
    folder.save_folder("model", fill)
    shutil.rmtree(tmp_path / "run")
    folder.finish({"a": 1})
    assert names(tmp_path / "run") == ["checksums.json", "metrics.json", "run.json"]
    assert read_identity(tmp_path / "run") == SETTINGS

    def other() -> None:
        with pytest.raises(RecipeError, match="is in use"):
            check_out(tmp_path / "run", extend=True)

    process = FORK.Process(target=other)  # it is held as before
    process.start()
    process.join(30)
    assert process.exitcode == 0
    folder.close()
    assert not (tmp_path / "run" / LOCK).exists()


@pytest.mark.fault(
    "S5", "a run folder deleted and begun anew by another process while the first still writes", "the first ends"
)
def test_a_folder_that_another_process_has_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "run"
    folder = RunFolder(path, SETTINGS)
    shutil.rmtree(path)
    ready, stop = FORK.Event(), FORK.Event()

    def second() -> None:
        other = RunFolder(path, SETTINGS)
        ready.set()
        stop.wait(30)
        other.write_json(FINISHED, {"by": "second"})

    process = FORK.Process(target=second)
    process.start()
    assert ready.wait(30)
    for write in (
        lambda: keep_hold(path), lambda: folder.save_folder("model", fill), lambda: folder.write_json("a", {}),
        lambda: folder.finish({}),
    ):  # fmt: skip
        with pytest.raises(RecipeError, match=rf"is in use[\s\S]*process {process.pid} on "):
            write()
    stop.set()
    process.join(30)
    assert names(path) == [FINISHED, IDENTITY]
    assert json.loads((path / FINISHED).read_text()) == {"by": "second"}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.fault(
    "S5", "two processes, one --out", "the second ends at once and names who has it; the first is undisturbed"
)
def test_the_second_process_names_who_has_the_folder(tmp_path: Path, overwrite: bool) -> None:
    ready, stop = FORK.Event(), FORK.Event()

    def first() -> None:
        folder = RunFolder(tmp_path, SETTINGS)
        ready.set()
        stop.wait(30)
        folder.write_json(FINISHED, {"by": "first"})

    process = FORK.Process(target=first)
    process.start()
    assert ready.wait(30)
    for begin in (
        lambda: check_out(tmp_path, overwrite=overwrite),
        lambda: RunFolder(tmp_path, SETTINGS, overwrite=overwrite),
    ):
        with pytest.raises(RecipeError, match=rf"is in use[\s\S]*process {process.pid} on .*, since 2"):
            begin()
    stop.set()
    process.join(30)
    assert json.loads((tmp_path / FINISHED).read_text()) == {"by": "first"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [FINISHED, IDENTITY]


@pytest.mark.fault("S5", "the process that had --out was killed", "the next one goes on at once")
def test_a_killed_process_has_no_folder(tmp_path: Path) -> None:
    def hold(here: Callable[[], None]) -> None:
        folder = RunFolder(tmp_path, SETTINGS)
        folder.write("table.md", lambda file: file.write_text("done"))
        here()

    killed_in(hold)
    assert (tmp_path / LOCK).exists()
    check_out(tmp_path)
    assert not (tmp_path / LOCK).exists()
    RunFolder(tmp_path, SETTINGS)
    assert (tmp_path / "table.md").read_text() == "done"


@pytest.mark.parametrize("content", ["[" * 100_000, "", "[]", "{}", '"recipe"', "\udc80", "pipe", "folder", "device"])
@pytest.mark.fault("files", "a damaged run.json, or a named pipe in its place", "RecipeError: no run of mi2p")
def test_an_identity_that_cannot_be_read(tmp_path: Path, content: str) -> None:
    path = tmp_path / IDENTITY
    if content == "pipe":
        os.mkfifo(path)
    elif content == "folder":
        path.mkdir()
    elif content == "device":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert read_identity(tmp_path) is None
    with pytest.raises(RecipeError, match="no run of mi2p"):
        RunFolder(tmp_path, SETTINGS, overwrite=True)


def test_others_may_read_what_the_folder_lets_them_read(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    mode = (tmp_path / "plain").stat().st_mode
    (tmp_path / "plain").unlink()
    folder = RunFolder(tmp_path, SETTINGS)
    folder.write("predictions.safetensors", lambda file: save_file({"a": torch.zeros(2)}, file))
    folder.save_folder("model", lambda target: save_file({"a": torch.zeros(2)}, target / "model.safetensors"))
    for name in (IDENTITY, "predictions.safetensors", "model/model.safetensors"):
        assert (tmp_path / name).stat().st_mode == mode
