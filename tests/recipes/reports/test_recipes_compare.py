"""`mi2p compare`: the numbers of single runs, paired sample by sample and seed by seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from recipes_data import write_table
from training_runs import train
from typer.testing import CliRunner

from mi2p_inject.recipes.cli.app import app
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.experiments.compare import compare_runs
from mi2p_inject.recipes.saving.saved import load_run

SHORT = {"epochs": 1, "max_steps": 3, "keep_weights": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models with two seeds each, and one of other data."""
    here = tmp_path_factory.mktemp("compare")
    table = write_table(here / "data")
    for model in ("vision", "text"):
        for seed in (0, 1):
            train(table, here / f"{model}-{seed}", model=model, seed=seed, **SHORT)
    train(table, here / "slow", model="vision", **{**SHORT, "learning_rate": 1e-4})
    other = write_table(here / "other", name="other.csv")
    other.write_text("\n".join(other.read_text().splitlines()[:-3]) + "\n")
    train(other, here / "elsewhere", model="vision", **SHORT)
    return here


def test_seeds_are_one_line_and_differences_are_paired(folder: Path) -> None:
    runs = [load_run(folder / name) for name in ("vision-0", "text-0", "vision-1", "text-1")]
    numbers = compare_runs(runs)
    lines = numbers["experiments"]
    assert list(lines) == ["vision", "text"]
    accuracy = {run.path.name: run.numbers["test"]["accuracy"]["value"] for run in runs}
    for model in lines:
        assert lines[model]["by_seed"]["accuracy"] == pytest.approx([accuracy[f"{model}-0"], accuracy[f"{model}-1"]])
    gain = lines["text"]["gain"]["vision"]
    assert gain["seeds"] == [0, 1]
    assert gain["by_seed"]["accuracy"] == pytest.approx(
        np.array(lines["text"]["by_seed"]["accuracy"]) - np.array(lines["vision"]["by_seed"]["accuracy"])
    )
    assert gain["test"]["accuracy"]["value"] == pytest.approx(np.mean(gain["by_seed"]["accuracy"]))


def test_lines_of_other_seeds_are_not_said_to_be_of_all(folder: Path) -> None:
    names = [str(folder / name) for name in ("vision-0", "text-0", "text-1")]
    table = CliRunner().invoke(app, ["compare", *names, "--markdown"]).output
    difference = next(line for line in table.splitlines() if line.startswith("| text minus vision |"))
    assert difference.endswith("| 0 |")
    assert "Mean over each line's own seeds" in table
    shown = CliRunner().invoke(app, ["compare", *names], terminal_width=200).output
    assert "text minus vision (seed 0)" in shown
    assert "text (seeds 0, 1)" in shown


def test_lines_without_a_common_seed_are_said_to_have_none(folder: Path) -> None:
    names = [str(folder / name) for name in ("vision-0", "text-1")]
    shown = CliRunner().invoke(app, ["compare", *names]).output
    assert "text (seed 1) and vision (seed 0) have no seed in common" in " ".join(shown.split())


def test_equal_models_are_told_apart_by_their_folders(folder: Path) -> None:
    numbers = compare_runs([load_run(folder / name) for name in ("vision-0", "slow")])
    assert list(numbers["experiments"]) == ["vision, vision-0", "vision, slow"]


def test_the_command(folder: Path, tmp_path: Path) -> None:
    names = [str(folder / name) for name in ("vision-0", "text-0")]
    shown = CliRunner().invoke(app, ["compare", *names, "--figure", str(tmp_path / "gains.png")])
    assert shown.exit_code == 0, shown.output
    assert "text minus vision" in shown.output
    assert (tmp_path / "gains.png").read_bytes().startswith(b"\x89PNG")
    table = CliRunner().invoke(app, ["compare", *names, "--markdown"]).output
    assert "| text minus vision |" in table
    refused = CliRunner().invoke(app, ["compare", *names, "--figure", str(tmp_path / "gains.txt")])
    assert refused.exit_code == 1
    assert "no name of a figure" in refused.stderr
    assert f"fix: such as {tmp_path / 'gains.png'}" in refused.stderr  # --out is no option of this command
    assert not (tmp_path / "gains.txt").exists()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("vision-0", "elsewhere"), "cannot be compared"),
        (("vision-0", "vision-1"), "nothing to compare"),
        (("vision-0", "text-0", "text-0"), "repeats another"),
    ],
)
def test_what_cannot_be_compared(names: tuple[str, ...], words: str, folder: Path) -> None:
    with pytest.raises(RecipeError, match=words):
        compare_runs([load_run(folder / name) for name in names])


def test_groups_of_any_run_are_drawn_whatever_the_order(tmp_path: Path) -> None:
    """A run that names no groups beside one that does: intervals over single samples are too narrow."""
    head, *lines = write_table(tmp_path / "data").read_text().splitlines()
    rows = [f"{head},ward", *(f"{line},w{number % 3}" for number, line in enumerate(lines))]
    table = tmp_path / "data" / "wards.csv"
    table.write_text("\n".join(rows) + "\n")
    train(table, tmp_path / "grouped", model="vision", group_col="ward", **SHORT)
    train(table, tmp_path / "single", model="text", **SHORT)
    runs = [load_run(tmp_path / name) for name in ("grouped", "single")]
    one, other = compare_runs(runs), compare_runs(runs[::-1])
    assert one["experiments"]["vision"]["test"] == other["experiments"]["vision"]["test"]
    assert one["experiments"]["vision"]["test"] == {
        name: pytest.approx(runs[0].numbers["test"][name]) for name in one["metrics"]
    }
    said = "the runs' groups differ: samples of one group in any of them are drawn together, in 3 groups."
    assert said in one["notes"]
    assert said in other["notes"]
