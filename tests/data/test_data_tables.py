"""A user's own files: formats, missing values, and each bad input with its message."""

from __future__ import annotations

import csv
import json
import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from data_files import Load, draw, load, note, write

from mi2p_inject.recipes.data import ImageError, load_data, open_image
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["load"]

Rows = list[dict[str, Any]]
SPLITS = ("train", "validation", "test")


def pets(folder: Path, count: int = 40) -> Rows:
    """Samples of two classes, each with a picture of its own."""
    kinds = ("cat", "dog")
    draws = [draw(folder / f"images/{i}.png", i).relative_to(folder) for i in range(count)]
    return [
        {"image": str(draws[i]), "text": f"A {kinds[i % 2]}, number {i}", "label": kinds[i % 2]} for i in range(count)
    ]


def save(path: Path, rows: Rows, **options: Any) -> Path:
    """The rows as a table of the kind that the ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        write(path, "".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            delimiter = "\t" if path.suffix == ".tsv" else ","
            writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter, **options)
            writer.writeheader()
            writer.writerows(rows)
    return path


def ids(samples: Any) -> dict[str, list[str]]:
    return {name: split["id"][:] for name, split in samples.splits.items()}


class TestFormats:
    @pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
    def test_each_gives_the_same_samples(self, ending: str, tmp_path: Path, load: Load) -> None:
        rows = pets(tmp_path)
        rows[3]["text"] = 'With "quotes", a comma\tand a tab'
        samples = load(save(tmp_path / f"a.{ending}", rows))
        assert samples.classes == ("cat", "dog")
        assert not samples.multi_label
        found = {row["id"]: row for split in samples.splits.values() for row in split}
        assert len(found) == 40
        for i, row in enumerate(rows, 1):
            one = found[str(i)]
            assert one["text"] == row["text"]
            assert samples.classes[one["label"]] == row["label"]
            assert one["image"] == str(tmp_path / row["image"])
            assert open_image(one["image"], "error").size == (32, 32)

    def test_byte_order_mark_carriage_returns_and_blank_lines(self, tmp_path: Path, load: Load) -> None:
        rows = pets(tmp_path)
        lines = [
            "image,text,label",
            *(f"{row['image']},{row['label']} {i},{row['label']}" for i, row in enumerate(rows)),
        ]
        write(tmp_path / "a.csv", "\r\n".join(lines) + "\r\n\r\n", "utf-8-sig")
        samples = load(tmp_path / "a.csv")
        assert samples.classes == ("cat", "dog")
        assert samples.modalities == {"image", "text"}

    def test_a_line_break_inside_quotes(self, tmp_path: Path, load: Load) -> None:
        rows = [{**row, "text": f"{row['text']}\nsecond line"} for row in pets(tmp_path)]
        assert load(save(tmp_path / "a.csv", rows)).splits["train"][0]["text"].endswith("\nsecond line")

    def test_paths_with_backslashes_and_another_root(self, tmp_path: Path, load: Load) -> None:
        rows = [{**row, "image": row["image"].replace("/", "\\")} for row in pets(tmp_path / "pictures")]
        samples = load(save(tmp_path / "a.csv", rows), image_root=tmp_path / "pictures")
        assert open_image(samples.splits["train"][0]["image"], "error").size == (32, 32)

    def test_named_columns_ids_and_groups(self, tmp_path: Path, load: Load) -> None:
        renamed = [
            {"pic": row["image"], "caption": row["text"], "kind": row["label"], "nr": f"n{i}", "owner": f"o{i // 2}"}
            for i, row in enumerate(pets(tmp_path))
        ]
        columns = {"image_col": "pic", "text_col": "caption", "label_col": "kind", "id_col": "nr", "group_col": "owner"}
        samples = load(save(tmp_path / "a.csv", renamed), **columns)
        where = {int(one[1:]): split for split, names in ids(samples).items() for one in names}
        assert all(where[i] == where[i + 1] for i in range(0, 40, 2))

    def test_a_file_for_each_part(self, tmp_path: Path, load: Load) -> None:
        rows = pets(tmp_path)
        save(tmp_path / "train.csv", rows[:20])
        save(tmp_path / "dev.jsonl", rows[20:30])
        save(tmp_path / "test.parquet", rows[30:])
        assert {split: len(names) for split, names in ids(load(tmp_path)).items()} == dict(
            zip(SPLITS, (20, 10, 10), strict=True)
        )

    def test_a_folder_of_labels(self, tmp_path: Path, load: Load) -> None:
        for split, count in (("train", 6), ("val", 2), ("test", 3)):
            for label in ("cat", "dog"):
                for i in range(count):
                    draw(tmp_path / split / label / f"{i}.png", i + count + ord(label[0]))
                    write(tmp_path / split / label / f"{i}.txt", f"{split} {label} {i}\r\n")
        (tmp_path / "train/cat/Thumbs.db").touch()
        (tmp_path / "train/cat/1.txt").unlink()
        (tmp_path / "train/dog/1.png").unlink()
        samples = load(tmp_path)
        assert {split: len(names) for split, names in ids(samples).items()} == {"train": 12, "validation": 4, "test": 6}
        rows = {row["id"]: row for row in samples.splits["train"]}
        assert rows["train/cat/0.png"]["text"] == "train cat 0"
        assert rows["train/cat/1.png"]["text"] is None
        assert rows["train/dog/1.txt"]["image"] is None

    def test_a_folder_of_labels_to_split(self, tmp_path: Path, load: Load) -> None:
        for i in range(20):
            draw(tmp_path / "ab"[i % 2] / f"{i}.png", i)
        samples = load(tmp_path)
        assert samples.classes == ("a", "b")
        assert samples.modalities == {"image"}
        assert sum(len(split) for split in samples.splits.values()) == 20

    def test_several_labels(self, tmp_path: Path, load: Load) -> None:
        rows = pets(tmp_path)
        for i, row in enumerate(rows):
            row["label"] = ("a", "a|b", "b | c", "")[i % 4]
        samples = load(save(tmp_path / "a.csv", rows))
        assert samples.multi_label
        assert samples.classes == ("a", "b", "c")
        found = {int(row["id"]): row["label"] for split in samples.splits.values() for row in split}
        assert [found[i] for i in (1, 2, 3, 4)] == [[0], [0, 1], [1, 2], []]
        train = samples.targets("train")
        assert [np_row.nonzero()[0].tolist() for np_row in train] == samples.splits["train"]["label"][:]
        listed = [{**row, "label": [one.strip() for one in row["label"].split("|") if one]} for row in rows]
        assert load(save(tmp_path / "a.parquet", listed)).targets("train").tolist() == train.tolist()

    def test_a_bar_that_separates_nothing(self, tmp_path: Path, load: Load) -> None:
        rows = [{**row, "label": row["label"] + "|x"} for row in pets(tmp_path)]
        assert load(save(tmp_path / "a.csv", rows), multi_label=False).classes == ("cat|x", "dog|x")

    def test_whole_numbers_as_labels(self, tmp_path: Path, load: Load) -> None:
        rows = [{**row, "label": (2, 10)[i % 2]} for i, row in enumerate(pets(tmp_path))]
        for ending in ("csv", "parquet", "jsonl"):
            assert load(save(tmp_path / f"a.{ending}", rows)).classes == ("2", "10")


class TestMissing:
    def test_a_modality_not_a_row(self, tmp_path: Path, load: Load) -> None:
        rows = pets(tmp_path)
        rows[0]["image"] = rows[1]["text"] = rows[2]["image"] = rows[2]["text"] = ""
        rows[3]["image"] = "images/none.png"
        (tmp_path / rows[4]["image"]).write_text("not an image")
        path = save(tmp_path / "a.csv", rows)
        samples = load(path)
        found = {int(row["id"]): row for split in samples.splits.values() for row in split}
        assert found.keys() == set(range(1, 41)) - {3}
        assert [found[i]["image"] for i in (1, 4, 5)] == [None] * 3
        assert found[2]["text"] is None
        bad = note(samples, "bad images")
        assert "2 bad images" in bad
        assert "1 missing file" in bad
        assert "1 no image" in bad
        assert "4 samples without image" in note(samples, "without image")
        assert "1 of them have neither" in note(samples, "neither")
        dropped = load(path, missing="drop")
        assert sum(map(len, ids(dropped).values())) == 35
        assert dropped.fingerprint != samples.fingerprint
        assert {split: set(names) for split, names in ids(dropped).items()} == {
            split: {one for one in names if one not in {"1", "2", "4", "5"}} for split, names in ids(samples).items()
        }

    def test_a_bad_image_can_be_an_error(self, tmp_path: Path, load: Load) -> None:
        rows = pets(tmp_path)
        (tmp_path / rows[4]["image"]).write_text("not an image")
        with pytest.raises(RecipeError, match=r"1 bad images: 1 no image \(such as .*4\.png"):
            load(save(tmp_path / "a.csv", rows), on_bad_image="error")

    def test_all_images_on_request(self, tmp_path: Path, load: Load) -> None:
        rows = pets(tmp_path, 300)
        for i in range(0, 300, 50):
            content = (tmp_path / rows[i]["image"]).read_bytes()
            (tmp_path / rows[i]["image"]).write_bytes(content[:-40])
        path = save(tmp_path / "a.csv", rows)
        assert "6 damaged" in note(load(path, check_images="all"), "bad images")
        assert "200 of 300 files were decoded" in note(load(path), "bad images")

    def test_text_only_and_pictures_only(self, tmp_path: Path, load: Load) -> None:
        rows = pets(tmp_path)
        for gone, left in (("image", "text"), ("text", "image")):
            fewer = [{name: value for name, value in row.items() if name != gone} for row in rows]
            samples = load(save(tmp_path / f"{left}.csv", fewer))
            assert samples.modalities == {left}
            assert note(samples, "column") == f"no {gone} column"


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
            ("a.parquet", b"PAR1 and then nothing", "cannot read .*a.parquet"),
            ("a.xlsx", b"PK", "a.xlsx is no table"),
        ],
    )  # fmt: skip
    def test_files(self, name: str, content: bytes, message: str, tmp_path: Path, load: Load) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RecipeError, match=message):
            load(tmp_path / name)

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


class TestStored:
    def test_a_changed_file_is_read_again(self, tmp_path: Path, load: Load) -> None:
        rows = pets(tmp_path)
        path = save(tmp_path / "a.csv", rows)
        first, again = load(path), load(path)
        assert first.fingerprint == again.fingerprint
        rows[8]["text"] = rows[8]["text"].replace("8", "9")  # the size stays
        save(path, rows)
        changed = load(path)
        assert changed.fingerprint != first.fingerprint
        assert "A cat, number 9" in {row["text"] for split in changed.splits.values() for row in split}

    def test_a_changed_image_changes_the_fingerprint(self, tmp_path: Path, load: Load) -> None:
        path = save(tmp_path / "a.csv", pets(tmp_path))
        first = load(path).fingerprint
        draw(tmp_path / "images/0.png", 999)
        assert load(path).fingerprint != first

    def test_moved_data_are_the_same_data(self, tmp_path: Path, load: Load) -> None:
        first = load(save(tmp_path / "here/a.csv", pets(tmp_path / "here"))).fingerprint
        (tmp_path / "here").rename(tmp_path / "there")
        assert load(tmp_path / "there/a.csv").fingerprint == first

    def test_a_large_table_stays_on_disk(self, tmp_path: Path) -> None:
        """100 MB of text, all of it read: what the process holds for itself grows by far less."""
        code = f"""
            from pathlib import Path
            from mi2p_inject.recipes.data import load_data
            import datasets, sklearn.model_selection, ftfy
            def held():
                return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) / 1024
            with open("a.csv", "w") as file:
                print("text,label", file=file)
                for i in range(20_000):
                    print(f"{{i:010}}" * 500, "abcd"[i % 4], sep=",", file=file)
            before = held()
            samples = load_data("a.csv", cache_dir=Path({str(tmp_path)!r}))
            assert sum(len(row["text"]) for split in samples.splits.values() for row in split) == 20_000 * 5_000
            print(held() - before)
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert float(done.stdout) < 60

    def test_a_full_disk(self, tmp_path: Path, load: Load) -> None:
        rows = [{**row, "text": row["text"] + " x" * 9000} for row in pets(tmp_path)]
        path = save(tmp_path / "a.jsonl", rows)
        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old[1]))
        try:
            with pytest.raises(RecipeError, match=r"cannot store the rows[\s\S]*free some space"):
                load(path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
        assert sum(map(len, ids(load(path)).values())) == 40

    def test_a_cache_that_is_a_file(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.csv", pets(tmp_path))
        with pytest.raises(RecipeError, match=r"cannot store the rows[\s\S]*HF_DATASETS_CACHE"):
            load_data(path, cache_dir=path)


class TestEvaluation:
    def test_classes_of_a_trained_model(self, tmp_path: Path, load: Load) -> None:
        rows = [row for row in pets(tmp_path) if row["label"] == "dog"]
        path = save(tmp_path / "a.csv", rows)
        samples = load(path, classes=("bird", "cat", "dog"))
        assert {split: len(names) for split, names in ids(samples).items()} == {"test": 20}
        assert set(samples.targets("test").tolist()) == {2}
        with pytest.raises(RecipeError, match=r"none of the 2 classes: 'dog' \(20\)"):
            load(path, classes=("bird", "cat"))

    def test_modalities_are_those_of_the_samples_that_stay(self, tmp_path: Path, load: Load) -> None:
        rows = pets(tmp_path)
        for row in rows[:39]:
            row["text"] = ""
        rows[39]["image"] = ""
        path = save(tmp_path / "a.csv", rows)
        assert load(path).modalities == {"image", "text"}
        rows[39]["text"] = ""
        assert load(save(path, rows), classes=("cat", "dog")).modalities == {"image"}

    def test_unlabelled_samples(self, tmp_path: Path, load: Load) -> None:
        rows = [{name: row[name] for name in ("image", "text")} for row in pets(tmp_path)]
        samples = load(save(tmp_path / "a.csv", rows), labelled=False, classes=("cat", "dog"))
        assert samples.splits["test"]["label"][:] == [None] * 40


def test_image_error_is_exported() -> None:
    assert issubclass(ImageError, RecipeError)
