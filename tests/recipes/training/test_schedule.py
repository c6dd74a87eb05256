"""How long a training lasts: enough steps on a small set, and no early end before them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_runs import losses, train

from mi2p_inject.recipes.config import OptimisationConfig, make_config
from mi2p_inject.recipes.training.schedule import USUAL_EPOCHS, epochs_of, steps_between_evaluations


@given(
    samples=st.integers(1, 5000), batch=st.integers(1, 200), accumulated=st.integers(1, 4), least=st.integers(0, 900)
)
def test_as_many_epochs_as_the_steps_need(samples: int, batch: int, accumulated: int, least: int) -> None:
    config = OptimisationConfig(batch_size=batch, gradient_accumulation_steps=accumulated, min_steps=least)
    epochs, steps_of_an_epoch = USUAL_EPOCHS, 0
    left = samples
    while left > 0:  # literally: a step takes so many samples, the last one what is left
        left -= batch * accumulated
        steps_of_an_epoch += 1
    while epochs * steps_of_an_epoch < least:
        epochs += USUAL_EPOCHS
    assert epochs_of(config, samples) == epochs
    often = steps_between_evaluations(config, samples)
    assert (often or steps_of_an_epoch) * USUAL_EPOCHS == epochs * steps_of_an_epoch  # as many evaluations as usual
    assert (often is None) == (epochs == USUAL_EPOCHS)


def test_epochs_that_are_given_are_kept() -> None:
    assert epochs_of(OptimisationConfig(epochs=2), 3) == 2
    assert make_config({"data": "-"}, preset="paper").optimisation.epochs == 40


@pytest.mark.parametrize(("given_epochs", "steps"), [({}, 60), ({"epochs": 3}, 18)])
def test_a_small_set_trains_so_many_steps(
    given_epochs: dict[str, int], steps: int, table: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    chosen = {"model": "vision", "min_steps": 60, "patience": 0, "keep_weights": False, "epochs": None, **given_epochs}
    train(table, out, **chosen)  # six steps an epoch
    assert len(losses(out)) == steps


def test_a_stretched_training_is_evaluated_ten_times_and_to_its_end(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(table, out, model="vision", min_steps=110, patience=0, keep_weights=False, epochs=None)
    history = json.loads((out / "history.json").read_text())
    assert [entry["step"] for entry in history if "eval_accuracy" in entry] == list(range(12, 121, 12))
    assert len(losses(out)) == 120


def test_patience_waits_for_them(table: Path, tmp_path: Path) -> None:
    """Nothing is learned at such rates: the first epoch stays the best one, and one epoch of patience would end it."""
    still = {"learning_rate": 1e-20, "new_learning_rate": 1e-20, "weight_decay": 0.0, "patience": 1}
    usual = {"model": "vision", "keep_weights": False, **still}
    train(table, tmp_path / "waits", min_steps=24, **{**usual, "epochs": None})
    train(table, tmp_path / "ends", min_steps=24, epochs=9, **usual)
    assert (len(losses(tmp_path / "waits")), len(losses(tmp_path / "ends"))) == (24, 12)


def test_a_single_step_has_a_rate(table: Path, tmp_path: Path) -> None:
    """It was one of warm-up, at a rate of 0: nothing was learned, without a word."""
    train(table, tmp_path / "run", model="text", max_steps=1, learning_rate=2e-3, new_learning_rate=2e-3)
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert [entry["learning_rate"] for entry in history if "learning_rate" in entry] == [2e-3]
