"""Files that the tests of the loaders write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mi2p_inject.recipes.data import Samples, load_data

Load = Callable[..., Samples]


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
