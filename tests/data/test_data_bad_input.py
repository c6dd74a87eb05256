"""Tables and folders that cannot be used, each with its message."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from data_files import SPLITS, Load, draw, ids, load, pets, save

from mi2p_inject.recipes.errors import RecipeError

__all__ = ["load"]


class TestBadInput:
    @pytest.mark.parametrize(
        ("change", "options", "message"),
        [
            ({}, {"label_col": "labels"}, r"no column 'labels'[\s\S]*image, text, label[\s\S]*did you mean 'label'\?"),
            ({"label": "cat"}, {}, "one class only, 'cat'"),
            ({"text": " "}, {}, "the text is empty everywhere"),
            ({"image": ""}, {}, "no sample has an image"),
            ({"image": "images/none.png"}, {}, r"all images are bad: 1 missing file[\s\S]*images/none\.png"),
            ({"id": "7"}, {"id_col": "id"}, "1 ids are not unique, such as 7"),
            ({"split": "holdout"}, {"split_col": "split"}, "line 2: column 'split': 'holdout' is no split"),
            ({"split": "test"}, {"split_col": "split"}, "there is no training split, only test"),
            ({}, {"image_root": Path("nowhere")}, "the images folder .*nowhere does not exist"),
            ({}, {"label_col": "text"}, r"40 different labels in 40 samples: is this the label column\?"),
        ],
    )
    def test_columns(
        self, change: dict[str, str], options: dict[str, Any], message: str, tmp_path: Path, load: Load
    ) -> None:
        path = save(tmp_path / "a.csv", [{**row, **change} for row in pets(tmp_path)])
        with pytest.raises(RecipeError, match=message):
            load(path, **options)

    @pytest.mark.parametrize("labels", [("0.5", "1.25"), ("0.0", "1.0"), ("1e3", "2"), ("nan", "1.0"), ("-.5", "3.")])
    @pytest.mark.parametrize("ending", ["csv", "parquet"])
    def test_labels_that_are_floats(self, labels: tuple[str, str], ending: str, tmp_path: Path, load: Load) -> None:
        kind = float if ending == "parquet" else str
        rows = [{**row, "label": kind(labels[i % 2])} for i, row in enumerate(pets(tmp_path))]
        with pytest.raises(RecipeError, match=r"the labels are floats[\s\S]*Int64"):
            load(save(tmp_path / f"a.{ending}", rows))

    def test_a_training_split_of_duplicates_only(self, tmp_path: Path, load: Load) -> None:
        rows = [{"text": f"text {i % 20}", "label": "ab"[i % 2], "split": SPLITS[i // 20 * 2]} for i in range(40)]
        path = save(tmp_path / "a.csv", [*rows, {"text": "text", "label": "a", "split": "dev"}])
        with pytest.raises(RecipeError, match=r"no training sample is left: dedupe dropped all 20[\s\S]*leave dedupe"):
            load(path, dedupe="exact")

    def test_a_label_unseen_in_training(self, tmp_path: Path, load: Load) -> None:
        rows = [{**row, "split": SPLITS[i % 3 and 2]} for i, row in enumerate(pets(tmp_path))]
        rows[1]["label"] = "ferret"
        rows[2]["split"] = "dev"
        with pytest.raises(RecipeError, match=r"labels in test that no training sample has: 'ferret' \(1\)"):
            load(save(tmp_path / "a.csv", rows))

    @pytest.mark.parametrize(("kind", "words"), [("text", "a text"), ("image", "an image")])
    def test_a_modality_unseen_in_training(self, kind: str, words: str, tmp_path: Path, load: Load) -> None:
        rows = [{**row, "split": "test" if i >= 28 else "train"} for i, row in enumerate(pets(tmp_path))]
        with pytest.raises(RecipeError, match=rf"no training sample has {words}[\s\S]*12 of 12 in test"):
            load(save(tmp_path / "a.csv", [{**row, kind: row[kind] if row["split"] == "test" else ""} for row in rows]))

    def test_samples_without_a_label(self, tmp_path: Path, load: Load) -> None:
        rows = pets(tmp_path)
        rows[5]["label"] = rows[7]["label"] = ""
        with pytest.raises(RecipeError, match="2 of 40 samples have no label: 6, 8"):
            load(save(tmp_path / "a.csv", rows))

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.csv", b"", "is empty"),
            ("a.csv", b"image,text,label\n", "has no samples"),
            ("a.csv", b"image,text,text\n1,2,3\n", "two columns named 'text'"),
            ("a.csv", b"image,text,label\na,b\n", r"line 2: 2 fields, expected 3[\s\S]*double quotes"),
            ("a.csv", b"image,text,label\na,\"b,c\n" + b"d,e\n" * 3, r"line 2: a quote opens here and closes nowhere"),
            ("a.csv", "image,text,label\na,crème,c\n".encode("cp1252"), "is not UTF-8, near line 2?[\\s\\S]*iconv"),
            ("a.csv", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is not UTF-8"),
            ("a.csv", b"name,age\nx,3\n", "neither an image nor a text column"),
            ("a.csv", b"image,text\na,b\n", "no column 'label'"),
            ("a.csv", b"image;text;label\na;b;c\n", r"separated by ';'[\s\S]*',' in \.csv, '\\t' in \.tsv"),
            ("a.tsv", b"image,text,label\na,b,c\n", "separated by ','"),
            ("a.jsonl", b'{"image": "a"\n', r"cannot read .*a\.jsonl, line 1"),
            ("a.jsonl", b"[1, 2]\n", "line 1: list, expected an object"),
            ("a.jsonl", b'{"text": {"a": 1}, "label": "x"}\n', "column 'text' holds a dict"),
            ("a.jsonl", b'{"text": "a", "label": 1' + b"1" * 5000 + b"}\n", r"line 1: [\s\S]*fix: write a long number"),
            ("a.jsonl", b'{"text": "a"}{"text": "b"}\n', r"line 1: Extra data[\s\S]*fix: write one JSON object a line"),
            ("a.jsonl", b'{"text": "a",}\n', r"line 1: [\s\S]*fix: write one JSON object a line"),
            ("a.jsonl", b'[\n{"text": "a"}\n]\n', r"line 1: [\s\S]*JSON array[\s\S]*fix: [^\n]*jq -c"),
            ("a.parquet", b"PAR1 and then nothing", "cannot read .*a.parquet"),
            ("a.xlsx", b"PK", "a.xlsx is no table"),
        ],
    )  # fmt: skip
    def test_files(self, name: str, content: bytes, message: str, tmp_path: Path, load: Load) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RecipeError, match=message):
            load(tmp_path / name)

    def test_a_parquet_file_with_a_column_twice(self, tmp_path: Path, load: Load) -> None:
        columns = [pyarrow.array(["a", "b"])] * 3
        table = pyarrow.Table.from_arrays(columns, names=["text", "label", "text"])
        pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
        with pytest.raises(RecipeError, match="two columns named 'text'"):
            load(tmp_path / "a.parquet")

    def test_folders(self, tmp_path: Path, load: Load) -> None:
        with pytest.raises(RecipeError, match="is empty"):
            load(tmp_path)
        draw(tmp_path / "loose" / "a.png")
        with pytest.raises(RecipeError, match=r"neither tables nor folders of labels[\s\S]*1 images"):
            load(tmp_path / "loose")
        (tmp_path / "loose" / "a.png").unlink()
        (tmp_path / "loose").rmdir()
        for name in ("train/cat", "test/cat", "extra"):
            draw(tmp_path / name / "a.png")
        with pytest.raises(RecipeError, match=r"folders that are splits and others[\s\S]*extra"):
            load(tmp_path)
        save(tmp_path / "train.csv", pets(tmp_path))
        save(tmp_path / "training.tsv", pets(tmp_path))
        with pytest.raises(RecipeError, match="several tables for train"):
            load(tmp_path)
        (tmp_path / "training.tsv").rename(tmp_path / "metadata.tsv")
        with pytest.raises(RecipeError, match="'metadata' is no split of a data set"):
            load(tmp_path)

    def test_nothing_there(self, tmp_path: Path, load: Load) -> None:
        with pytest.raises(RecipeError, match=r"does not exist[\s\S]*did you mean crisismmd\?"):
            load("crisismd:/data")
        with pytest.raises(RecipeError, match=r"a\.csv does not exist"):
            load(tmp_path / "a.csv")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
    def test_unreadable(self, tmp_path: Path, load: Load) -> None:
        path = save(tmp_path / "a.csv", pets(tmp_path))
        path.chmod(0)
        with pytest.raises(RecipeError, match="Permission denied"):
            load(path)

    def test_nothing_is_kept_of_a_failure(self, tmp_path: Path, load: Load) -> None:
        rows = pets(tmp_path)
        path = save(tmp_path / "a.csv", rows)
        whole = path.read_bytes()
        path.write_bytes(whole + b"torn,line\n")
        with pytest.raises(RecipeError, match="line 42: 2 fields"):
            load(path)
        path.write_bytes(whole)
        assert sum(map(len, ids(load(path)).values())) == 40
