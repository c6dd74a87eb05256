"""Answers come from the right picture: that of the new table, not of the training's folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from predict_commands import alone, lines, mi2p, picture, same, train
from recipes_data import write_table


@pytest.fixture(scope="module")
def rooted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of pictures whose table names them from another folder; trained until it knows the colours."""
    folder = tmp_path_factory.mktemp("rooted")
    write_table(folder / "pictures")
    (folder / "pictures" / "my.csv").rename(folder / "my.csv")
    steps = {"epochs": 6, "max_steps": 36, "learning_rate": 1e-2, "new_learning_rate": 1e-2}
    return train(folder / "my.csv", folder / "run", model="vision", image_root=folder / "pictures", **steps)


def _csv(folder: Path, image: str) -> Path:
    (folder / "new.csv").write_text(f"image\n{image}\n")
    return folder / "new.csv"


def _tsv(folder: Path, image: str) -> Path:
    (folder / "new.tsv").write_text(f"image\ttext\n{image}\tx\n")
    return folder / "new.tsv"


def _jsonl(folder: Path, image: str) -> Path:
    (folder / "new.jsonl").write_text(json.dumps({"image": image}) + "\n")
    return folder / "new.jsonl"


def _parquet(folder: Path, image: str) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"image": [image]}), folder / "new.parquet")
    return folder / "new.parquet"


def _tables(folder: Path, image: str) -> Path:
    (folder / "test.csv").write_text(f"image\n{image}\n")
    return folder


def _pictures(folder: Path, image: str) -> Path:
    return folder / Path(image).parent


NEW = (_csv, _tsv, _jsonl, _parquet, _tables, _pictures)


@pytest.mark.parametrize("write", NEW, ids=lambda one: one.__name__.strip("_"))
@pytest.mark.fault(
    "predict", "a new table whose pictures have the names of the training's", "its own pictures, from its own folder"
)
def test_a_new_table_means_its_own_pictures(rooted: Path, tmp_path: Path, write: Callable[[Path, str], Path]) -> None:
    """The training's folder has a picture of this very name, of another colour."""
    assert (rooted.parent / "pictures" / "img" / "test0.png").is_file()
    own = picture(tmp_path / "img" / "test0.png", colour=0)  # red; the training's is blue
    theirs = picture(tmp_path / "other" / "test0.png", colour=2)
    expected = alone(rooted, own)
    assert expected["probabilities"] != alone(rooted, theirs)["probabilities"]
    data = write(tmp_path, "img/test0.png")
    (answer,) = lines(mi2p("predict", rooted, "--data", data))
    same(answer, expected)
    assert answer["problem"] is None


@pytest.mark.parametrize("option", [("--image-root", "{}"), ("--set", "image_root={}")], ids=("option", "set"))
@pytest.mark.fault("predict", "pictures in another folder", "--image-root of predict")
def test_the_folder_of_the_pictures_can_be_named(rooted: Path, tmp_path: Path, option: tuple[str, str]) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    picture(here / "a.png", colour=0)
    expected = alone(rooted, picture(there / "a.png", colour=2))
    (answer,) = lines(mi2p("predict", rooted, "--data", _csv(here, "a.png"), option[0], option[1].format(there)))
    same(answer, expected)
    numbers = mi2p("eval", rooted, "--data", _labelled(here, "blue"), option[0], option[1].format(there), "--json")
    answer = alone(rooted, there / "a.png")
    assert json.loads(numbers.stdout)["metrics"]["accuracy"]["value"] == float(answer["label"] == "blue")


def test_absolute_paths_and_a_moved_run_folder(rooted: Path, tmp_path: Path) -> None:
    own = picture(tmp_path / "far" / "a.png", colour=2)
    moved = shutil.copytree(rooted, tmp_path / "moved")
    (tmp_path / "tables").mkdir()
    (answer,) = lines(mi2p("predict", moved, "--data", _csv(tmp_path / "tables", own)))
    same(answer, alone(rooted, own))


def _labelled(folder: Path, label: str) -> Path:
    (folder / "labelled.csv").write_text(f"image,label\na.png,{label}\n")
    return folder / "labelled.csv"


@pytest.mark.fault("predict", "eval of a new table", "its own pictures")
def test_eval_of_new_data_means_its_own_pictures(rooted: Path, tmp_path: Path) -> None:
    for folder, colour in ((tmp_path, 2), (rooted.parent / "pictures", 0)):
        picture(folder / "a.png", colour)
    answer = alone(rooted, tmp_path / "a.png")
    assert answer["label"] != alone(rooted, rooted.parent / "pictures" / "a.png")["label"]
    numbers = json.loads(mi2p("eval", rooted, "--data", _labelled(tmp_path, answer["label"]), "--json").stdout)
    assert numbers["metrics"]["accuracy"]["value"] == 1


@pytest.mark.parametrize("given", [(), ("--data", "{data}"), ("--data", "{other}")], ids=("none", "same", "same-file"))
def test_eval_of_its_own_data_keeps_its_folder(rooted: Path, given: tuple[str, ...]) -> None:
    names = {"data": rooted.parent / "my.csv", "other": rooted / ".." / "my.csv"}
    numbers = json.loads(mi2p("eval", rooted, *(one.format(**names) for one in given), "--json").stdout)
    saved = json.loads((rooted / "metrics.json").read_text())
    assert numbers["metrics"]["accuracy"] == saved["test"]["accuracy"]
    assert numbers["samples"] == 12


def test_a_folder_that_is_not_there(rooted: Path, tmp_path: Path) -> None:
    result = mi2p("predict", rooted, "--data", _csv(tmp_path, "a.png"), "--image-root", tmp_path / "none", code=1)
    assert "does not exist" in result.stderr
    pictures = tmp_path / "pictures"
    picture(pictures / "a.png", 0)
    result = mi2p("predict", rooted, "--data", pictures, "--image-root", tmp_path, code=1)
    assert "--image-root" in result.stderr
