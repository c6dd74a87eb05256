"""The reading check against predictions on data that lack a modality, or have another sample's, in their files."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from recipes_data import write_table
from rich.console import Console
from training_runs import settings, train

from mi2p_inject.recipes.config import make_config
from mi2p_inject.recipes.data.samples import readable
from mi2p_inject.recipes.evaluation.evaluate import evaluate_run
from mi2p_inject.recipes.evaluation.run_report import run_markdown
from mi2p_inject.recipes.saving.saved import load_run
from mi2p_inject.recipes.systems import SYSTEMS
from mi2p_inject.recipes.training.reading import PERMUTATIONS, checked_modalities, reading_remarks, shuffled_rows
from mi2p_inject.recipes.training.train import load_samples, train_run

VALIDATION = range(48, 60)  # rows of `write_table`


def rewritten(table: Path, name: str, texts: dict[int, str]) -> Path:
    """The table's validation rows, with other texts, as a file of new data."""
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    chosen = [{**rows[row], "text": texts.get(row - VALIDATION.start, rows[row]["text"])} for row in VALIDATION]
    with (table.parent / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "text", "label"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(chosen)
    return table.parent / name


def texts_of(table: Path) -> list[str]:
    with table.open(newline="") as file:
        return [row["text"] for row in csv.DictReader(file)][VALIDATION.start : VALIDATION.stop]


def test_a_picture_that_cannot_be_read_is_not_handed_on(table: Path) -> None:
    """Training checks some pictures only; a bad one counts as missing."""
    good, bad = next(table.parent.glob("**/*.png")), table.parent / "bad.png"
    bad.write_bytes(good.read_bytes()[:60])
    rows = datasets.Dataset.from_dict(
        {"image": [str(good), str(bad), None, str(table.parent / "nowhere.png"), str(good)]}
    )
    assert readable(rows).tolist() == [True, False, False, False, True]


def test_what_could_not_be_checked_is_said(table: Path, tmp_path: Path) -> None:
    config = make_config(settings(table, model="me-fusion", max_steps=1, keep_weights=False))
    samples = load_samples(config)
    validation = samples.splits["validation"]
    blank = validation.remove_columns("text").add_column(
        "text", [None] * len(validation), feature=validation.features["text"]
    )
    splits = {**samples.splits, "validation": blank}
    numbers = train_run(config, tmp_path / "run", Console(quiet=True), samples=replace(samples, splits=splits))
    assert list(numbers["reading"]["modalities"]) == ["image"]
    assert "no reading check of the text: no validation sample has any" in numbers["remarks"]


@pytest.mark.parametrize("more", [{}, {"cached": True}, {"several": True}], ids=str)
def test_it_is_what_files_without_the_text_score(more: dict[str, Any], tmp_path: Path) -> None:
    several = bool(more.get("several"))
    table = write_table(tmp_path, several=several)
    table.write_text(re.sub(r"(?m)^(?=,\w+ thing number 8 of validation)", "img/validation5.png", table.read_text()))
    cache = {"source_cache": str(tmp_path / "cache")} if more.get("cached") else {}
    numbers = train(table, tmp_path / "run", model="me-vision", epochs=2, unit="film", unit_learning_rate=0.1, **cache)
    run, reading = load_run(tmp_path / "run"), numbers["reading"]
    metric = "macro_average_precision" if several else "accuracy"
    assert (reading["metric"], reading["samples"], set(reading["modalities"])) == (metric, 12, {"text"})
    assert reading["as_is"][metric] == numbers["validation"][metric]["value"]
    assert reading["as_is"]["log_loss"] == pytest.approx(numbers["validation"]["log_loss"]["value"])
    texts, found = texts_of(table), reading["modalities"]["text"]
    having = np.array([row for row, text in enumerate(texts) if text])
    assert found["samples"] == len(having) == 11
    without = rewritten(table, "without.csv", dict.fromkeys(range(12), ""))
    scores = {"withheld": [scored(run, without, metric)], "shuffled": []}
    for one in range(PERMUTATIONS):
        order = shuffled_rows(12, having, (0, one))
        changed = {row: texts[giver] for row, giver in enumerate(order) if giver is not None}
        scores["shuffled"].append(scored(run, rewritten(table, f"shuffled{one}.csv", changed), metric))
    for kind in ("withheld", "shuffled"):
        difference, (score, loss) = found[f"as_is_minus_{kind}"], np.mean(scores[kind], axis=0)
        assert found[kind] == pytest.approx(score)
        assert difference[metric]["value"] == pytest.approx(reading["as_is"][metric] - found[kind])
        assert difference[metric]["low"] <= difference[metric]["value"] <= difference[metric]["high"]
        assert set(difference) == {metric, "log_loss"}
        gained = reading["as_is"]["log_loss"] - loss
        assert abs(gained) > 1e-4  # the model does attend to the text
        assert difference["log_loss"]["value"] == pytest.approx(gained, abs=1e-5)
    assert found["worth"] == min(
        (found[f"as_is_minus_{kind}"][metric] for kind in ("withheld", "shuffled")), key=lambda one: one["value"]
    )
    assert any("the text is worth" in line for line in numbers["remarks"])
    assert "the text is worth" in run_markdown(run)


def scored(run: Any, table: Path, metric: str) -> tuple[float, float]:
    """The metric and the log-loss on new data."""
    found = evaluate_run(run, str(table), {})["metrics"]
    return found[metric]["value"], found["log_loss"]["value"]


@pytest.mark.parametrize(
    "more", [{"model": "late-fusion", "fusion": "score"}, {"model": "me-text"}, {"model": "me-fusion"}]
)
def test_each_modality_of_each_system(more: dict[str, str], table: Path, tmp_path: Path) -> None:
    numbers = train(table, tmp_path / "run", epochs=1, keep_weights=False, **more)
    expected = {"me-text": {"image"}}.get(more["model"], {"image", "text"})
    assert set(numbers["reading"]["modalities"]) == expected
    for one in numbers["reading"]["modalities"].values():
        assert np.isfinite([one["withheld"], one["shuffled"], one["worth"]["low"], one["worth"]["high"]]).all()
        assert np.isfinite(one["as_is_minus_withheld"]["log_loss"]["value"])


def test_what_is_checked() -> None:
    none, both = (), ("image", "text")
    expected = {"vision": none, "text": none, "me-vision": ("text",), "me-text": ("image",), "me-fusion": both}
    assert {name: checked_modalities(SYSTEMS[name]) for name in expected} == expected
    assert all(len(checked_modalities(SYSTEMS[name])) >= 1 for name in SYSTEMS if name not in ("vision", "text"))


def test_no_check_where_there_is_nothing_to_check(table: Path, tmp_path: Path) -> None:
    assert "reading" not in train(table, tmp_path / "alone", model="text", max_steps=1, keep_weights=False)
    off = train(table, tmp_path / "off", model="me-text", max_steps=1, keep_weights=False, reading_check=False)
    assert "reading" not in off
    config = make_config(settings(table, model="me-text", max_steps=1, keep_weights=False))
    samples = load_samples(config)
    splits = {name: rows for name, rows in samples.splits.items() if name != "validation"}
    numbers = train_run(config, tmp_path / "run", Console(quiet=True), samples=replace(samples, splits=splits))
    assert numbers["reading"] is None
    assert "no reading check: there is no validation split" in numbers["remarks"]
    run = load_run(tmp_path / "run")  # what was written can be read
    for page in (run_markdown(run), (run.path / "README.md").read_text()):
        assert re.search(r"weights of step 1[,(\s]*the last: there is no validation split", page)
        assert "best" not in page


@pytest.mark.parametrize("count", [2, 3, 10])
def test_nobody_keeps_its_own(count: int) -> None:
    having = np.arange(0, 2 * count, 2)
    for seed in range(10):
        found = shuffled_rows(2 * count, having, (seed,))
        assert found == shuffled_rows(2 * count, having, (seed,))
        assert sorted(found[::2]) == having.tolist()
        assert all(found[row] != row for row in having)
        assert found[1::2] == [None] * count
    if count > 3:
        assert shuffled_rows(2 * count, having, (0,)) != shuffled_rows(2 * count, having, (1,))


def reading(low: float, high: float, log_loss: float = 0.1, shuffled: float | None = 0.55) -> dict[str, Any]:
    value = (low + high) / 2
    difference = {
        "accuracy": {"value": value, "low": low, "high": high},
        "log_loss": {"value": log_loss, "low": log_loss - 0.05, "high": log_loss + 0.05},
    }
    one = {"samples": 50, "withheld": 0.6, "shuffled": shuffled, "worth": difference["accuracy"]}
    one |= {f"as_is_minus_{kind}": difference for kind in ("withheld", "shuffled") if kind == "withheld" or shuffled}
    return {
        "metric": "accuracy",
        "split": "validation",
        "samples": 63,
        "as_is": {"accuracy": 0.661},
        "modalities": {"text": one},
    }


def test_what_it_says() -> None:
    config = make_config({"data": "-", "model": "me-vision"})
    assert reading_remarks(reading(0.022, 0.1), config) == [
        "reading check, 63 validation samples: the text is worth +6.1 points of accuracy [2.2, 10.0] "
        "(as is 66.1, withheld 60.0, another sample's 55.0)"
    ]
    (line,) = reading_remarks(reading(-0.01, 0.03), config)
    for words in (
        "not surely worth anything, the interval holds 0;",
        "more steps",
        "vision_layers",
        "tuned on the task",
    ):
        assert words in line
    (line,) = reading_remarks(reading(-0.05, -0.03, log_loss=-0.2, shuffled=None), config)
    assert "better without it, though it lowers the log-loss by 0.200; try" in line
    assert "another" not in line
    worse = reading(-0.05, -0.03)
    worse["modalities"]["text"]["as_is_minus_withheld"] = {
        "accuracy": {"value": 0.06, "low": 0.02, "high": 0.1},
        "log_loss": {"value": 0.1, "low": 0.05, "high": 0.15},
    }
    (line,) = reading_remarks(worse, config)
    assert "worth nothing, the answers are better with another sample's; try" in line
    late = make_config({"data": "-", "model": "late-fusion"})
    (line,) = reading_remarks(reading(-0.01, 0.03), late)
    assert "text_learning_rate" in line
    assert "tuned" not in line
