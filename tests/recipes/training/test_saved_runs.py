"""A run folder is whole, says what was measured, and comes back as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from training_runs import edit

from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.evaluation.evaluate import evaluate_run, predict_file, predict_one
from mi2p_inject.recipes.evaluation.run_report import run_markdown
from mi2p_inject.recipes.training.saved import load_run
from mi2p_inject.recipes.training.train import load_samples


def test_the_folder_holds_no_pickles_and_nothing_half_written(trained: Path) -> None:
    files = {str(path.relative_to(trained)) for path in trained.rglob("*") if path.is_file()}
    assert {"run.json", "metrics.json", "history.json", "predictions.safetensors"} < files
    assert {Path(name).suffix for name in files} <= {".json", ".safetensors", ".txt", ".jinja"}
    assert not [name for name in files if "unfinished" in name or "checkpoint-" in name]


def test_a_reloaded_model_gives_the_very_predictions(trained: Path) -> None:
    run = load_run(trained)
    numbers = evaluate_run(run, None, {})
    assert numbers["metrics"] == {name: value for name, value in run.numbers["test"].items() if name != "f1_of_classes"}
    answers = {answer["id"]: answer for answer in predict_file(run, run.config.data.data, {})}
    part = load_samples(run.config).splits["test"]
    logits = torch.from_numpy(run.predictions()["test_logits"])
    for number, row in enumerate(part):
        expected = logits[number].softmax(-1).tolist()
        assert list(answers[row["id"]]["probabilities"].values()) == pytest.approx(expected, abs=1e-5)
        if number not in (0, 8, 9):  # whole, without a picture, without a text
            continue
        one = predict_one(run, Path(row["image"]) if row["image"] else None, row["text"])
        assert list(one["probabilities"].values()) == pytest.approx(expected, abs=1e-5)


def test_the_report_says_it_all(trained: Path) -> None:
    text = run_markdown(load_run(trained))
    for words in ("me-fusion", "cross-attention", "test_vit (random weights)", "| test | 12 |", "| red |", "epochs=2"):
        assert words in text


def test_new_data(trained: Path, table: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    lines = table.read_text().splitlines()
    header, rows = lines[0].rsplit(",", 1)[0], [line.rsplit(",", 1)[0] for line in lines[60:70]]
    other.write_text("\n".join([header, *rows]) + "\n")
    numbers = evaluate_run(load_run(trained), str(other), {"image_root": str(table.parent), "split_col": None})
    assert numbers["samples"] == 10
    unknown = tmp_path / "unknown.csv"
    unknown.write_text("text,label\nsomething,purple\n")
    with pytest.raises(RecipeError, match="purple"):
        evaluate_run(load_run(trained), str(unknown), {})


def test_changed_data_are_not_taken_for_the_old_ones(trained: Path, table: Path, tmp_path: Path) -> None:
    run = load_run(trained)
    before = table.read_text()
    try:
        table.write_text(before.replace("crimson", "purple", 1))
        with pytest.raises(RecipeError, match="not what it was"):
            evaluate_run(run, None, {})
    finally:
        table.write_text(before)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda run: (run / "run.json").unlink(), "no run folder"),
        (lambda run: edit(run / "run.json", format=1), "another version"),
        (lambda run: edit(run / "run.json", recipe="openmoji"), "run of 'openmoji'"),
        (lambda run: (run / "metrics.json").unlink(), "not finished"),
        (lambda run: (run / "metrics.json").write_text("{"), "damaged"),
        (lambda run: edit(run / "metrics.json", decision=None, problem_type="multi-label"), "damaged"),
        (lambda run: edit(run / "metrics.json", problem_type="multi-lable"), "did you mean 'multi-label'"),
        (lambda run: (run / "model" / "model.safetensors").write_bytes(b"x" * 100), "cannot be read"),
        (lambda run: (run / "model" / "sources.safetensors").unlink(), "cannot be read"),
    ],
)
def test_a_damaged_run_is_named(trained: Path, tmp_path: Path, change: Callable[[Path], object], words: str) -> None:
    import shutil

    shutil.copytree(trained, tmp_path / "run")
    change(tmp_path / "run")
    with pytest.raises(RecipeError, match=words):
        load_run(tmp_path / "run").model()
