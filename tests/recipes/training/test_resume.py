"""A run that was killed, interrupted or ran out of disk goes on as if nothing had been."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import Forked, run_forked
from rich.console import Console
from training_runs import command, interrupted_at, losses, settings, train, wait_for

from mi2p_inject.core.files.atomic_write import PREFIX
from mi2p_inject.recipes.config import make_config
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.saving.saved import load_run
from mi2p_inject.recipes.training.checkpoints import last_checkpoint
from mi2p_inject.recipes.training.hf_trainer import OurTrainer
from mi2p_inject.recipes.training.train import load_samples, train_run


def test_a_finished_run_is_not_overwritten(trained: Path, table: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    with pytest.raises(RecipeError, match="--overwrite"):
        train(table, trained)
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


@pytest.mark.parametrize("of_table", [True, False])
def test_what_a_finished_run_was_killed_over_is_swept(
    of_table: bool, trained: Path, table: Path, tmp_path: Path
) -> None:
    """Between its last file and the end of its clean-up; a cache that a training was given is its user's."""
    out = tmp_path / "run"
    shutil.copytree(trained, out)
    if of_table:
        (out / "experiments").mkdir()
    left = [
        "checkpoints/checkpoint-4",
        "sources/text/checkpoints/checkpoint-2",
        "sources/text-without-fold-0",
        "source-cache",
    ]
    for name in left:
        (out / name).mkdir(parents=True)
        (out / name / "optimizer.pt").write_text("large")
    locks = [out / "sources/text/.lock", *([out / "experiments/text/seed-0/.lock"] if of_table else [])]
    for lock in locks:  # of a source, or of a line of a table, that was finished and not closed yet
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.write_text("{}")
    (out / f"{PREFIX}0123456789ab").mkdir()  # of the writing of its last file
    with pytest.raises(RecipeError, match="--overwrite"):
        train(table, out)
    kept = [] if of_table else [out / "source-cache" / "optimizer.pt"]
    assert list(out.rglob("optimizer.pt")) == kept
    assert not [*out.rglob(".lock"), *out.rglob(f"{PREFIX}*")]
    assert load_run(out).predictions().keys() == load_run(trained).predictions().keys()


@pytest.mark.fault(
    "kills",
    "SIGKILL while the checkpoint at an epoch's end is written, or before its evaluation",
    "there is one such checkpoint, after the evaluation",
)
@pytest.mark.parametrize("more", [{"epochs": 2}, {"epochs": 3, "max_steps": 9}], ids=str)
def test_no_checkpoint_is_written_twice_or_before_an_evaluation(
    more: dict[str, Any], table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[tuple[int, int]] = []
    save = OurTrainer._save_checkpoint

    def noting(self: OurTrainer, *given: Any, **named: Any) -> None:
        evaluated = [entry["step"] for entry in self.state.log_history if "eval_loss" in entry]
        saved.append((self.state.global_step, max(evaluated, default=0)))
        save(self, *given, **named)

    monkeypatch.setattr(OurTrainer, "_save_checkpoint", noting)
    train(table, tmp_path / "run", model="text", save_steps=1, keep_weights=False, **more)
    steps = [step for step, _ in saved]
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    evaluations = [entry["step"] for entry in history if "eval_loss" in entry]
    assert steps == list(range(1, max(steps) + 1))
    assert len(evaluations) > 1
    assert all(last == step for step, last in saved if step in evaluations)


@pytest.mark.fault(
    "kills",
    "SIGKILL at any moment of training",
    "the same command ends with the numbers of an undisturbed run; no leftovers",
)
def test_a_killed_run_goes_on_as_if_nothing_had_been(trained: Path, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    argv = command(table, out, save_steps=4, keep_weights=False)
    with Forked(argv, stderr=subprocess.STDOUT) as process:
        state = out / "checkpoints" / "checkpoint-8" / "trainer_state.json"
        wait_for(lambda: state.is_file() and state.read_text().rstrip().endswith("\n}"), process)  # written to its end
        process.send_signal(signal.SIGKILL)
    assert not (out / "metrics.json").exists()
    assert sum("loss" in entry for entry in json.loads((out / "history.json").read_text())) >= 6  # of the first epoch
    half = out / "checkpoints" / "checkpoint-999"  # what a kill in the middle of a checkpoint leaves
    half.mkdir()
    (half / "trainer_state.json").write_text('{"log_hist')
    done = last_checkpoint(out / "checkpoints")
    assert done is not None
    assert not half.exists()
    with pytest.raises(RecipeError, match="learning_rate differ"):
        train(table, out, save_steps=4, keep_weights=False, learning_rate=1e-3)
    text = io.StringIO()
    train_run(make_config(settings(table, save_steps=4, keep_weights=False)), out, Console(file=text, width=200))
    assert "goes on from step 8\n" in text.getvalue()
    steps = [
        [entry["step"] for entry in json.loads((folder / "history.json").read_text()) if "loss" in entry]
        for folder in (out, trained)
    ]
    assert steps[0] == steps[1]
    # Bit-equal where memory is aligned alike; else the last digit of a product may differ.
    assert losses(out) == pytest.approx(losses(trained), rel=1e-5)
    first, second = (load_run(folder).predictions() for folder in (trained, out))
    assert all(np.allclose(first[name], second[name], rtol=1e-4, atol=1e-5) for name in first)
    with pytest.raises(RecipeError, match="kept no weights"):
        load_run(out).model()


def test_a_run_goes_on_whose_data_have_moved(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"model": "text", "epochs": 1, "keep_weights": False}
    with monkeypatch.context() as patched:
        patched.setattr("mi2p_inject.recipes.training.train.row_progress", interrupted_at(4))
        with pytest.raises(KeyboardInterrupt):
            train(table, tmp_path / "run", **few)
    shutil.copytree(table.parent, tmp_path / "moved", ignore=shutil.ignore_patterns("run*", "cache*"))
    moved = tmp_path / "moved" / table.name
    train(moved, tmp_path / "run", **few)
    assert load_run(tmp_path / "run").config.data.data == str(moved)
    moved.write_text(moved.read_text().replace("thing number 3 of train", "another text"))
    with monkeypatch.context() as patched:
        patched.setattr("mi2p_inject.recipes.training.train.row_progress", interrupted_at(4))
        with pytest.raises(KeyboardInterrupt):
            train(table, tmp_path / "other", **few)
    with pytest.raises(RecipeError, match=r"\(what the data hold differ\)"):
        train(moved, tmp_path / "other", **few)


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
    stopped: list[int] = []

    @contextmanager
    def interrupting(console: Console, title: str) -> Iterator[Callable[[int, int], None]]:
        def on_step(done: int, steps: int, note: str = "") -> None:
            seen.append(done)
            if done == 15 and when.startswith("while") and not stopped:
                stopped.append(done)
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
    assert sorted(set(seen)) == list(range(13 if last == 15 else 25, 25))  # from the last epoch's checkpoint on
    assert losses(tmp_path / "again") == losses(tmp_path / "whole")
    first, second = (load_run(tmp_path / name) for name in ("whole", "again"))
    assert first.numbers["best_step"] == second.numbers["best_step"] == 6
    assert np.array_equal(first.predictions()["test_logits"], second.predictions()["test_logits"])


@pytest.mark.parametrize("steps", [2, 8])
def test_a_run_that_was_interrupted_after_its_last_step_takes_no_more(
    steps: int, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwritten(*_: Any) -> None:
        raise KeyboardInterrupt

    short = {"model": "text", "epochs": None, "max_steps": steps, "min_steps": 24, "keep_weights": False}
    with monkeypatch.context() as patched:
        patched.setattr("mi2p_inject.recipes.training.train._write", unwritten)
        with pytest.raises(KeyboardInterrupt):
            train(table, tmp_path / "run", **short)
    train(table, tmp_path / "run", **short)
    assert len(losses(tmp_path / "run")) == steps


@pytest.mark.fault("kills", "a full disk", "an error; nothing half-written")
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
    result = run_forked(["-c", code, *arguments], timeout=120)
    assert result.returncode == 1, result.stderr
    assert "cannot write a checkpoint" in result.stderr
    assert "Traceback" not in result.stderr
    assert last_checkpoint(out / "checkpoints") is None
    train(table, out, model="vision", epochs=1)
    assert load_run(out).numbers["best_step"] > 0


def test_a_persons_copy_of_a_checkpoint_is_none(tmp_path: Path) -> None:
    for name in ("checkpoint-8", "checkpoint-12", "checkpoint-8 copy", "checkpoint-best", "checkpoint-²"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trainer_state.json").write_text("{}")
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-12"
    assert len(list(tmp_path.iterdir())) == 5
