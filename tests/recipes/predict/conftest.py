"""A trained model, and a table with holes."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from predict_commands import picture, train
from recipes_data import write_table


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An expanded model: it reads pictures and texts, and does with one of them."""
    return train(
        write_table(tmp_path_factory.mktemp("both")), tmp_path_factory.mktemp("runs") / "me", model="me-vision"
    )


@pytest.fixture
def holes(tmp_path: Path) -> Path:
    """Whole, empty, image only, a missing file, a damaged file, whole again (twice the same)."""
    picture(tmp_path / "a.png", 0)
    (tmp_path / "bad.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    rows = [
        ("9", "a.png", "crimson"), ("7", "", ""), ("8", "a.png", ""), ("1", "gone.png", "navy"),
        ("2", "gone.png", ""), ("3", "bad.png", "navy"), ("9", "a.png", "crimson"),
    ]  # fmt: skip
    with (tmp_path / "holes.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "image", "text"), *rows])
    return tmp_path / "holes.csv"
