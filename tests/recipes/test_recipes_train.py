"""`train_run`: a run folder that is whole and comes back as it was; kills, two processes, mistakes and full disks."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recipes_data import CLASSES, write_table
from rich.console import Console

from mi2p_inject.recipes.config import make_config
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.evaluation.evaluate import evaluate_run, predict_file, predict_one
from mi2p_inject.recipes.evaluation.metrics import decide
from mi2p_inject.recipes.evaluation.run_report import run_markdown
from mi2p_inject.recipes.training.inputs import ImageTextDataset
from mi2p_inject.recipes.training.saved import load_run
from mi2p_inject.recipes.training.train import load_samples, train_run
from mi2p_inject.recipes.training.trainer import last_checkpoint

SMALL = {
    "vision": "tiny:vit",
    "text": "tiny:xlnet",
    "image_size": 32,
    "batch_size": 8,
    "learning_rate": 3e-3,
    "new_learning_rate": 3e-3,
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of both expanded models under cross-attention, with dropout and augmentation."""
    out = tmp_path_factory.mktemp("runs") / "me-fusion"
    train(table, out)
    return out


def settings(table: Path, **more: Any) -> dict[str, Any]:
    return {"data": str(table), "model": "me-fusion", "fusion": "cross-attention", "epochs": 2, **SMALL, **more}


def train(table: Path, out: Path, overwrite: bool = False, **more: Any) -> dict[str, Any]:
    return train_run(make_config(settings(table, **more)), out, Console(quiet=True), overwrite=overwrite)


def losses(out: Path) -> list[float]:
    return [entry["loss"] for entry in json.loads((out / "history.json").read_text()) if "loss" in entry]


def command(table: Path, out: Path, **more: Any) -> list[str]:
    sets = [f"--set={name}={value}" for name, value in settings(table, **more).items()]
    return ["-m", "mi2p_inject.recipes", "train", "--out", str(out), *sets]


def test_the_folder_holds_no_pickles_and_nothing_half_written(trained: Path) -> None:
    files = {str(path.relative_to(trained)) for path in trained.rglob("*") if path.is_file()}
    assert {"run.json", "metrics.json", "history.json", "predictions.safetensors"} < files
    assert {Path(name).suffix for name in files} <= {".json", ".safetensors", ".txt", ".jinja"}
    assert not [name for name in files if "unfinished" in name or "checkpoint-" in name]


def test_numbers_are_those_of_the_predictions(trained: Path, table: Path) -> None:
    run = load_run(trained)
    assert run.classes == CLASSES
    found = run.predictions()
    labels = load_samples(run.config).targets("test")
    assert np.array_equal(found["test_labels"], labels)
    accuracy = float((decide(found["test_logits"]) == labels).mean())
    assert run.numbers["test"]["accuracy"]["value"] == pytest.approx(accuracy)
    assert run.numbers["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert run.numbers["parts"] == {"train": 48, "validation": 12, "test": 12}


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


def test_a_finished_run_is_not_overwritten(trained: Path, table: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    with pytest.raises(RecipeError, match="--overwrite"):
        train(table, trained)
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


def test_a_killed_run_goes_on_as_if_nothing_had_been(trained: Path, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    with subprocess.Popen(
        [sys.executable, *command(table, out, save_steps=4, keep_weights=False)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        wait_for(lambda: (out / "checkpoints" / "checkpoint-4" / "trainer_state.json").is_file(), process)
        process.send_signal(signal.SIGKILL)
    assert not (out / "metrics.json").exists()
    half = out / "checkpoints" / "checkpoint-999"  # what a kill in the middle of a checkpoint leaves
    half.mkdir()
    (half / "trainer_state.json").write_text('{"log_hist')
    done = last_checkpoint(out / "checkpoints")
    assert done is not None
    assert not half.exists()
    with pytest.raises(RecipeError, match="learning_rate differ"):
        train(table, out, save_steps=4, keep_weights=False, learning_rate=1e-3)
    train(table, out, save_steps=4, keep_weights=False)
    # Bit-equal where memory is aligned alike; else the last digit of a product may differ.
    assert losses(out) == pytest.approx(losses(trained), rel=1e-5)
    first, second = (load_run(folder).predictions() for folder in (trained, out))
    assert all(np.allclose(first[name], second[name], rtol=1e-4, atol=1e-5) for name in first)
    with pytest.raises(RecipeError, match="kept no weights"):
        load_run(out).model()


@pytest.mark.parametrize("when", ["while its patience runs out", "before the model is written"])
def test_an_interrupted_run_stops_as_early(
    when: str, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing changes at such rates: the first of six steps an epoch is the best one, three epochs of patience follow.
    still = {
        "model": "vision",
        "learning_rate": 1e-20,
        "new_learning_rate": 1e-20,
        "epochs": 30,
        "patience": 3,
        "weight_decay": 0.0,
    }
    train(table, tmp_path / "whole", **still)
    assert len(losses(tmp_path / "whole")) == 24

    seen: list[int] = []

    @contextmanager
    def interrupting(console: Console, title: str) -> Iterator[Callable[[int, int], None]]:
        def on_step(done: int, steps: int) -> None:
            seen.append(done)
            if len(seen) == 15 and when.startswith("while"):
                raise KeyboardInterrupt

        yield on_step

    def unwritten(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("mi2p_inject.recipes.training.train.row_progress", interrupting)
        if when.startswith("before"):
            patched.setattr("mi2p_inject.recipes.training.train._write", unwritten)
        with pytest.raises(KeyboardInterrupt):
            train(table, tmp_path / "again", **still)
    last = seen[-1]
    with monkeypatch.context() as patched:
        patched.setattr("mi2p_inject.recipes.training.train.row_progress", interrupting)
        seen.clear()
        train(table, tmp_path / "again", **still)
    assert seen == list(range(13 if last == 15 else 25, 25))  # from the last epoch's checkpoint on
    assert losses(tmp_path / "again") == losses(tmp_path / "whole")
    first, second = (load_run(tmp_path / name) for name in ("whole", "again"))
    assert first.numbers["best_step"] == second.numbers["best_step"] == 6
    assert np.array_equal(first.predictions()["test_logits"], second.predictions()["test_logits"])


def test_two_processes_and_accumulation_are_one_large_batch(table: Path, tmp_path: Path) -> None:
    still = {"dropout": 0.0, "epochs": 1, "keep_weights": False}
    train(table, tmp_path / "one", batch_size=16, **still)
    train(table, tmp_path / "accumulated", gradient_accumulation_steps=2, **still)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = subprocess.run(
        [sys.executable, *launch, *command(table, tmp_path / "two", **still)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    expected = losses(tmp_path / "one")
    assert len(expected) == 3
    assert losses(tmp_path / "accumulated") == pytest.approx(expected, abs=1e-4)
    assert losses(tmp_path / "two") == pytest.approx(expected, abs=1e-4)
    assert result.stdout.count("note: 48 train") == 1  # only the first process speaks
    logits = [load_run(tmp_path / name).predictions()["test_logits"] for name in ("one", "two")]
    assert np.allclose(*logits, atol=1e-3)


def test_tensorboard(table: Path, tmp_path: Path) -> None:
    more = {"model": "vision", "max_steps": 1, "tensorboard": True}
    if importlib.util.find_spec("tensorboard") or importlib.util.find_spec("tensorboardX"):
        train(table, tmp_path / "run", **more)
        assert list((tmp_path / "run" / "tensorboard").rglob("events*"))
    else:
        with pytest.raises(RecipeError, match="mi2p-inject\\[logs\\]"):
            train(table, tmp_path / "run", **more)


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
    assert len(numbers["thresholds"]) == 3
    run = load_run(tmp_path / "run")
    answer = predict_one(run, None, "crimson thing")
    assert set(answer["labels"]) <= set(CLASSES)
    assert answer["labels"] == [
        name for name, at in zip(CLASSES, run.thresholds, strict=True) if answer["probabilities"][name] >= at
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


def test_a_full_disk_leaves_nothing_half_written(table: Path, tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "from mi2p_inject.recipes.cli.main import main\n"
        "sys.argv[0] = 'mi2p'; main()\n"
    )
    out = tmp_path / "run"
    arguments = command(table, out, model="vision", epochs=1)[2:]
    train_samples = load_samples(make_config(settings(table)))  # rows are stored already: only the run writes
    assert len(train_samples.splits["train"]) == 48
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 1, result.stderr
    assert "cannot write a checkpoint" in result.stderr
    assert "Traceback" not in result.stderr
    assert last_checkpoint(out / "checkpoints") is None
    train(table, out, model="vision", epochs=1)
    assert load_run(out).numbers["best_step"] > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda run: (run / "run.json").unlink(), "no run folder"),
        (lambda run: edit(run / "run.json", format=1), "another version"),
        (lambda run: edit(run / "run.json", recipe="openmoji"), "run of 'openmoji'"),
        (lambda run: (run / "metrics.json").unlink(), "not finished"),
        (lambda run: (run / "metrics.json").write_text("{"), "damaged"),
        (lambda run: edit(run / "metrics.json", thresholds="none"), "damaged"),
        (lambda run: (run / "model" / "classifier.safetensors").write_bytes(b"x" * 100), "cannot be read"),
        (lambda run: (run / "model" / "sources.safetensors").unlink(), "cannot be read"),
    ],
)
def test_a_damaged_run_is_named(trained: Path, tmp_path: Path, change: Callable[[Path], object], words: str) -> None:
    import shutil

    shutil.copytree(trained, tmp_path / "run")
    change(tmp_path / "run")
    with pytest.raises(RecipeError, match=words):
        load_run(tmp_path / "run").model()


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
    ImageTextDataset(rows, spec, augment=True)[0]
    assert torch.equal(state, torch.random.get_rng_state())  # nothing of it reaches the training's random numbers


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_sharded_by_fsdp_the_losses_are_the_same(tmp_path: Path) -> None:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = str(Path(__file__).parents[1] / "fsdp_steps.py")
    result = subprocess.run(
        [sys.executable, *launch, script, str(tmp_path / "losses.json")],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "losses.json").read_text())
    assert found["all_sharded"]
    assert found["sharded"] == pytest.approx(found["whole"], abs=1e-5)
    assert found["whole"][2] < found["whole"][0]


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, process.stdout.read() if process.stdout else "ended"
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.01)
