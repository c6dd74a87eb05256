"""Every compared system from the command to the answer: train, go on, save, load, evaluate, predict."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from compared_systems import NAMES
from recipes_data import CLASSES, write_table
from rich.console import Console
from training_runs import interrupted_at, losses
from typer.testing import CliRunner

from mi2p_inject.recipes import api
from mi2p_inject.recipes.cli.app import app
from mi2p_inject.recipes.config import make_config
from mi2p_inject.recipes.evaluation.evaluate import evaluate_run, predict_file, predict_one
from mi2p_inject.recipes.saving.saved import load_run
from mi2p_inject.recipes.training import train as training
from mi2p_inject.recipes.training.train import train_run

TINY = {"vision": "tiny", "text": "tiny", "image_size": 64, "max_length": 16, "batch_size": 16, "learning_rate": 3e-3}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return tuple(write_table(tmp_path_factory.mktemp("data"), several=several) for several in (False, True))  # type: ignore[return-value]


def train(table: Path, out: Path, model: str, **more: object) -> Path:
    train_run(make_config({"data": str(table), "model": model, **TINY, **more}), out, Console(quiet=True))
    return out


@pytest.mark.parametrize("name", NAMES)
def test_from_training_to_answers(
    name: str, tables: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tables[0]
    given = {"max_steps": 3, "save_steps": 1}
    out = train(table, tmp_path / "whole", name, **given)

    with monkeypatch.context() as patched:
        patched.setattr(training, "row_progress", interrupted_at(2))
        with pytest.raises(KeyboardInterrupt):
            train(table, tmp_path / "stopped", name, **given)
    train(table, tmp_path / "stopped", name, **given)
    assert losses(tmp_path / "stopped") == pytest.approx(losses(out), rel=1e-5)

    moved = shutil.copytree(out, tmp_path / "elsewhere")
    saved = api.load_run(moved).saved  # builds its model once
    (model, _), (again, _) = saved.model(), load_run(moved).model()
    assert model is not again
    state = model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())
    logits = saved.predictions()["test_logits"]
    assert np.isfinite(logits).all()
    metrics = evaluate_run(saved, None, {})["metrics"]
    assert metrics["accuracy"] == saved.numbers["test"]["accuracy"]
    answers = {answer["id"]: answer["label"] for answer in predict_file(saved, str(table), {})}
    assert len(answers) == 72
    samples = training.load_samples(saved.config).splits["test"]["id"]
    assert [CLASSES.index(answers[one]) for one in samples] == saved.decide(logits).tolist()
    picture = table.parent / "img" / "test0.png"
    for image, text in ((picture, None), (None, "crimson thing"), (picture, "crimson thing")):
        assert sum(predict_one(saved, image, text)["probabilities"].values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_several_labels(name: str, tables: tuple[Path, Path], tmp_path: Path) -> None:
    saved = load_run(train(tables[1], tmp_path / "run", name, max_steps=1))
    assert saved.task.name == "multi-label"
    assert saved.predictions()["test_logits"].shape == (12, 3)


def test_from_the_command_line(tables: tuple[Path, Path], tmp_path: Path) -> None:
    out, table = tmp_path / "run", tables[0]
    arguments = ["train", "--data", str(table), "--model", NAMES[0], "--vision", "tiny", "--text", "tiny"]
    result = CliRunner().invoke(app, [*arguments, "--max-steps", "1", "--out", str(out)])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(app, ["predict", str(out), "--text", "navy thing"])
    assert json.loads(result.output)["label"] in CLASSES
    result = CliRunner().invoke(app, ["train", "--data", str(table), "--model", "mmbtt", "--out", str(out)])
    assert result.exit_code != 0
    assert "mmbt" in result.output
