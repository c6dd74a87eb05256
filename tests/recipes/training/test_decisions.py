"""What a training decides by is chosen on its validation split, kept, shown, and used wherever the run answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipes_data import CLASSES, write_table
from rich.console import Console
from sklearn.metrics import average_precision_score
from training_runs import settings, train

from mi2p_inject.recipes.config import AnswersConfig, make_config
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.evaluation.evaluate import evaluate_run, predict_file, predict_one
from mi2p_inject.recipes.evaluation.run_report import run_markdown
from mi2p_inject.recipes.experiments.experiment import Experiment
from mi2p_inject.recipes.experiments.results import Results
from mi2p_inject.recipes.metrics.decisions import choose_decision, fit_temperature
from mi2p_inject.recipes.metrics.probability_metrics import expected_calibration_error, log_loss
from mi2p_inject.recipes.saving.saved import SavedRun, load_run
from mi2p_inject.recipes.tasks import MultiLabel, SingleLabel, Task
from mi2p_inject.recipes.training.train import load_samples, train_run


@pytest.fixture(scope="module", params=["single-label", "multi-label"])
def calibrated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SavedRun:
    folder = tmp_path_factory.mktemp("calibrated")
    table = write_table(folder, several=request.param == "multi-label")
    train(table, folder / "run", model="me-text", epochs=2, augment=False)
    return load_run(folder / "run")


def train_without_validation(folder: Path, *, several: bool = True, **more: Any) -> dict[str, Any]:
    """As a program trains that hands over its samples: the loaders make a validation split where there is none."""
    config = make_config(settings(write_table(folder, several=several), model="text", max_steps=1, **more))
    samples = load_samples(config)
    splits = {name: rows for name, rows in samples.splits.items() if name != "validation"}
    return train_run(config, folder / "run", Console(quiet=True), samples=replace(samples, splits=splits))


def test_nothing_is_chosen_by_a_validation_split_without_labels(tmp_path: Path) -> None:
    config = make_config(settings(write_table(tmp_path, several=True), model="text", max_steps=1))
    samples = load_samples(config)
    validation = samples.splits["validation"]
    none = validation.remove_columns("label").add_column(
        "label", [[]] * len(validation), feature=validation.features["label"]
    )
    splits = {**samples.splits, "validation": none}
    with pytest.raises(RecipeError, match="no validation sample has a label"):
        train_run(config, tmp_path / "run", Console(quiet=True), samples=replace(samples, splits=splits))
    assert not (tmp_path / "run").exists()


def test_the_decision_is_the_one_tuned_on_validation(calibrated: SavedRun) -> None:
    task, found = calibrated.task, calibrated.predictions()
    logits, true = found["validation_logits"], found["validation_labels"]
    temperature = fit_temperature(task, logits, true)
    expected = {**task.tune(logits.astype(np.float64) / temperature, true), "temperature": temperature}
    assert calibrated.decision == expected
    assert calibrated.decision["temperature"] != 1
    if task.multi_label:
        assert calibrated.decision["common_threshold"] != 0.5
        assert calibrated.decision["thresholds"] == [calibrated.decision["common_threshold"]] * 3


def test_every_metric_of_a_run_is_of_that_decision(calibrated: SavedRun) -> None:
    task, found = calibrated.task, calibrated.predictions()
    for split in ("validation", "test"):
        true, logits = found[f"{split}_labels"], found[f"{split}_logits"].astype(float)
        likely = task.probabilities(logits / calibrated.decision["temperature"])
        expected = {
            **task.measure(true, calibrated.decide(found[f"{split}_logits"])),
            "log_loss": log_loss(true, likely),
            "expected_calibration_error": expected_calibration_error(true, likely),
        }
        if task.multi_label:
            there = true.any(axis=0)
            expected["macro_average_precision"] = average_precision_score(true[:, there], likely[:, there])
        numbers = calibrated.numbers[split]
        assert {name for name in numbers if name != "f1_of_classes"} == set(expected)
        assert {name: numbers[name]["value"] for name in expected} == pytest.approx(expected)
        assert all(numbers[name]["low"] <= numbers[name]["high"] for name in expected)
    if not task.multi_label:
        assert calibrated.decide(found["test_logits"]).tolist() == found["test_logits"].argmax(axis=1).tolist()
    again = evaluate_run(calibrated, None, {})["metrics"]
    assert again == {name: value for name, value in calibrated.numbers["test"].items() if name != "f1_of_classes"}


def test_predict_gives_the_calibrated_probabilities(calibrated: SavedRun) -> None:
    task, found = calibrated.task, calibrated.predictions()
    expected = task.probabilities(found["test_logits"].astype(float) / calibrated.decision["temperature"])
    answers = list(predict_file(calibrated, calibrated.config.data.data, {}))[
        -12:
    ]  # the table ends with the test split
    for answer, likely in zip(answers, expected, strict=True):
        assert list(answer["probabilities"].values()) == pytest.approx(likely, abs=1e-5)
    one = predict_one(calibrated, None, "crimson thing")
    if task.multi_label:
        assert set(one["thresholds"].values()) == {round(calibrated.decision["common_threshold"], 6)}


def test_the_report_shows_what_is_decided_by(calibrated: SavedRun) -> None:
    text = run_markdown(calibrated)
    assert f"Temperature: {calibrated.decision['temperature']:.3f}" in text
    for words in ("log-loss", "calibration error", "test, always"):
        assert words in text
    if calibrated.task.multi_label:
        assert f"Thresholds: {calibrated.decision['common_threshold']:.3f} for all classes." in text
        assert "macro average precision" in text


def test_several_labels_choose_the_checkpoint_without_a_threshold(tmp_path: Path) -> None:
    table = write_table(tmp_path, several=True)
    numbers = train(table, tmp_path / "run", model="text", epochs=4, patience=0, keep_weights=False)
    assert numbers["selected_by"] == "macro_average_precision"
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    scores = {one["step"]: one["eval_macro_average_precision"] for one in history if "eval_loss" in one}
    assert len(scores) == 4
    assert scores[numbers["best_step"]] == max(scores.values())
    value = numbers["validation"]["macro_average_precision"]["value"]
    assert value == pytest.approx(max(scores.values()))


def test_without_a_validation_split_a_label_holds_from_a_half_on(tmp_path: Path) -> None:
    numbers = train_without_validation(tmp_path, keep_weights=False)
    assert numbers["decision"]["thresholds"] == [0.5] * 3
    assert any("no validation split" in one and "0.5" in one for one in numbers["remarks"])


@pytest.mark.parametrize(
    "more", [{"thresholds": "tuned"}, {"calibrate": True}, {"thresholds": "tuned", "calibrate": True}]
)
def test_nothing_is_tuned_without_a_validation_split(tmp_path: Path, more: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=r"needs a validation split[\s\S]*leave it out") as error:
        train_without_validation(tmp_path, **more)
    assert all(name in str(error.value) for name in more)
    assert not (tmp_path / "run").exists()


def test_thresholds_of_a_task_that_has_none(table: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="a single-label task has none"):
        train(table, tmp_path / "run", thresholds="fixed")
    assert not (tmp_path / "run").exists()


def test_fixed_thresholds() -> None:
    task, logits, true = MultiLabel(CLASSES), *drawn(MultiLabel(CLASSES))
    apart = AnswersConfig(thresholds="fixed", calibrate=False)
    assert choose_decision(task, logits, true, apart) == task.usual_decision()
    both = choose_decision(task, logits, true, AnswersConfig(thresholds="fixed"))
    assert both == {**task.usual_decision(), "temperature": fit_temperature(task, logits, true)}


def drawn(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Overconfident logits."""
    random = np.random.default_rng(0)
    true = (random.random((90, 3)) < 0.4).astype(np.int64) if task.multi_label else random.integers(0, 3, 90)
    right = true if task.multi_label else np.eye(3)[true]
    return (4 * random.normal(size=(90, 3)) + 3 * right).astype(np.float32), true


TASKS = [SingleLabel(CLASSES), MultiLabel(CLASSES)]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_the_temperature_has_the_lowest_log_loss(task: Task) -> None:
    """Where a hundred times the samples leave the prior no say."""
    logits, true = drawn(task)
    found = fit_temperature(task, np.tile(logits, (100, 1)), np.concatenate([true] * 100))
    losses = {at: log_loss(true, task.probabilities(logits / at)) for at in np.geomspace(0.05, 20, 500)}
    assert found == pytest.approx(min(losses, key=lambda at: losses[at]), rel=0.02)
    assert log_loss(true, task.probabilities(logits / found)) <= min(losses.values()) + 1e-4
    assert found > 1


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_few_samples_say_little_of_the_temperature(task: Task) -> None:
    """By log-loss alone, eight right answers ask for a tiny temperature, and eight wrong ones for the largest."""
    right = np.arange(8) % 3
    true = np.eye(3, dtype=np.int64)[right] if task.multi_label else right
    logits = (6 * np.eye(3)[right] - 3).astype(np.float32)
    small, large = fit_temperature(task, logits, true), fit_temperature(task, -logits, true)
    assert 0.7 < small < 1 < large < 4
    assert fit_temperature(task, logits, true, prior=1e9) < 0.2
    assert fit_temperature(task, -logits, true, prior=1e9) > 10


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_answers_are_as_trained_where_that_is_asked_for(task: Task) -> None:
    logits, true = drawn(task)
    assert choose_decision(task, logits, true, AnswersConfig(calibrate=False)) == task.tune(logits, true)
    assert choose_decision(task, logits, true, AnswersConfig())["temperature"] > 1


def test_probabilities_stay_as_trained_without_a_validation_split(tmp_path: Path) -> None:
    for calibrate, noted in ((None, 1), (False, 0)):
        numbers = train_without_validation(tmp_path / str(calibrate), several=False, calibrate=calibrate)
        assert numbers["decision"] == {}
        assert sum("probabilities stay as trained" in one for one in numbers["remarks"]) == noted


@pytest.mark.parametrize(
    "answers", [AnswersConfig(), AnswersConfig(calibrate=False), AnswersConfig(thresholds="fixed")]
)
def test_an_average_is_decided_as_its_members_are(calibrated: SavedRun, answers: AnswersConfig) -> None:
    """Of their calibrated probabilities, with thresholds and a temperature of its own."""
    task, samples = calibrated.task, load_samples(calibrated.config)
    if answers.thresholds and not task.multi_label:
        return
    results, found = Results(samples, task, answers), calibrated.predictions()
    flipped = replace(calibrated, decision={**calibrated.decision, "temperature": 3.0})
    for name, run in (("one", calibrated), ("other", flipped)):
        results.add_run(name, 0, run)
    results.add_average(Experiment("both", "both", averages=("one", "other")))
    average = results.outcomes["both"][0]
    members = [run.probabilities(found["validation_logits"]) for run in (calibrated, flipped)]
    mean = np.mean(members, axis=0)
    logits = np.log(mean / (1 - mean)) if task.multi_label else np.log(mean)
    assert task.probabilities(average.logits["validation"]) == pytest.approx(mean, abs=1e-5)
    expected = choose_decision(task, logits, found["validation_labels"], answers)
    assert set(average.decision) == set(expected)
    if answers.calibrate is None:
        assert average.decision["temperature"] == pytest.approx(expected["temperature"], rel=1e-3)
    if answers.thresholds == "fixed":
        assert average.decision["thresholds"] == [0.5] * 3
