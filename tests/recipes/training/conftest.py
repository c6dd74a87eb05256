"""A table, and one training of both expanded models that several tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipes_data import write_table
from training_runs import train


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def trained(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of both expanded models under cross-attention, with dropout and augmentation."""
    out = tmp_path_factory.mktemp("runs") / "me-fusion"
    train(table, out)
    return out
