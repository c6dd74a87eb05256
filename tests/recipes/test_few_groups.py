"""Intervals of few groups: of one they are over its samples, and of few they are said to be too narrow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from recipes_data import write_table
from training_runs import train

from mi2p_inject.recipes.evaluation.evaluate import evaluate_run
from mi2p_inject.recipes.experiments.compare import compare_runs
from mi2p_inject.recipes.metrics.metrics import bootstrap_difference, bootstrap_metrics
from mi2p_inject.recipes.metrics.resampling import few_groups
from mi2p_inject.recipes.saving.saved import load_run
from mi2p_inject.recipes.tasks import SingleLabel

TASK = SingleLabel(("a", "b"))
ONE = (
    "test: all 40 samples are of one group: the 95 % intervals are over these samples, and say nothing of other groups"
)


def test_one_group_is_not_certain() -> None:
    """Two models as good as each other differ by chance: an interval without width called that certain."""
    random, certain, held = np.random.default_rng(0), 0, 0
    for seed in range(100):
        true = random.integers(0, 2, 60)
        first, second = (np.where(random.random(60) < 0.7, true, 1 - true) for _ in range(2))
        one = np.zeros(60, dtype=np.int64)
        gain = bootstrap_difference(TASK, true, first, second, one, seed=seed, resamples=300)["accuracy"]
        certain += gain.low > 0 or gain.high < 0
        found = bootstrap_metrics(TASK, true, first, one, seed=seed, resamples=300)["accuracy"]
        held += found.low <= 0.7 <= found.high
    assert certain <= 12
    assert held >= 88


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        (np.arange(20), []),
        (np.zeros(40, dtype=np.int64), [ONE]),
        (np.arange(40) % 3, ["test: 40 samples of 3 groups: the 95 % intervals of fewer than 20 are too narrow"]),
        (np.arange(19), ["test: 19 independent samples: the 95 % intervals of fewer than 20 are too narrow"]),
        (np.zeros(1, dtype=np.int64), ["test: one sample: the 95 % intervals say nothing"]),
    ],
    ids=["enough", "one", "three", "few samples", "one sample"],
)
def test_few_groups_are_said(groups: np.ndarray, said: list[str]) -> None:
    assert few_groups(groups, "test") == said


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models of one table whose test samples are of one group."""
    here = tmp_path_factory.mktemp("few")
    rows = write_table(here / "data").read_text().splitlines()
    head, *lines = (line.split(",") for line in rows)
    kept = [place for place, name in enumerate(head) if name not in ("split", "group")]
    made = [",".join([*(head[one] for one in kept), "split", "group"])]
    for number, line in enumerate(lines):
        split, group = ("test", "ward") if number < 40 else (("train", "validation")[number % 4 == 0], f"g{number}")
        made.append(",".join([*(line[one] for one in kept), split, group]))
    table = here / "data" / "few.csv"
    table.write_text("\n".join(made) + "\n")
    for model in ("vision", "text"):
        train(table, here / model, model=model, epochs=1, max_steps=2)
    return [here / model for model in ("vision", "text")]


def test_wherever_intervals_are_shown(runs: list[Path]) -> None:
    first, second = map(load_run, runs)
    for run in (first, second):
        found = run.numbers["test"]["log_loss"]
        assert found["low"] < found["value"] < found["high"]
        assert ONE in run.numbers["remarks"]
    assert ONE in evaluate_run(first, None, {})["notes"]
    assert f"{ONE}." in compare_runs([first, second])["notes"]
