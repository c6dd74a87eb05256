"""The two seams: a system and a task of another distribution train, resume, cache, save, load, predict and report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from recipes_data import CLASSES, write_table
from rich.console import Console
from third_party import installed
from training_runs import SMALL, losses
from typer.testing import CliRunner

from mi2p_inject.recipes.cli.app import app
from mi2p_inject.recipes.config import OPTIONS, make_config
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.evaluation.evaluate import evaluate_run, predict_file, predict_one
from mi2p_inject.recipes.evaluation.run_report import run_markdown
from mi2p_inject.recipes.saving.saved import load_run
from mi2p_inject.recipes.systems import SYSTEMS
from mi2p_inject.recipes.tasks import TASKS
from mi2p_inject.recipes.training.train import load_samples, train_run

ENTRY_POINTS = """
[mi2p_inject.systems]
gated = third_party_recipes:GATED

[mi2p_inject.tasks]
ordinal = third_party_recipes:Ordinal
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module", autouse=True)
def third_party(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with installed(tmp_path_factory.mktemp("site"), ENTRY_POINTS):
        yield


def train(table: Path, out: Path, **more: object) -> Path:
    given = {"data": str(table), "model": "gated", "problem_type": "ordinal", "max_steps": 2, **SMALL, **more}
    train_run(make_config(given), out, Console(quiet=True))
    return out


@pytest.fixture(scope="module")
def run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(table, tmp_path_factory.mktemp("runs") / "toy")


def test_they_are_choices_like_ours() -> None:
    assert "gated" in OPTIONS["model"].choices
    assert "ordinal" in OPTIONS["problem_type"].choices
    assert "closeness" in OPTIONS["metric"].choices
    with pytest.raises(RecipeError, match="did you mean 'gated'"):
        make_config({"data": "-", "model": "gatd"})
    with pytest.raises(RecipeError, match="did you mean 'ordinal'"):
        make_config({"data": "-", "problem_type": "ordinl"})


def test_trained_saved_loaded_and_asked(run: Path, table: Path) -> None:
    saved = load_run(run)
    assert saved.numbers["selected_by"] == "closeness"
    assert saved.task == TASKS["ordinal"](CLASSES)
    assert set(saved.decision) == {"cut", "temperature"}
    assert saved.numbers["baseline"]["answer"] == "green"  # the median of equally many of three
    always = saved.numbers["baseline"]["test"]
    assert set(always) == {"closeness", "accuracy", "log_loss", "expected_calibration_error"}
    assert (always["closeness"], always["accuracy"]) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert always["log_loss"] == pytest.approx(np.log(3))
    found = saved.predictions()
    assert found["test_logits"].shape == (12, 2)
    again = evaluate_run(saved, None, {})
    assert again["metrics"] == {name: saved.numbers["test"][name] for name in always}
    answers = predict_file(saved, str(table), {})
    decided = saved.decide(found["test_logits"])
    assert len(answers) == 72
    levels = {answer["id"]: answer["level"] for answer in answers}
    assert [levels[name] for name in load_samples(saved.config).splits["test"]["id"]] == decided.tolist()
    one = predict_one(saved, table.parent / "img" / "test0.png", None)
    assert set(one) == {"level", "label", "probabilities"}
    assert sum(one["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert set(decided) <= {0, 1, 2}
    report = run_markdown(saved)
    for words in ("# gated", "closeness", "always green", "problem_type=ordinal"):
        assert words in report


def test_a_cached_source_changes_nothing(table: Path, tmp_path: Path) -> None:
    still = {"augment": False, "keep_weights": False}
    first = train(table, tmp_path / "each", **still)
    for name in ("filled", "read"):
        other = train(table, tmp_path / name, source_cache=str(tmp_path / "cache"), **still)
        assert losses(other) == pytest.approx(losses(first), abs=1e-5)
    assert list((tmp_path / "cache").rglob("*.safetensors"))


def test_the_weights_come_back_with_those_of_the_source(run: Path) -> None:
    (model, _), (again, _) = load_run(run).model(), load_run(run).model()
    state = model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
    (first,), (second,) = (list(one.sources().values()) for one in (model, again))
    for name, value in first.encoder.model.state_dict().items():
        assert torch.equal(value, second.encoder.model.state_dict()[name])
    assert (run / "model" / "sources.safetensors").is_file()


@pytest.mark.parametrize("more", [{"model": "gated"}, {"problem_type": "ordinal"}])
def test_each_goes_with_ours(more: dict[str, str], table: Path, tmp_path: Path) -> None:
    saved = load_run(train(table, tmp_path / "run", **{"model": "me-vision", "problem_type": None, **more}))
    assert np.isfinite(saved.predictions()["test_logits"]).all()


def test_from_the_command_line(table: Path, tmp_path: Path) -> None:
    small = [f"--set={name}={value}" for name, value in SMALL.items()]
    arguments = ["train", "--data", str(table), "--model", "gated", "--problem-type", "ordinal", "--max-steps", "1"]
    result = CliRunner().invoke(app, [*arguments, *small, "--out", str(tmp_path / "run")], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "closeness" in result.output
    assert "always green" in result.output
    picture = str(table.parent / "img" / "test0.png")
    result = CliRunner().invoke(app, ["predict", str(tmp_path / "run"), "--image", picture])
    assert json.loads(result.output)["label"] in CLASSES


def test_a_run_of_a_distribution_that_is_gone_says_so(run: Path, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    with installed(tmp_path / "site", ""):
        assert "gated" not in SYSTEMS
        with pytest.raises(RecipeError, match="'ordinal' is not a choice"):
            load_run(run)
