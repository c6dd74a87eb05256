"""Rows on disk: read once, read again where the files changed, and never held in memory."""

from __future__ import annotations

import math
import resource
import subprocess
import sys
import textwrap
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
import pytest
from data_files import Load, draw, ids, load, pets, save

from mi2p_inject.recipes.data import load_data
from mi2p_inject.recipes.data.tables.in_memory import as_file
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["load"]


@pytest.mark.parametrize(
    "empty",
    [pandas.NaT, pandas.NA, np.float32("nan"), np.datetime64("NaT"), Decimal("nan"), None, math.nan],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("column", ["text", "label"])
def test_nothing_of_any_library_in_memory(column: str, empty: Any, tmp_path: Path) -> None:
    rows = [{"text": f"word {i}", "label": "ab"[i % 2], column: empty if i % 3 == 0 else "ab"[i % 2]} for i in range(9)]
    stored = pyarrow.parquet.read_table(as_file(rows, folder=tmp_path)).to_pylist()
    assert [row[column] for row in stored] == [None if i % 3 == 0 else "ab"[i % 2] for i in range(9)]


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


@pytest.mark.parametrize("lacking", ["image", "text", "split", "group", "grams"])
def test_rows_may_lack_what_others_have(lacking: str, tmp_path: Path) -> None:
    row = {"image": str(tmp_path / "a.jpg"), "text": "a cat", "split": "test", "group": "b", "grams": 5}
    first = {name: value for name, value in row.items() if name != lacking}
    stored = pyarrow.parquet.read_table(as_file([first, row], folder=tmp_path)).to_pylist()
    assert stored == [{**first, lacking: None}, row]


def test_a_picture_that_neither_bytes_nor_a_path_name_is_missing(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": None, "path": None}, "text": "a"}, {"image": {"bytes": b"", "path": ""}, "text": "b"}]
    stored = pyarrow.parquet.read_table(as_file(rows, None, tmp_path)).to_pylist()
    assert [row["text"] for row in stored if not row["image"]] == ["a", "b"]
    with pytest.raises(RecipeError, match=r"row 0: column 'image' holds a dict[\s\S]*given: url"):
        as_file([{"image": {"url": "a.png"}, "text": "a"}], None, tmp_path)


@pytest.mark.parametrize("kind", ["columns", "pyarrow", "batch", "arrow of another library"])
def test_tables_that_are_no_pandas(kind: str, tmp_path: Path) -> None:
    columns = {"text": ["a", "b", None], "label": ["x", "y", "x"]}
    table = pyarrow.table(columns)

    class Foreign:
        """As polars and duckdb hand tables over."""

        columns: ClassVar = ["text", "label"]

        def to_dict(self) -> dict[str, list[Any]]:
            return columns

        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return table.__arrow_c_stream__(requested_schema)

    data = {"columns": columns, "pyarrow": table, "batch": table.to_batches()[0]}.get(kind, Foreign())
    assert pyarrow.parquet.read_table(as_file(data, None, tmp_path)).to_pydict() == columns


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"text": ["a", "b"], "label": ["x", "y"]})
    for data in (pandas.concat([frame, frame[["text"]]], axis=1), [{"text": "a", "1": "x", 1: "y"}]):
        with pytest.raises(RecipeError, match=r"two columns named '(text|1)'"):
            as_file(data, None, tmp_path)


def test_half_characters_are_named_with_their_row(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": "x"}, {"text": "b\ud83d", "label": "y"}]
    with pytest.raises(RecipeError, match=r"row 1: column 'text' holds half a character[\s\S]*fix: ") as error:
        as_file(rows, None, tmp_path)
    mended = rows[1]["text"].encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert 'encode("utf-16", "surrogatepass").decode("utf-16", "replace")' in (error.value.fix or "")
    as_file([rows[0], {**rows[1], "text": mended}], None, tmp_path)
