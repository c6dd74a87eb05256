"""The paper's tables: rows that can all be built, figures that fit them, and runs that can be resumed and extended."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipes_data import write_table
from rich.console import Console
from test_data_benchmarks import crisis, imdb
from typer.testing import CliRunner

from mi2p_inject.recipes.cli.app import app
from mi2p_inject.recipes.config import Config, make_config
from mi2p_inject.recipes.data.formats.crisismmd import TASKS
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.evaluation.metrics import decide
from mi2p_inject.recipes.experiments.paper_tables import ENCODERS, PAPER, TABLES, TableRow, paper_figures
from mi2p_inject.recipes.experiments.runner import run_table
from mi2p_inject.recipes.training.saved import load_run

ROWS = [(number, row) for number, rows in TABLES.items() for row in rows]
ONLY = ("clip-image", "me-clip-image")


def small(table: Path, **more: Any) -> Config:
    given = {"data": str(table), "epochs": 1, "max_steps": 2, "batch_size": 8, "image_size": 32, "learning_rate": 3e-3}
    return make_config({**given, "new_learning_rate": 3e-3, "keep_weights": False, **more})


def run(table: Path, out: Path, seeds: tuple[int, ...] = (0, 1), **more: Any) -> Any:
    config = small(table, source_cache=str(out.parent / "cache"), **more)
    return run_table(6, config, out, Console(quiet=True), encoders="tiny", seeds=seeds, only=ONLY)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("table")
    table = write_table(folder)
    run(table, folder / "out")
    return table, folder / "out"


@pytest.mark.parametrize(("number", "row"), ROWS, ids=lambda value: getattr(value, "name", value))
def test_rows_are_settings_that_exist(number: int, row: TableRow) -> None:
    for roles in ENCODERS.values():
        config = make_config({"data": "-", **row.settings, "vision": roles[row.vision], "text": roles[row.text]})
        assert config.model.expanded == row.title.startswith("ME ") or "MI2P" in row.title
    names = [other.name for other in TABLES[number]]
    assert names.count(row.name) == 1
    assert all(names.index(base) < names.index(row.name) for base in row.beats)
    assert row.beats or not config.model.expanded


@pytest.mark.parametrize("number", TABLES)
def test_every_row_has_the_papers_figures(number: int) -> None:
    for (data, task), (metrics, rows) in PAPER[number].items():
        assert set(rows) == {row.name for row in TABLES[number]}
        assert all(len(figures) == len(metrics) for figures in rows.values())
        assert paper_figures(number, f"{data}:/somewhere", task or None).keys() == rows.keys()
    assert paper_figures(number, "my.csv", None) == {}
    assert paper_figures(number, "crisismmd:/d", None) == paper_figures(number, "crisismmd:/d", next(iter(TASKS)))


def test_what_table_3_says_in_the_papers_text() -> None:
    """Section 4.3: an expanded model or fusion beats the plain one, in every metric of every task."""
    for figures in PAPER[3].values():
        for row in TABLES[3]:
            for base in row.beats:
                assert np.array(figures[1][row.name]).mean() > np.array(figures[1][base]).mean()


def test_the_table_is_what_its_runs_predict(finished: tuple[Path, Path]) -> None:
    _, out = finished
    numbers = json.loads((out / "metrics.json").read_text())
    assert list(numbers["rows"]) == list(ONLY)
    for name, row in numbers["rows"].items():
        runs = [load_run(out / "rows" / name / f"seed-{seed}") for seed in (0, 1)]
        accuracies = []
        for one in runs:
            found = one.predictions()
            accuracies.append((decide(found["test_logits"]) == found["test_labels"]).mean())
        assert row["test"]["accuracy"]["value"] == pytest.approx(np.mean(accuracies))
        assert row["sd"]["accuracy"] == pytest.approx(np.std(accuracies, ddof=1))
        assert len({tuple(one.predictions()["test_labels"]) for one in runs}) == 1  # one split for all seeds
        assert runs[0].predictions()["test_logits"].tolist() != runs[1].predictions()["test_logits"].tolist()
    gain = numbers["rows"]["me-clip-image"]["gain"]
    values = [numbers["rows"][name]["test"]["accuracy"]["value"] for name in ("me-clip-image", "clip-image")]
    assert gain["clip-image"]["accuracy"]["value"] == pytest.approx(values[0] - values[1])
    text = (out / "table.md").read_text()
    for words in ("ME CLIP-Img-Encoder", "random weights", "stand-ins", "Mean over seeds 0, 1", "my.csv"):
        assert words in text
    assert str(out.parent) not in text + (out / "metrics.json").read_text()  # no path of this machine


def test_mi2p_report_shows_it(finished: tuple[Path, Path]) -> None:
    result = CliRunner().invoke(app, ["report", str(finished[1])])
    assert result.output == (finished[1] / "table.md").read_text()


def test_more_seeds_and_lost_rows_are_added(finished: tuple[Path, Path], tmp_path: Path) -> None:
    table, done = finished
    out = tmp_path / "out"
    shutil.copytree(done, out)
    shutil.rmtree(out / "rows" / "clip-image" / "seed-1")
    kept = {path: path.stat().st_mtime_ns for path in out.glob("rows/*/*/metrics.json")}
    assert len(kept) == 3
    run(table, out, seeds=(0, 1, 2))
    assert len(list(out.glob("rows/*/*/metrics.json"))) == 6
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    numbers, before = (json.loads((folder / "metrics.json").read_text()) for folder in (out, done))
    assert numbers["seeds"] == [0, 1, 2]
    first, again = (load_run(folder / "rows" / "clip-image" / "seed-1").predictions() for folder in (done, out))
    assert np.array_equal(first["test_logits"], again["test_logits"])
    assert before["seeds"] == [0, 1]


def test_other_settings_are_another_table(finished: tuple[Path, Path]) -> None:
    table, out = finished
    with pytest.raises(RecipeError, match="max_steps differ"):
        run(table, out, max_steps=3)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"number": 7}, "no table 7"),
        ({"encoders": "large"}, "paper, demo, tiny"),
        ({"only": ["resnet", "gmu"]}, "no row gmu"),
        ({"encoders": "paper"}, "densenet121|resnet50|bert|ViT"),  # no hub: found out before any training
    ],
)
def test_mistakes_are_named(finished: tuple[Path, Path], tmp_path: Path, more: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {"number": 6, "encoders": "tiny", "only": [], **more}
    with pytest.raises(RecipeError, match=words):
        run_table(given.pop("number"), small(finished[0]), tmp_path / "out", Console(quiet=True), seeds=[0], **given)
    assert not list(tmp_path.rglob("metrics.json"))


def test_a_table_needs_both_modalities(tmp_path: Path) -> None:
    lines = ["text,label", *(f"thing {i},{'ab'[i % 2]}" for i in range(60))]
    (tmp_path / "words.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(RecipeError, match="images, texts and a test part"):
        run(tmp_path / "words.csv", tmp_path / "out")


@pytest.mark.parametrize(
    ("number", "make", "figures"),
    [
        (3, lambda root: f"crisismmd:{crisis(root)}", ("83.4", "60.5", "87.0")),
        (4, lambda root: f"mmimdb:{imdb(root)}", ("37.3", "46.7")),
    ],
    ids=["crisismmd", "mmimdb"],
)
def test_on_the_papers_data_the_papers_figures_stand_beside(
    number: int, make: Callable[[Path], str], figures: tuple[str, ...], tmp_path: Path
) -> None:
    config = make_config(
        {"data": make(tmp_path / "data"), "epochs": 1, "image_size": 32, "keep_weights": False}, preset="paper"
    )
    run_table(number, config, tmp_path / "out", Console(quiet=True), encoders="tiny", seeds=[0], only=["vision"])
    line = (tmp_path / "out" / "table.md").read_text().splitlines()[2]
    assert line.startswith("| Unimodal DenseNet | densenet121 (random weights) |")
    for figure in figures:
        assert f"| {figure} " in line
    saved = load_run(tmp_path / "out" / "rows" / "vision" / "seed-0")
    assert saved.config.optimisation.batch_size == 128
    assert saved.multi_label == (number == 4)
    assert str(tmp_path) not in (tmp_path / "out" / "table.md").read_text()
