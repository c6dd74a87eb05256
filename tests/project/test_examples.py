"""The examples run to their end, as a reader would run them: from another directory, offline."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from forked import run_forked

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_runs(example: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = run_forked([str(example)], cwd=tmp_path, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip()


def test_there_are_five_short_ones() -> None:
    assert len(EXAMPLES) >= 5
    assert all(len(path.read_text(encoding="utf-8").splitlines()) <= 80 for path in EXAMPLES)
