"""Cells: nothing and several labels in many spellings, characters that are none, names that look alike."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from data_files import Load, draw, load, note
from PIL import Image

from mi2p_inject.recipes.data import Samples
from mi2p_inject.recipes.data.labels import classes_of
from mi2p_inject.recipes.data.tables.cells import labels_of
from mi2p_inject.recipes.data.tables.in_memory import as_file
from mi2p_inject.recipes.data.values import MISSING_WORD, UNDECODABLE
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["load"]

COUNT = 30


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(COUNT):
        draw(folder / f"{i}.png", i)
    return folder


def table(folder: Path, name: str = "a.jsonl", **columns: list[Any]) -> Path:
    """A table in which given values come round and round; None in a list of JSON is null, a missing one no key."""
    plain = {
        "image": [f"{i}.png" for i in range(COUNT)],
        "text": [f"word {i}" for i in range(COUNT)],
        "label": ["a", "b"],
    }
    rows = [{key: values[i % len(values)] for key, values in {**plain, **columns}.items()} for i in range(COUNT)]
    path = folder / name
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps({k: v for k, v in row.items() if v is not ...}) + "\n" for row in rows))
    return path


def texts(samples: Samples) -> list[str | None]:
    return [row["text"] for split in samples.splits.values() for row in split]


class TestNothing:
    @pytest.mark.parametrize(
        "empty",
        [float("nan"), None, "", "  ", ..., "nan", "NaN", "N/A", "n/a", "null", "NA", "None", "\u200b", "\ufeff"],
    )
    @pytest.mark.parametrize("kind", ["text", "image"])
    @pytest.mark.fault("tables", "NaN, null, an empty cell as text or image", "missing, never the word nan")
    def test_as_text_or_image(self, kind: str, empty: Any, pictures: Path, load: Load) -> None:
        values = [empty if i % 3 == 0 else f"{i}.png" if kind == "image" else f"word {i}" for i in range(COUNT)]
        samples = load(table(pictures, f"{kind}.jsonl", **{kind: values}))
        found = [row[kind] for split in samples.splits.values() for row in split]
        assert found.count(None) == COUNT // 3
        assert f"{COUNT // 3} samples without {kind}" in note(samples, f"without {kind}")
        words = isinstance(empty, str) and empty.isascii() and bool(empty.strip())
        assert [one for one in samples.notes if MISSING_WORD in one] == (
            [f"10 rows with {MISSING_WORD} (such as 1, 4, 7)"] if words else []
        )

    @pytest.mark.parametrize(
        "empty",
        [
            *(float("nan"), None, "", ..., "nan", "NaN", "N/A", [], [None], ["nan"], "set()", "[]", "[nan]", "[None]"),
            *("\u200b", "\ufeff", " \u2060 ", "\u00a0", ["\u200b"]),
        ],
    )
    def test_as_a_label(self, empty: Any, pictures: Path, load: Load) -> None:
        path = table(pictures, label=[empty, "a", "b"])
        with pytest.raises(RecipeError, match="10 of 30 samples have no label: 1, 4, 7"):
            load(path, multi_label=False)
        assert sorted(map(tuple, load(path, multi_label=True).targets("train").tolist()))[0] == (0, 0)

    def test_none_and_na_are_names_of_classes(self, pictures: Path, load: Load) -> None:
        assert load(table(pictures, label=["None", "NA", "some"])).classes == ("NA", "None", "some")

    @pytest.mark.parametrize("empty", [float("nan"), None, "", "nan"])
    def test_as_an_id_or_a_group(self, empty: Any, pictures: Path, load: Load) -> None:
        samples = load(table(pictures, id=[empty], group=[empty]))
        assert sorted(int(one) for split in samples.splits.values() for one in split["id"]) == [*range(1, COUNT + 1)]
        assert "30 groups" in note(samples, "split 60/10/30")

    def test_a_parquet_of_pandas(self, pictures: Path, load: Load) -> None:
        numbers = [i + 0.5 if i % 2 else float("nan") for i in range(COUNT)]
        samples = load(table(pictures, "a.parquet", text=numbers, label=["a", "b", "b"]))
        assert set(texts(samples)) == {None, *(str(i + 0.5) for i in range(1, COUNT, 2))}


class TestColumns:
    """Any row of a JSONL file may be the first with a key."""

    @pytest.mark.fault("tables", "a column that the first JSON Lines row lacks", "read from the rows that have it")
    def test_a_later_row_has_the_column(self, pictures: Path, load: Load) -> None:
        first = load(table(pictures, text=[..., "x"], image=[..., *[f"{i}.png" for i in range(1, COUNT)]]))
        assert first.modalities == {"image", "text"}

    def test_an_unlabelled_file(self, tmp_path: Path, pictures: Path, load: Load) -> None:
        for rows in (
            [{"text": "x"}, {"text": "y", "image": "2.png"}],
            [{"text": "y", "image": "2.png"}, {"text": "x"}],
        ):
            (pictures / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            found = load(pictures / "new.jsonl", labelled=False, classes=("a", "b")).splits["test"]
            assert [row["image"] is not None for row in found] == ["image" in row for row in rows]

    @pytest.mark.fault("tables", "a key twice in one JSON object", "RecipeError")
    def test_a_key_twice(self, pictures: Path, load: Load) -> None:
        (pictures / "twice.jsonl").write_text('{"text": "x", "label": "a", "label": "b"}\n')
        with pytest.raises(RecipeError, match=r"line 1: the key 'label' is there twice"):
            load(pictures / "twice.jsonl")


class TestSeveralLabels:
    @pytest.mark.parametrize(
        "cells",
        [
            ["['a']", "['b']", "['a', 'b']"],
            ['["a"]', '["b"]', '["a", "b"]'],
            ["('a',)", "b", "('a', 'b')"],
            ["{'a'}", "b", "{'a', 'b'}"],
            ["a", "b", "a|b"],
            ["a", "b", "['a', 'b']"],
            [["a"], ["b"], ["a", "b"]],
            [["a", None], ["b"], ["a", "b", "nan"]],
            [" [ 'a' ] ", "b ", " a | b "],
        ],
        ids=str,
    )
    @pytest.mark.fault("tables", "a cell of several labels: a list, its text form, separators", "several labels")
    def test_are_split(self, cells: list[Any], pictures: Path, load: Load) -> None:
        samples = load(table(pictures, label=cells))
        assert samples.classes == ("a", "b")
        assert samples.multi_label
        assert sum(samples.targets(split).sum() for split in samples.splits) == 40

    @pytest.mark.parametrize(
        "cells",
        [
            ["a", "b", "a, b"],
            ["a", "b", "a;b"],
            ["a", "b", "a; b"],
            ["a,b", "b,c", "c,a"],
            ["a/b", "b/c", "a/c"],
            ["a", "b", "a+b"],
            ["a", "b", "a & b"],
            [[1, 0], [0, 1], [1, 1]],
            [[1, 0], [0, 1]],
            ["[1, 0]", "[0, 1]"],
            [[1, 0, 0], [0, 1, 0], [0, 1, 1]],
            [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]],
            [[True, False], [False, False]],
            ["[1, 0, 0]", "[0, 1, 0]", "[0, 1, 1]"],
            ["1|0|0", "0|1|0", "0|1|1"],
            ["['a' 'b']", "['a']", "['b']"],
            ["array(['a', 'b'], dtype=object)", "['a']"],
            ["tensor([1, 0])", "tensor([0, 1])"],
            ["frozenset({'a', 'b'})", "frozenset({'a'})"],
            ["[a, b]", "[a]", "[b]"],
            ["{a, b}", "{a}", "{b}"],
            ["['a', nan]", "['a']", "['b']"],
            ["1 0 0", "0 1 0", "0 1 1"],
            ["a\nb", "a", "b"],
            ["a\uff0cb", "a", "b"],
            ["a\u3001b", "a", "b"],
            ["a\uff1bb", "a", "b"],
            ["a\uff5cb", "a", "b"],
            ["a;", "b;", "c;"],
            ["a,", "b,"],
            [["a|b"], ["a"], ["b"]],
        ],
        ids=str,
    )
    @pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
    @pytest.mark.fault("tables", "a cell that may hold several labels", "RecipeError: separate by |")
    def test_are_refused_with_advice(self, name: str, cells: list[Any], pictures: Path, load: Load) -> None:
        with pytest.raises(RecipeError, match=r"several labels\? separate"):
            load(table(pictures, name, label=cells))

    @pytest.mark.parametrize(
        "cells",
        [
            ["Korea, North", "Korea, South", "Japan"],
            ["Food & Drink", "Travel & Places", "Food"],
            ["R&B", "C++", "AC/DC"],
            ["[x]", "(y)"],
            ["Other (misc, rare)", "(none, really)"],
            ["rgb(1, 0, 0)", "0 1"],
            [1, 0],
            ["1", "0"],
        ],
        ids=str,
    )
    def test_names_with_such_signs_are_names(self, cells: list[Any], pictures: Path, load: Load) -> None:
        samples = load(table(pictures, label=cells))
        assert set(samples.classes) == set(map(str, cells))
        assert not samples.multi_label

    def test_one_name_if_the_user_says_so(self, pictures: Path, load: Load) -> None:
        samples = load(table(pictures, label=["a", "b", "a, b"]), multi_label=False)
        assert samples.classes == ("a", "a, b", "b")

    @pytest.mark.parametrize("kind", [list, np.array])
    def test_lists_in_parquet(self, kind: Any, pictures: Path, load: Load) -> None:
        samples = load(table(pictures, "a.parquet", label=[kind(["a"]), kind(["a", "b"])]))
        assert samples.classes == ("a", "b")
        assert samples.multi_label

    @pytest.mark.parametrize("cell", [{"a": 1}, [["a"], ["b"]], b"a", [{"a": 1}]])
    def test_what_is_no_label(self, cell: Any) -> None:
        with pytest.raises(RecipeError, match="here holds a"):
            labels_of(cell, True, "here")


class TestCharacters:
    @pytest.mark.fault("tables", "half a surrogate pair in text, label or id", "replaced, and a note counts them")
    def test_half_characters_are_replaced_and_counted(self, pictures: Path, load: Load) -> None:
        samples = load(
            table(pictures, text=["half \ud83d here", "whole \ud83d\ude00 one", "x"], label=["a\udc00", "b"])
        )
        assert set(texts(samples)) == {"half \N{REPLACEMENT CHARACTER} here", "whole \N{GRINNING FACE} one", "x"}
        assert samples.classes == ("a\N{REPLACEMENT CHARACTER}", "b")
        assert note(samples, UNDECODABLE).startswith("20 rows with")

    @pytest.mark.fault("tables", "a file name that is no UTF-8", "a missing file, counted, or an error on request")
    def test_names_of_files_that_are_no_utf8(self, tmp_path: Path, load: Load) -> None:
        for i in range(36):
            draw(tmp_path / "abc"[i % 3] / f"{i}.png", i)
        (tmp_path / "a" / "0.png").rename(str(tmp_path / "a") + "/caf\udce9.png")
        samples = load(tmp_path)
        assert sum(map(len, samples.splits.values())) == 35  # that one has neither image nor text
        assert note(samples, UNDECODABLE) == f"1 rows with {UNDECODABLE} (such as a/caf\N{REPLACEMENT CHARACTER}.png)"
        assert "1 missing file" in note(samples, "bad images")
        with pytest.raises(RecipeError, match="1 missing file"):
            load(tmp_path, on_bad_image="error")

    @pytest.mark.fault("tables", "NFC and NFD forms of one label", "one class")
    def test_labels_that_look_the_same_are_one(self, pictures: Path, load: Load) -> None:
        labels = [unicodedata.normalize(form, name) for form in ("NFC", "NFD") for name in ("café", "thé")]
        samples = load(table(pictures, label=labels))
        assert samples.classes == ("café", "thé")
        again = load(
            table(pictures, label=labels), classes=tuple(unicodedata.normalize("NFD", x) for x in samples.classes)
        )
        assert again.classes == samples.classes

    @pytest.mark.parametrize("same", ["\ufeffred car", "red car\u200b", "red\u00a0car", "red\u2060 car", "red  car"])
    def test_labels_with_characters_that_nobody_sees_are_one(self, same: str, pictures: Path, load: Load) -> None:
        assert load(table(pictures, label=["red car", same, "x"])).classes == ("red car", "x")
        assert load(table(pictures, label=[["red car"], [same], "x"])).classes == ("red car", "x")

    def test_columns_and_files_that_look_the_same_are_one(self, tmp_path: Path, load: Load) -> None:
        for i in range(20):
            draw(tmp_path / unicodedata.normalize("NFD", f"é{i}.png"), i)
        rows = [{unicodedata.normalize("NFD", "étiquette"): "ab"[i % 2], "image": f"é{i}.png"} for i in range(20)]
        (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        samples = load(tmp_path / "a.jsonl", label_col="étiquette")
        assert not [one for one in samples.notes if "bad images" in one]


@pytest.mark.fault("tables", "labels of thousands of digits, or with control characters", "classes, or one class")
def test_labels_that_python_reads_as_no_number() -> None:
    rows = [("9" * 5000,), ("10",), ("9",)]
    assert classes_of(rows, "") == ("10", "9", "9" * 5000)
    assert classes_of(rows[1:], "") == ("9", "10")
    assert labels_of("\x1b[31mred\x1b[0m\0", True, "") == labels_of("[31mred[0m", True, "")


def test_parquet_dates_that_python_does_not_have(tmp_path: Path, load: Load) -> None:
    columns = {"text": pyarrow.array([2**31 - 1] * 30, pyarrow.date32()), "label": ["a", "b"] * 15}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    with pytest.raises(RecipeError, match="cannot read"):
        load(tmp_path / "a.parquet")


@pytest.mark.parametrize("size", [(0, 0), (8, 8)])
def test_a_picture_in_memory_that_is_closed_or_empty(size: tuple[int, int], tmp_path: Path) -> None:
    picture = Image.new("RGB", size)
    picture.close()
    with pytest.raises(RecipeError, match="row 0: column 'image' holds a picture that cannot be read"):
        as_file([{"image": picture, "label": "a"}], folder=tmp_path)
