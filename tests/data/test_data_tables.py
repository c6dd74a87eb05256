"""A user's own files: formats, missing values, and what a trained model is evaluated on."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_files import SPLITS, Load, draw, ids, load, note, pets, save, write

from mi2p_inject.recipes.data import ImageError, open_image
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["load"]


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

    def test_a_file_for_each_split(self, tmp_path: Path, load: Load) -> None:
        rows = pets(tmp_path)
        save(tmp_path / "train.csv", rows[:20])
        save(tmp_path / "dev.jsonl", rows[20:30])
        save(tmp_path / "test.parquet", rows[30:])
        assert {split: len(names) for split, names in ids(load(tmp_path)).items()} == dict(
            zip(SPLITS, (20, 10, 10), strict=True)
        )

    def test_a_table_cut_into_pieces(self, tmp_path: Path, load: Load) -> None:
        rows = pets(tmp_path)
        for number, part in enumerate((rows[:12], rows[12:20])):
            save(tmp_path / f"train-{number:05}-of-00002.parquet", part)
        save(tmp_path / "dev.csv", rows[20:30])
        save(tmp_path / "test.parquet", rows[30:])
        samples = load(tmp_path)
        assert {split: len(names) for split, names in ids(samples).items()} == dict(
            zip(SPLITS, (20, 10, 10), strict=True)
        )
        assert samples.splits["train"]["text"][:] == [row["text"] for row in rows[:20]]
        assert len(set(samples.splits["train"]["id"][:])) == 20
        (tmp_path / "train-00000-of-00002.parquet").unlink()
        with pytest.raises(RecipeError, match=r"(?s)lacks pieces.*2 files.*given: 1"):
            load(tmp_path)
        save(tmp_path / "train.parquet", rows[:12])
        with pytest.raises(RecipeError, match="several tables for train"):
            load(tmp_path)

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
