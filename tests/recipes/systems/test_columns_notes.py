"""Columns in use: what a training says of them first, and data in memory, whose file nobody knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas
import pytest

from mi2p_inject.recipes.api import Run
from mi2p_inject.recipes.data import load_data
from mi2p_inject.recipes.data.tables.in_memory import as_file
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.evaluation.evaluate import evaluate_run
from mi2p_inject.recipes.saving.saved import load_run
from mi2p_inject.recipes.systems.columns import column_notes
from mi2p_inject.sources.columns import Columns

GOLDEN = Path(__file__).parents[2] / "golden" / "run-3" / "run"


def test_a_training_says_what_its_columns_lack(tmp_path: Path) -> None:
    rows = [
        {
            "text": f"thing {n}",
            "label": "ab"[n % 2],
            "split": ["train", "train", "test"][n % 3],
            "grams": None if n % 9 == 0 else n,
            "town": "Olten" if n == 2 else ["Bern", "Chur"][n % 2],
            "serial": f"no. {n}",
        }
        for n in range(60)
    ]
    read: dict[str, Any] = {"numeric_cols": ("grams",), "categorical_cols": ("town", "serial")}
    samples = load_data(as_file(rows, folder=tmp_path), **read)
    names = ("grams", "town", "serial")
    train = samples.splits["train"].select_columns(["numbers", "categories"])
    fitted = Columns.fit(
        (dict(zip(names, (*row["numbers"], *row["categories"]), strict=True)) for row in train),
        numeric=["grams"], categorical=["town", "serial"],
    )  # fmt: skip
    notes = column_notes(fitted, samples)
    sizes = {split: len(found) for split, found in samples.splits.items()}
    assert any(note == f"column 'town': 1 of {sizes['test']} test samples have a category that training did not have"
               for note in notes)  # fmt: skip
    assert f"column 'serial': {sizes['train']} categories in {sizes['train']} training cells" in " ".join(notes)
    lacking = [note for note in notes if note.startswith("column 'grams': missing in ")]
    assert sum(int(note.split()[4]) for note in lacking) == 7
    assert not [note for note in notes if "town" in note and "so many" in note]
    assert column_notes(None, samples) == ()


def test_data_in_memory_are_named_so(tmp_path: Path) -> None:
    """Not by a file in a cache folder, and their rows are rows."""
    rows = [{"text": f"thing {n}", "label": "ab"[n % 2], "grams": n} for n in range(20)]
    with pytest.raises(RecipeError, match=r"^the data in memory has no column 'price'"):
        load_data(as_file(rows), numeric_cols=("price",))
    rows[3]["grams"] = "many"
    with pytest.raises(RecipeError, match=r"cannot be stored: the column 'grams'\n  expected: .*\n  given: int, str\n"):
        as_file(rows, folder=tmp_path)
    texts = [{**row, "grams": str(row["grams"])} for row in rows]
    with pytest.raises(Exception, match=r"^the data in memory, row 4: column 'grams' is no finite number"):
        list(load_data(as_file(texts), numeric_cols=("grams",)).splits)
    with pytest.raises(RecipeError, match=r"^the data in memory has neither an image nor a text column"):
        load_data(as_file(pandas.DataFrame({"words": ["a"], "label": ["b"]})))


def test_data_of_the_training_that_are_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = load_run(GOLDEN)
    with pytest.raises(RecipeError, match=r"^the data of the training are not there:[\s\S]* fix: go to that"):
        evaluate_run(run, None, {})
    with pytest.raises(RecipeError, match=r"does not exist"):
        Run(run).evaluate("nowhere.csv")
