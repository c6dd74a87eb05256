"""What cannot be trained is said before anything is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from training_runs import settings, train

from mi2p_inject.recipes.config import make_config
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.training.train import load_samples, train_run


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {"learning_rate": 1e30, "new_learning_rate": 1e30, "max_grad_norm": 0, "warmup_ratio": 0},
            "the loss is (nan|inf)",
        ),
        ({"precision": "fp16"}, "needs a GPU"),
        ({"metric": "micro_f1"}, "accuracy, macro_f1, weighted_f1"),
        ({"vision": "densnet121"}, "densenet121"),
        ({"vision_layers": ["nowhere"]}, "nowhere"),
        ({"unit": "mi2q"}, "mi2p"),
        ({"label_col": "lable"}, "label"),
        ({"data": "no-such-file.csv"}, "no-such-file"),
    ],
)
def test_mistakes_are_named(table: Path, tmp_path: Path, more: dict[str, Any], words: str) -> None:
    from mi2p_inject.core.errors import Mi2pError

    with pytest.raises(Mi2pError, match=words):
        train(table, tmp_path / "run", **{"model": "me-vision", "epochs": 1, **more})
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert not (tmp_path / "run" / "model").exists()


def test_a_model_that_has_nothing_to_read(tmp_path: Path) -> None:
    lines = ["text,label", *(f"thing {i},{'ab'[i % 2]}" for i in range(60))]
    (tmp_path / "words.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(RecipeError, match="--image-col"):
        train(tmp_path / "words.csv", tmp_path / "run")
    assert not (tmp_path / "run").exists()


RUINED = {"learning_rate": 1e12, "new_learning_rate": 1e12, "warmup_ratio": 0, "max_steps": 1, "keep_weights": False}


@pytest.mark.parametrize("splits", [("train", "validation", "test"), ("train", "test")], ids=["chosen", "last"])
def test_answers_that_are_no_numbers_are_not_measured(table: Path, tmp_path: Path, splits: tuple[str, ...]) -> None:
    """The last step ruins the weights: no later loss says so, and no number is the largest for argmax."""
    config = make_config(settings(table, model="text", **RUINED))
    samples = load_samples(config)
    samples = replace(samples, splits={name: samples.splits[name] for name in splits})
    with pytest.raises(RecipeError, match=r"answers to 11 of 12 samples are no numbers[\s\S]*learning_rate"):
        train_run(config, tmp_path / "run", Console(quiet=True), samples=samples)
    assert not (tmp_path / "run" / "metrics.json").exists()
