"""Commands that are killed at any moment, and again, end with the numbers of one that nobody disturbed.

`save_pretrained` and the filling of a source cache have theirs in tests/checkpoint and tests/sources.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from kills import KILLS, ends_after, files_below, kill_until_done
from mutations import fuzz
from recipes_data import write_table
from training_runs import finish_table, finish_training, losses

from mi2p_inject.recipes.saving.saved import load_run

NIGHTLY = KILLS > 4
IN_A_ROW = 3 if NIGHTLY else 2  # of one and the same folder


def same_run(found: Path, expected: Path) -> None:
    assert losses(found) == pytest.approx(losses(expected), rel=1e-5)
    first, second = (load_run(folder).predictions() for folder in (found, expected))
    assert first.keys() == second.keys()
    for name in first:
        assert np.allclose(first[name], second[name], rtol=1e-5, atol=1e-6), name


def same_table(found: Path, expected: Path) -> None:
    first, second = (json.loads((folder / "metrics.json").read_text())["experiments"] for folder in (found, expected))
    assert first.keys() == second.keys()
    for name in first:
        for kind in ("test", "by_seed", "sd", "gain", "validation"):
            assert first[name][kind] == second[name][kind], (name, kind)
    for run in (expected / "experiments").glob("*/seed-*"):
        same_run(found / run.relative_to(expected), run)


def killed(action: Callable[[Path, Path], None], same: Callable[[Path, Path], None], folder: Path) -> None:
    """The folders beside --out too hold what the undisturbed command left there, and nothing else."""
    table = write_table(folder)
    seconds = ends_after(action, table, folder / "undisturbed" / "out")
    wanted = files_below(folder / "undisturbed")
    done = 0
    while done < (KILLS if NIGHTLY else IN_A_ROW):
        own = folder / f"killed-{done}"
        done += max(kill_until_done(action, table, own / "out", seconds=seconds, kills=IN_A_ROW), 1)
        same(own / "out", folder / "undisturbed" / "out")
        assert files_below(own) == wanted


@fuzz
@pytest.mark.fault(
    "kills",
    "SIGKILL at random moments of training, several in a row",
    "the numbers of an undisturbed run; no leftovers",
)
def test_training(tmp_path: Path) -> None:
    killed(finish_training, same_run, tmp_path)


@fuzz
@pytest.mark.fault(
    "kills", "SIGKILL at random moments of a table, several in a row", "the numbers of an undisturbed one; no leftovers"
)
def test_table(tmp_path: Path) -> None:
    killed(finish_table, same_table, tmp_path)
