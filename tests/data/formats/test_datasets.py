"""What `datasets` knows of its columns: names of classes, given splits, pictures that were never decoded."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet
import pytest
from data_files import Load, load
from PIL import Image

from mi2p_inject.recipes.data.images import open_image
from mi2p_inject.recipes.data.tables.in_memory import as_file
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["load"]


def _pets(names: list[str], numbers: Sequence[int | list[int]], label: Any = None) -> datasets.Dataset:
    features = {"text": datasets.Value("string"), "label": label or datasets.ClassLabel(names=names)}
    rows = [{"text": f"word {i}", "label": number} for i, number in enumerate(numbers)]
    return datasets.Dataset.from_list(rows, features=datasets.Features(features))


def _labels(path: str | Path, load: Load) -> dict[str, str]:
    read = load(path)
    return {row["text"]: read.classes[row["label"]] for part in read.splits.values() for row in part}


@pytest.mark.parametrize("parquet", [True, False], ids=["a Parquet file of datasets", "in memory"])
@pytest.mark.parametrize("names", [["cat", "dog"], ["dog", "cat"]], ids=" ".join)
def test_classes_have_the_names_of_the_feature(names: list[str], parquet: bool, tmp_path: Path, load: Load) -> None:
    data = _pets(names, [0, 1] * 9)
    if parquet:
        data.to_parquet(tmp_path / "a.parquet")
    path = tmp_path / "a.parquet" if parquet else as_file(data, folder=tmp_path)
    assert _labels(path, load) == {f"word {i}": names[i % 2] for i in range(18)}


@pytest.mark.parametrize("form", [None, "numpy", "torch"])
def test_several_labels_a_sample_have_names(form: str | None, tmp_path: Path) -> None:
    feature = datasets.List(datasets.ClassLabel(names=["cat", "dog"]))
    data = _pets([], [[0], [0, 1]], label=feature).with_format(form)
    stored = pyarrow.parquet.read_table(as_file(data, folder=tmp_path)).to_pylist()
    assert [row["label"] for row in stored] == [["cat"], ["cat", "dog"]]


def test_minus_one_is_no_label_and_other_numbers_are_refused(tmp_path: Path, load: Load) -> None:
    stored = pyarrow.parquet.read_table(as_file(_pets(["cat", "dog"], [-1, 1]), folder=tmp_path)).to_pylist()
    assert [row["label"] for row in stored] == [None, "dog"]
    table = _pets(["cat", "dog"], [0, 1] * 9).data.table
    table = table.set_column(1, "label", pyarrow.array([7] * 18)).replace_schema_metadata(table.schema.metadata)
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(RecipeError, match=r"row 1: column 'label' holds the class number 7(.|\n)*0 to 1"):
        load(tmp_path / "a.parquet")


def test_the_splits_of_a_dict_are_the_splits(tmp_path: Path, load: Load) -> None:
    parts = {split: _pets(["cat", "dog"], [0, 1] * size) for split, size in (("train", 9), ("dev", 2), ("test", 3))}
    read = load(as_file(datasets.DatasetDict(parts), folder=tmp_path))
    assert {split: len(rows) for split, rows in read.splits.items()} == {"train": 18, "validation": 4, "test": 6}


def test_a_folder_of_save_to_disk_is_named(tmp_path: Path, load: Load) -> None:
    _pets(["cat", "dog"], [0, 1]).save_to_disk(tmp_path / "saved")
    with pytest.raises(RecipeError, match="load_from_disk"):
        load(tmp_path / "saved")


def test_a_damaged_picture_of_datasets_is_a_bad_image(tmp_path: Path, load: Load) -> None:
    rows: list[dict[str, Any]] = []
    for i in range(18):
        file = io.BytesIO()
        Image.new("RGB", (16, 16), (9 * i, 0, 0)).save(file, "PNG")
        content = b"no picture" if i == 3 else file.getvalue()
        rows.append({"image": {"bytes": content, "path": None}, "text": f"word {i}", "label": i % 2})
    features = {"image": datasets.Image(), "text": datasets.Value("string"), "label": datasets.ClassLabel(2)}
    data = datasets.Dataset.from_list(rows, features=datasets.Features(features))
    read = load(as_file(data, folder=tmp_path))
    assert sum(len(part) for part in read.splits.values()) == 18
    assert any("bad image" in note for note in read.notes)


def _turned() -> Image.Image:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x112] = 6  # orientation: lies on its side
    Image.linear_gradient("L").resize((24, 16)).convert("RGB").save(file, "PNG", exif=exif)
    return Image.open(file)


_GREY = np.linspace(0, 65535, 24 * 16).reshape(16, 24)
PICTURES = {
    "turned by EXIF": _turned,
    "32 bits": lambda: Image.fromarray(_GREY.astype(np.int32)),
    "big-endian 16 bits": lambda: Image.fromarray(_GREY.astype(">u2")),
    "floats": lambda: Image.fromarray((_GREY / 65535).astype(np.float32)),
    "premultiplied": lambda: Image.new("RGBA", (24, 16), (200, 0, 0, 90)).convert("RGBa"),
    "half transparent": lambda: Image.new("LA", (24, 16), (50, 90)),
    "Lab": lambda: Image.merge("LAB", [Image.linear_gradient("L").resize((24, 16))] * 3),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_a_picture_in_memory_is_read_as_one_from_a_file(kind: str, tmp_path: Path) -> None:
    picture = PICTURES[kind]()
    path = Path(as_file([{"image": picture, "text": "a"}], folder=tmp_path))
    stored = open_image(path.parent / pyarrow.parquet.read_table(path).to_pylist()[0]["image"])
    read = open_image(picture)
    assert read is not None
    assert stored is not None
    assert read.size == stored.size
    assert np.array_equal(np.asarray(read), np.asarray(stored))


def test_the_a_of_lab_is_no_transparency() -> None:
    read = open_image(Image.merge("LAB", [Image.new("L", (8, 8), level) for level in (90, 128, 128)]))
    assert np.asarray(read).max() < 200  # grey, not the white below it
