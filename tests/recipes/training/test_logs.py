"""--log: TensorBoard, wandb and MLflow through the Trainer's integrations; a resumed run goes on with its log."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from training_runs import interrupted_at, train

from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.training import train as training

SMALL = {"model": "vision", "keep_weights": False, "epochs": 2, "reading_check": False}


def interrupted(table: Path, out: Path, log: str) -> None:
    """A training that is stopped in its second epoch, and then goes on to its end."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(training, "row_progress", interrupted_at(8))
        with pytest.raises(KeyboardInterrupt):
            train(table, out, log=log, **SMALL)
    train(table, out, log=log, **SMALL)


@pytest.mark.parametrize("log", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_package_is_said_before_the_data_are_read(log: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(log):
        pytest.skip(f"{log} is installed")
    with pytest.raises(RecipeError, match=rf"log={log} needs a package[\s\S]*pip install"):
        train(tmp_path / "no.csv", tmp_path / "run", log=log)
    assert not (tmp_path / "run").exists()


def test_tensorboard_has_every_step_of_a_resumed_run(table: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    interrupted(table, tmp_path / "run", "tensorboard")
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "logs" / "tensorboard")).Reload()
    losses = {event.step: event.value for event in events.Scalars("train/loss")}
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert losses == pytest.approx({entry["step"]: entry["loss"] for entry in history if "loss" in entry})
    assert [event.step for event in events.Scalars("eval/accuracy")] == [6, 12]


def test_wandb_offline(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    interrupted(table, tmp_path / "run", "wandb")
    assert wandb.run is None
    folders = list((tmp_path / "run" / "logs" / "wandb").glob("offline-run-*"))
    assert len(folders) == 2
    assert (
        len({folder.name.rpartition("-")[2] for folder in folders}) == 1
    )  # one run of wandb, to be joined by its sync


def test_mlflow(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    store = (tmp_path / "store").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    interrupted(table, tmp_path / "run", "mlflow")
    assert mlflow.active_run() is None
    client = mlflow.MlflowClient(store)
    (run,) = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert run.info.status == "FINISHED"
    assert run.data.tags["mi2p.model"] == "vision"
    steps = {metric.step for metric in client.get_metric_history(run.info.run_id, "loss")}
    assert steps == set(range(1, 13))
