"""Seeds and experiments that are added to a finished table, averages, and what the best one is compared with."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from recipes_data import write_table
from table_runs import ONLY, TABLE, numbers_of, run

from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.experiments.compare import compare_runs
from mi2p_inject.recipes.experiments.experiment import Experiment
from mi2p_inject.recipes.experiments.sets.paper_tables import TABLES
from mi2p_inject.recipes.metrics.decisions import fit_temperature
from mi2p_inject.recipes.metrics.probability_metrics import log_loss
from mi2p_inject.recipes.saving.saved import load_run


def test_more_seeds_and_lost_runs_are_added(finished: tuple[Path, Path], tmp_path: Path) -> None:
    table, done = finished
    out = tmp_path / "out"
    shutil.copytree(done, out)
    shutil.rmtree(out / "experiments" / "clip-image" / "seed-1")
    kept = {path: path.stat().st_mtime_ns for path in out.glob("experiments/*/*/metrics.json")}
    assert len(kept) == 3
    run(table, out, seeds=(1, 2))
    assert len(list(out.glob("experiments/*/*/metrics.json"))) == 6
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    numbers, before = numbers_of(out), numbers_of(done)
    assert numbers["seeds"] == [0, 1, 2]  # those of the earlier command count too
    first, again = (load_run(folder / "experiments" / "clip-image" / "seed-1").predictions() for folder in (done, out))
    assert np.array_equal(first["test_logits"], again["test_logits"])
    assert before["seeds"] == [0, 1]


def test_an_experiment_is_added_later(finished: tuple[Path, Path], tmp_path: Path) -> None:
    table, done = finished
    out = tmp_path / "out"
    shutil.copytree(done, out)
    shutil.rmtree(out / "experiments" / "me-clip-image")
    (out / "metrics.json").unlink()
    alone = run(table, out, only=["clip-image"])
    assert list(alone["experiments"]) == ["clip-image"]
    assert alone["experiments"]["clip-image"] == numbers_of(done)["experiments"]["clip-image"]
    both = run(table, out, seeds=(0,), only=["me-clip-image"])
    assert list(both["experiments"]) == list(ONLY)
    assert [both["experiments"][name]["seeds"] for name in ONLY] == [[0, 1], [0]]
    gain = both["experiments"]["me-clip-image"]["gain"]["clip-image"]  # over the seed that both have
    values = [both["experiments"][name]["by_seed"]["accuracy"][0] for name in ("me-clip-image", "clip-image")]
    assert gain["seeds"] == [0]
    assert gain["test"]["accuracy"]["value"] == pytest.approx(values[0] - values[1])
    lines = (out / "table.md").read_text().splitlines()
    assert lines[0].endswith("| seeds |")
    assert lines[2].endswith("| 0, 1 |")
    assert lines[3].endswith("| 0 |")


def test_what_is_kept_is_looked_at_before_anything_is_trained(finished: tuple[Path, Path], tmp_path: Path) -> None:
    table, done = finished
    out = tmp_path / "out"
    shutil.copytree(done, out)
    (out / "experiments/me-clip-image/seed-1/predictions.safetensors").write_bytes(b"cut")
    with pytest.raises(RecipeError, match=r"me-clip-image/seed-1"):
        run(table, out, seeds=(2,), only=["clip-image"])
    assert not (out / "experiments/clip-image/seed-2").exists()


def test_another_setting_of_a_finished_table_is_said_of_the_table(finished: tuple[Path, Path], tmp_path: Path) -> None:
    """The advice to remove the folder of a run would lead to the next refusal."""
    table, done = finished
    out = tmp_path / "out"
    shutil.copytree(done, out)
    with pytest.raises(RecipeError, match=rf"--out {out} holds a run of other settings \(max_steps differ\)"):
        run(table, out, seeds=(0, 1, 2), given={"max_steps": 3})


def test_a_table_whose_data_have_moved_gets_further_seeds(finished: tuple[Path, Path], tmp_path: Path) -> None:
    _, done = finished
    out = tmp_path / "out"
    shutil.copytree(done, out)
    moved = write_table(tmp_path / "moved")
    assert run(moved, out, seeds=(2,), only=["clip-image"])["experiments"]["clip-image"]["seeds"] == [0, 1, 2]
    runs = [load_run(out / "experiments/clip-image" / f"seed-{seed}") for seed in (1, 2)]
    other = load_run(out / "experiments/me-clip-image/seed-1")
    assert compare_runs([*runs, other])["experiments"]["vision"]["seeds"] == [1, 2]


def test_an_average_is_the_mean_probability_of_those_that_can_read(finished: tuple[Path, Path], tmp_path: Path) -> None:
    table, done = finished
    out = tmp_path / "out"
    shutil.copytree(done, out)
    (out / "metrics.json").unlink()
    average = Experiment("both", "mean of both", averages=ONLY, compared_with=("clip-image",))
    numbers = run(table, out, experiments=replace(TABLE, experiments=(*TABLE.experiments, average)), only=["both"])
    runs = [load_run(out / "experiments" / name / "seed-1") for name in ONLY]
    means = {}
    for split in ("validation", "test"):
        first, second = (one.probabilities(one.predictions()[f"{split}_logits"]) for one in runs)
        pairs = zip(first, second, strict=True)  # `write_table` leaves out each ninth picture
        means[split] = np.array([other if at % 9 == 8 else (one + other) / 2 for at, (one, other) in enumerate(pairs)])
    chosen, true = (runs[0].predictions()[f"{split}_labels"] for split in ("validation", "test"))
    task, line = runs[0].task, numbers["experiments"]["both"]
    temperature = fit_temperature(task, np.log(means["validation"]), chosen)
    likely = task.probabilities(np.log(means["test"]) / temperature)
    assert line["by_seed"]["log_loss"][1] == pytest.approx(log_loss(true, likely), rel=1e-4)
    assert line["by_seed"]["accuracy"][1] == pytest.approx((means["test"].argmax(axis=1) == true).mean())
    assert set(line["gain"]) == {"clip-image"}
    assert not (out / "experiments" / "both").exists()


def test_the_best_expanded_experiment_is_held_to_what_is_not(finished: tuple[Path, Path], tmp_path: Path) -> None:
    table, done = finished
    out = tmp_path / "out"
    shutil.copytree(done, out)
    (out / "metrics.json").unlink()
    settings = {"model": "late-fusion", "fusion": "score"}
    plain = Experiment("plain", "{vision} and {text}", settings, {"vision": "clip-image", "text": "bert"})
    more = replace(TABLE, experiments=(*TABLE.experiments, plain))
    gains = run(table, out, (0,), experiments=more, only=["plain"])["experiments"]["me-clip-image"]["gain"]
    assert list(gains) == ["clip-image", "plain"]
    assert gains["plain"]["seeds"] == [0]
    numbers = compare_runs([load_run(out / "experiments" / name / "seed-0") for name in ("plain", *ONLY)])
    assert list(numbers["experiments"]["me-vision"]["gain"]) == ["late-fusion"]  # there the first is what counts
    (out / "metrics.json").unlink()
    unheld = run(table, out, (0,), experiments=replace(more, held_to_rivals=False), only=["plain"])
    assert list(unheld["experiments"]["me-clip-image"]["gain"]) == ["clip-image"]


def test_folds_of_a_source_need_no_cache_of_ones_own(tmp_path: Path) -> None:
    """A table without `source_cache` ended at this line, after all before it had been trained."""
    table, out, only = write_table(tmp_path), tmp_path / "out", ("text", "me-vision-folds")
    numbers = run(table, out, (0,), given={"source_cache": None}, experiments=TABLES[3], only=only)
    assert set(numbers["experiments"]) == set(only)
    assert not (out / "source-cache").exists()
