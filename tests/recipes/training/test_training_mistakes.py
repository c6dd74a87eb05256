"""What cannot be trained is said before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training_runs import train

from mi2p_inject.recipes.errors import RecipeError


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
