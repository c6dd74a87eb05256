"""Folders of labels and of splits: what lies about in them, and what a training would write into them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from data_files import Load, draw, load, note, sizes, write

from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.saving.output_folder import check_outside_data

__all__ = ["load"]


def labels(folder: Path) -> Path:
    for i in range(36):
        draw(folder / f"c{i % 3}" / f"{i}.png", i)
    return folder


STRAY = {
    "annotations": "1.xml",
    "meta": "labels.json",
    "__MACOSX": "c0/._1.png",
    ".git": "HEAD.png",
    "@eaDir": "1.png",
    "__pycache__": "a.png",
    "empty": None,
    "code": "train.py",
}


@pytest.mark.parametrize("name", STRAY)
@pytest.mark.fault("tables", "folders without images or texts among the labels", "left out, with a note")
def test_stray_folders_are_no_labels(name: str, tmp_path: Path, load: Load) -> None:
    expected = load(labels(tmp_path / "data"))
    content = STRAY[name]
    if content is None:
        (tmp_path / "data" / name).mkdir()
    else:
        write(tmp_path / "data" / name / content, "not an image")
    samples = load(tmp_path / "data")
    assert samples.classes == expected.classes == ("c0", "c1", "c2")
    assert sizes(samples) == sizes(expected)
    known = name.startswith((".", "_", "@"))
    assert [one for one in samples.notes if name in one] == (
        [] if known else [f"left out: the folder {name}: it holds no image and no text"]
    )


def test_stray_folders_beside_splits(tmp_path: Path, load: Load) -> None:
    labels(tmp_path / "data" / "train")
    labels(tmp_path / "data" / "test")
    write(tmp_path / "data" / "annotations" / "1.xml", "<x/>")
    write(tmp_path / "data" / "train" / "annotations" / "1.xml", "<x/>")
    samples = load(tmp_path / "data")
    assert samples.classes == ("c0", "c1", "c2")
    assert len([one for one in samples.notes if "the folder annotations" in one]) == 1


def test_stray_files_beside_images_are_counted(tmp_path: Path, load: Load) -> None:
    labels(tmp_path / "data")
    for i in range(5):
        write(tmp_path / "data" / "c0" / f"{i}.xml", "<x/>")
    write(tmp_path / "data" / "c1" / "notes.json", "{}")
    samples = load(tmp_path / "data")
    assert "left out: 6 files that are neither image nor text (5 .xml, 1 .json)" in samples.notes
    assert not [one for one in samples.notes if "bad images" in one]


def test_an_image_without_an_ending_is_one(tmp_path: Path, load: Load) -> None:
    labels(tmp_path / "data")
    (tmp_path / "data" / "c0" / "0.png").rename(tmp_path / "data" / "c0" / "without")
    assert sum(sizes(load(tmp_path / "data")).values()) == 36


@pytest.mark.fault("files", "a named pipe or a device in place of an image", "no image; it is not opened")
def test_a_pipe_is_no_image(tmp_path: Path, load: Load) -> None:
    labels(tmp_path / "data")
    os.mkfifo(tmp_path / "data" / "c0" / "pipe")
    os.mkfifo(tmp_path / "data" / "c0" / "pipe.png")
    (tmp_path / "data" / "c1" / "zero.jpg").symlink_to("/dev/zero")
    assert sum(sizes(load(tmp_path / "data")).values()) == 36


def test_a_text_that_is_a_pipe(tmp_path: Path, load: Load) -> None:
    labels(tmp_path / "data")
    os.mkfifo(tmp_path / "data" / "c0" / "0.txt")
    with pytest.raises(RecipeError, match="no regular file"):
        load(tmp_path / "data")


@pytest.mark.fault("tables", "an earlier run in the data folder", "left out, with a note")
def test_an_earlier_run_is_no_label(tmp_path: Path, load: Load) -> None:
    expected = load(labels(tmp_path / "data"))
    for run in ("run", "c0/run"):  # also where somebody put it into a label
        write(tmp_path / "data" / run / "run.json", "{}")
        draw(tmp_path / "data" / run / "figure.png")
        draw(tmp_path / "data" / run / "rows" / "one" / "figure.png")
    samples = load(tmp_path / "data")
    assert samples.classes == expected.classes
    assert sizes(samples) == sizes(expected)
    assert "left out: the folder run: it is a run of mi2p, not a label" in samples.notes


class TestOutputs:
    @pytest.mark.parametrize("out", ["data/run", "data", "data/c0/run", "link/run", "data/../data/run"])
    @pytest.mark.parametrize("option", ["--out", "source_cache"])
    @pytest.mark.fault("tables", "an --out or source cache inside the data folder", "RecipeError at the start")
    def test_inside_the_data_are_refused(self, out: str, option: str, tmp_path: Path) -> None:
        labels(tmp_path / "data")
        (tmp_path / "link").symlink_to(tmp_path / "data")
        with pytest.raises(RecipeError, match=rf"{option} .* lies in the data folder[\s\S]*fix: {option}"):
            check_outside_data(tmp_path / "data", {"other": None, option: tmp_path / out})
        with pytest.raises(RecipeError, match="lies in the data folder"):
            check_outside_data(f"food101:{tmp_path / 'data'}", {option: tmp_path / out})

    def test_relative_paths(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        labels(tmp_path / "data")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(RecipeError, match="lies in the data folder"):
            check_outside_data("data", {"--out": "data/run"})
        monkeypatch.setenv("HOME", str(tmp_path))
        with pytest.raises(RecipeError, match="lies in the data folder"):
            check_outside_data("~/data", {"--out": "~/data/run"})

    def test_beside_the_data_are_fine(self, tmp_path: Path) -> None:
        labels(tmp_path / "data")
        check_outside_data(tmp_path / "data", {"--out": tmp_path / "data-run", "source_cache": tmp_path})
        check_outside_data(tmp_path / "nowhere", {"--out": tmp_path / "run"})
        check_outside_data("openmoji", {"--out": tmp_path / "run"})

    def test_a_table_names_its_files_itself(self, tmp_path: Path) -> None:
        write(tmp_path / "my.csv", "text,label\n")
        check_outside_data(tmp_path / "my.csv", {"--out": tmp_path / "run"})
        shutil.move(tmp_path / "my.csv", tmp_path / "train.csv")
        check_outside_data(tmp_path, {"--out": tmp_path / "run"})


@pytest.mark.fault("tables", "images in folders train and test, and no split column", "a note says so")
def test_folders_of_splits_that_no_column_gives(tmp_path: Path, load: Load) -> None:
    names = [f"{'train' if i % 3 else 'test'}/{i}.png" for i in range(60)]
    for i, name in enumerate(names):
        draw(tmp_path / name, i)
    rows = [f"{name},text {i},{'ab'[i % 2]}" for i, name in enumerate(names)]
    write(tmp_path / "a.csv", "\n".join(["image,text,label", *rows]))
    assert "folders test, train, but no column" in note(load(tmp_path / "a.csv"), "the images lie in")
    rows = [f"{row},{name.partition('/')[0]}" for row, name in zip(rows, names, strict=True)]
    samples = load(write(tmp_path / "b.csv", "\n".join(["image,text,label,split", *rows])))
    assert not any("images lie in" in one for one in samples.notes)
