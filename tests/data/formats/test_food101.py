"""UPMC Food-101, in both of its published forms, with the hazards of the real files."""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pytest
from data_files import Load, draw, load, note, sizes, write
from published_files import food
from pyarrow import parquet

from mi2p_inject.recipes.errors import RecipeError

__all__ = ["load"]


class TestFood101:
    def test_pages(self, tmp_path: Path, load: Load) -> None:
        food(tmp_path)
        (tmp_path / "images/train/dish_0/._dish_0_0.jpg").touch()  # what macOS leaves in archives
        (tmp_path / "texts_txt/dish_1/dish_1_3.txt").unlink()
        write(tmp_path / "texts_txt/dish_1/dish_1_4.txt", " \n")
        (tmp_path / "texts_txt/dish_1/dish_1_5.txt").write_bytes(b"cr\xe8me")
        write(tmp_path / "texts_txt/dish_2/dish_2_999.txt", "no picture")
        samples = load(f"food101:{tmp_path}")
        assert sizes(samples) == {
            "train": 54,
            "validation": 6,
            "test": 12,
        }
        rows = {row["id"]: row for split in samples.splits.values() for row in split}
        assert rows["train/dish_0/dish_0_7.jpg"]["text"] == "# dish_0_7\n\nMix * and | eat."
        assert rows["train/dish_1/dish_1_3.jpg"]["text"] is rows["train/dish_1/dish_1_4.jpg"]["text"] is None
        assert rows["train/dish_1/dish_1_5.jpg"]["text"] == "cr\N{REPLACEMENT CHARACTER}me"
        assert note(samples, "replaced").startswith(
            "1 rows with characters that are no Unicode text, replaced (such as "
        )
        assert "2 samples without text" in note(samples, "without text")
        assert note(samples, "left out") == "left out: 1 rows: a text without an image: its split is unknown"
        assert note(samples, "classes in images") == "3 classes in images/train, published: 101"
        assert "train 54 (published: 58131)" in note(samples, "differ")
        assert sorted(samples.targets("validation").tolist()) == [0, 0, 1, 1, 2, 2]

    def test_titles(self, tmp_path: Path, load: Load) -> None:
        food(tmp_path, titles=True)
        (tmp_path / "images/test/dish_1/dish_1_101.jpg").unlink()
        samples = load(f"food101:{tmp_path}")
        assert sizes(samples) == {
            "train": 54,
            "validation": 6,
            "test": 12,
        }
        rows = {row["id"]: row for row in samples.splits["test"]}
        assert rows["test/dish_0/dish_0_100.jpg"]["text"] == 'dish_0_100, a "recipe" | Site'
        assert rows["test/dish_1/dish_1_101.jpg"]["image"] is None
        assert "train+validation 60 (published: 67972)" in note(samples, "differ")
        assert "1 missing file" in note(samples, "bad images")

    def test_validation_is_seeded(self, tmp_path: Path, load: Load) -> None:
        food(tmp_path)
        first, again, other = (load(f"food101:{tmp_path}", seed=seed) for seed in (0, 0, 1))
        assert first.splits["validation"]["id"][:] == again.splits["validation"]["id"][:]
        assert first.splits["validation"]["id"][:] != other.splits["validation"]["id"][:]
        assert first.splits["test"]["id"][:] == other.splits["test"]["id"][:]
        assert first.fingerprint == again.fingerprint != other.fingerprint

    def test_the_other_food101_is_refused_by_name(self, tmp_path: Path, load: Load) -> None:
        with pytest.raises(RecipeError, match=r"ETHZ Food-101[\s\S]*UPMC Food-101"):
            load("ethz/food101")
        with pytest.raises(RecipeError, match="ETHZ Food-101"):
            load("food101:ethz/food101")
        draw(tmp_path / "archive/images/apple_pie/1005649.jpg")
        write(tmp_path / "archive/meta/train.txt", "apple_pie/1005649\n")
        write(tmp_path / "hub/data/train-00000-of-00008.parquet", "PAR1")
        for layout in ("archive", "hub"):
            with pytest.raises(RecipeError, match="ETHZ Food-101"):
                load(f"food101:{tmp_path / layout}")

    def test_a_copy_of_the_hub_with_texts_is_not_taken_for_the_other(self, tmp_path: Path, load: Load) -> None:
        columns = {"image": [b"x"], "text": ["a pie"], "label": [0]}
        (tmp_path / "data").mkdir()
        parquet.write_table(pyarrow.table(columns), tmp_path / "data/train-00000-of-00001.parquet")
        with pytest.raises(RecipeError, match="is not UPMC Food-101"):
            load(f"food101:{tmp_path}")

    @pytest.mark.parametrize("titles", [True, False])
    def test_unpacked_deeper(self, titles: bool, tmp_path: Path, load: Load) -> None:
        food(tmp_path / "archive" / "upmcfood101", titles)
        assert sizes(load(f"food101:{tmp_path}")) == {"train": 54, "validation": 6, "test": 12}

    def test_titles_below_names_of_columns(self, tmp_path: Path, load: Load) -> None:
        table = food(tmp_path, titles=True) / "texts/train_titles.csv"
        write(table, "image,title,class\r\n" + table.read_bytes().decode())
        samples = load(f"food101:{tmp_path}")
        assert samples.classes == ("dish_0", "dish_1", "dish_2")
        assert sizes(samples) == {"train": 54, "validation": 6, "test": 12}

    def test_titles_without_a_class(self, tmp_path: Path, load: Load) -> None:
        table = food(tmp_path, titles=True) / "texts/train_titles.csv"
        write(table, table.read_bytes().decode().replace(",dish_0\r", ", \r", 1))
        with pytest.raises(RecipeError, match="1 of 72 samples have no label"):
            load(f"food101:{tmp_path}")

    def test_what_is_missing_is_named(self, tmp_path: Path, load: Load) -> None:
        with pytest.raises(RecipeError, match=r"is not UPMC Food-101[\s\S]*an empty folder"):
            load(f"food101:{tmp_path}")
        food(tmp_path)
        (tmp_path / "images/test").rename(tmp_path / "images/tset")
        with pytest.raises(RecipeError, match="images/test does not exist"):
            load(f"food101:{tmp_path}")
