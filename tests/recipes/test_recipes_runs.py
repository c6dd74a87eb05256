"""The run folder: atomic, resumable, never overwritten unasked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.experiments.folder import finished_runs, folder_of
from mi2p_inject.recipes.training.run_folder import FINISHED, RunFolder

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
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


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


def test_what_a_killed_run_left_is_swept(tmp_path: Path) -> None:
    RunFolder(tmp_path, SETTINGS).save_folder("experiments/vision/seed-0", fill)
    (tmp_path / ".unfinished-model").mkdir()
    (tmp_path / ".unfinished-model" / "half").write_text("half")
    (tmp_path / "experiments" / "vision" / "seed-10").mkdir()
    (tmp_path / ".unfinished-table.md").write_text("half")
    RunFolder(tmp_path, SETTINGS)
    assert finished_runs(tmp_path) == {"vision": [0]}
    assert names(tmp_path) == [*ONE_RUN, "experiments/vision/seed-10", "run.json"]
