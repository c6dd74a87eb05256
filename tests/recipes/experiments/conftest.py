"""A finished table that several tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipes_data import write_table
from table_runs import run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("table")
    table = write_table(folder)
    run(table, folder / "out")
    return table, folder / "out"
