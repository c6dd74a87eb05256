"""Files that the tests of the loaders write."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mi2p_inject.recipes.data import Samples, load_data

Load = Callable[..., Samples]
Rows = list[dict[str, Any]]
SPLITS = ("train", "validation", "test")


@pytest.fixture
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """`load_data` that stores below the test's own folder."""
    cache = tmp_path_factory.mktemp("cache")

    def load_here(spec: Any, **options: Any) -> Samples:
        return load_data(spec, cache_dir=cache, **options)

    return load_here


def draw(path: Path, seed: int = 0) -> Path:
    """A small picture of its own for each seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((32, 32)).save(path)
    return path


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    """A text file with exactly these characters."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def sizes(samples: Samples) -> dict[str, int]:
    """Number of samples in each split."""
    return {split: len(rows) for split, rows in samples.splits.items()}


def note(samples: Samples, words: str) -> str:
    """The one note with these words."""
    found = [one for one in samples.notes if words in one]
    assert len(found) == 1, (words, samples.notes)
    return found[0]


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


def ids(samples: Samples) -> dict[str, list[str]]:
    """The ids of each split's samples."""
    return {name: split["id"][:] for name, split in samples.splits.items()}
