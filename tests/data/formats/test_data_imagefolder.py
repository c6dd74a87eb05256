"""Hugging Face's folders of pictures with a table: `metadata.csv` of `file_name` and further columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
from data_files import Load, draw, ids, load, save

from mi2p_inject.recipes.errors import RecipeError

__all__ = ["load"]


def pictures(folder: Path, count: int, first: int = 0) -> list[dict[str, Any]]:
    """Pictures in a folder, and the rows of its table."""
    return [
        {"file_name": draw(folder / f"{i}.png", i).name, "text": f"text {i}", "label": "ab"[i % 2]}
        for i in range(first, first + count)
    ]


def shown(samples: Any, split: str) -> list[str]:
    return sorted(Path(one).name for one in samples.splits[split]["image"])


class TestImagefolder:
    @pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
    def test_one_table(self, ending: str, tmp_path: Path, load: Load) -> None:
        table = save(tmp_path / f"metadata.{ending}", pictures(tmp_path, 40))
        found = [load(tmp_path), load(table), load(table, image_col="file_name")]
        assert {sum(map(len, ids(one).values())) for one in found} == {40}
        assert all(one.modalities == {"image", "text"} for one in found)
        assert len({str(ids(one)) for one in found}) == 1

    def test_a_table_in_each_folder_of_a_split_as_datasets_reads_it(self, tmp_path: Path, load: Load) -> None:
        for number, (name, count) in enumerate({"train": 20, "validation": 8, "test": 12}.items()):
            rows = pictures(tmp_path / name, count, 100 * number)
            save(tmp_path / name / "metadata.csv", [{k: v for k, v in row.items() if k != "id"} for row in rows])
        found = load(tmp_path)
        theirs = datasets.load_dataset("imagefolder", data_dir=str(tmp_path), cache_dir=str(tmp_path / "cache"))
        for split, rows in theirs.items():
            assert shown(found, str(split)) == sorted(Path(one["image"].filename).name for one in rows)
            assert sorted(found.splits[str(split)]["text"]) == sorted(rows["text"])
        every = [one for split in ids(found).values() for one in split]
        assert len(set(every)) == 40

    def test_a_split_column(self, tmp_path: Path, load: Load) -> None:
        rows = [{**row, "split": ("train", "dev", "test")[i % 3]} for i, row in enumerate(pictures(tmp_path, 30))]
        save(tmp_path / "metadata.csv", rows)
        assert {len(one) for one in ids(load(tmp_path)).values()} == {10}

    def test_pictures_of_another_root(self, tmp_path: Path, load: Load) -> None:
        save(tmp_path / "metadata.csv", pictures(tmp_path / "elsewhere", 20))
        assert load(tmp_path, image_root=tmp_path / "elsewhere").modalities == {"image", "text"}

    def test_file_name_is_no_default_elsewhere(self, tmp_path: Path, load: Load) -> None:
        """A text's own file, say."""
        assert load(save(tmp_path / "a.csv", pictures(tmp_path, 20))).modalities == {"text"}


class TestBadInput:
    def test_a_folder_of_a_split_without_a_table(self, tmp_path: Path, load: Load) -> None:
        save(tmp_path / "train" / "metadata.csv", pictures(tmp_path / "train", 20))
        pictures(tmp_path / "test", 4)
        with pytest.raises(RecipeError, match=r"test has none, or several, of the tables[\s\S]*train: metadata\.csv"):
            load(tmp_path)

    def test_two_folders_of_a_split(self, tmp_path: Path, load: Load) -> None:
        for name in ("train", "val", "dev"):
            save(tmp_path / name / "metadata.csv", pictures(tmp_path / name, 4))
        with pytest.raises(RecipeError, match="dev, train, val are folders of the same split"):
            load(tmp_path)

    def test_two_tables(self, tmp_path: Path, load: Load) -> None:
        for ending in ("csv", "jsonl"):
            save(tmp_path / f"metadata.{ending}", pictures(tmp_path, 4))
        with pytest.raises(RecipeError, match="'metadata' is no split of a data set"):
            load(tmp_path)

    def test_a_table_that_lies_deeper(self, tmp_path: Path, load: Load) -> None:
        table = save(tmp_path / "all" / "pictures" / "metadata.csv", pictures(tmp_path / "all" / "pictures", 4))
        table.with_suffix(".png").unlink(missing_ok=True)
        for picture in table.parent.glob("*.png"):
            picture.unlink()
        with pytest.raises(RecipeError, match=rf"fix: --data {table}"):
            load(tmp_path)
