"""`train_run`: what is trained is what was asked for."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from recipes_data import CLASSES, write_table
from training_runs import losses, settings, train

from mi2p_inject.recipes.config import make_config
from mi2p_inject.recipes.evaluation.evaluate import predict_one
from mi2p_inject.recipes.saving.saved import load_run
from mi2p_inject.recipes.systems.inputs import ImageTextDataset
from mi2p_inject.recipes.training.train import load_samples


def test_numbers_are_those_of_the_predictions(trained: Path, table: Path) -> None:
    run = load_run(trained)
    assert run.task.classes == CLASSES
    found = run.predictions()
    samples = load_samples(run.config)
    labels = np.array(samples.splits["test"]["label"][:])
    assert np.array_equal(found["test_labels"], labels)
    accuracy = float((run.decide(found["test_logits"]) == labels).mean())
    assert run.numbers["test"]["accuracy"]["value"] == pytest.approx(accuracy)
    assert run.numbers["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert run.numbers["splits"] == {"train": 48, "validation": 12, "test": 12}


@pytest.mark.parametrize("model", ["me-text", "me-fusion"])
def test_cached_sources_change_nothing(model: str, table: Path, tmp_path: Path) -> None:
    (table.parent / "img" / "train3.png").rename(table.parent / "img" / "kept")
    try:
        (table.parent / "img" / "train3.png").write_bytes(b"no picture")
        still = {"model": model, "augment": False, "epochs": 1, "keep_weights": False}
        train(table, tmp_path / "each", **still)
        for name in ("filled", "read"):
            train(table, tmp_path / name, source_cache=str(tmp_path / "cache"), **still)
            assert losses(tmp_path / name) == pytest.approx(losses(tmp_path / "each"), abs=1e-5)
    finally:
        (table.parent / "img" / "kept").replace(table.parent / "img" / "train3.png")
    assert list((tmp_path / "cache").rglob("*.safetensors"))


def test_several_labels(tmp_path: Path) -> None:
    table = write_table(tmp_path, several=True)
    numbers = train(table, tmp_path / "run", model="me-text", class_weights=True, loss="focal", epochs=1)
    assert {"micro_f1", "macro_f1", "samples_f1"} < set(numbers["test"])
    assert len(numbers["decision"]["thresholds"]) == 3
    run = load_run(tmp_path / "run")
    answer = predict_one(run, None, "crimson thing")
    assert set(answer["labels"]) <= set(CLASSES)
    assert answer["labels"] == [
        name
        for name, at in zip(CLASSES, run.decision["thresholds"], strict=True)
        if answer["probabilities"][name] >= at
    ]


def test_bf16_and_a_frozen_backbone(table: Path, tmp_path: Path) -> None:
    numbers = train(
        table, tmp_path / "run", model="me-vision", precision="bf16", trainable="units", max_steps=2, epochs=9
    )
    assert np.isfinite(losses(tmp_path / "run")).all()
    assert len(losses(tmp_path / "run")) == 2
    assert numbers["best_step"] == 2


def test_early_stopping_keeps_the_best_weights(table: Path, tmp_path: Path) -> None:
    numbers = train(
        table, tmp_path / "run", model="vision", epochs=30, patience=1, metric="macro_f1", augment=False, seed=3
    )
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    scores = {entry["step"]: entry["eval_macro_f1"] for entry in history if "eval_macro_f1" in entry}
    assert len(scores) < 30
    assert scores[numbers["best_step"]] == max(scores.values())
    assert numbers["validation"]["macro_f1"]["value"] == pytest.approx(max(scores.values()))


def test_augmentation_depends_on_seed_epoch_and_row_alone(table: Path) -> None:
    from mi2p_inject.recipes.encoders.preprocess import ImageSpec

    rows = load_samples(make_config(settings(table))).splits["train"]
    spec = ImageSpec((16, 16), (0.5,) * 3, (0.5,) * 3)

    def pixels(seed: int, epoch: int, row: int) -> torch.Tensor:
        data = ImageTextDataset(rows, spec, augment=True, seed=seed)
        data.epoch = epoch
        torch.manual_seed(int(time.monotonic_ns() % 1000))
        found: torch.Tensor = data[row]["pixels"]
        return found

    state = torch.random.get_rng_state()
    assert torch.equal(pixels(0, 1, 2), pixels(0, 1, 2))
    assert not torch.equal(pixels(0, 1, 2), pixels(0, 2, 2))
    assert not torch.equal(pixels(0, 1, 2), pixels(1, 1, 2))
    torch.random.set_rng_state(state)
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    waiting = torch.cuda._lazy_seed_tracker.get_calls()  # the seeds of a device that is not used yet
    ImageTextDataset(rows, spec, augment=True)[0]
    assert torch.equal(state, torch.random.get_rng_state())  # nothing of it reaches the training's random numbers
    assert all(map(torch.equal, devices, torch.cuda.get_rng_state_all() if devices else []))
    assert torch.cuda._lazy_seed_tracker.get_calls() == waiting
