"""`mi2p train` on two processes: one large batch, sharded weights, a run killed and resumed, one source cache."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from distributed_runs import CACHED, KILLED, LARGE_BATCH, SHARDED, WHOLE
from forked import Forked
from training_runs import command, interrupted_at, losses, settings, train

from mi2p_inject.recipes.config import make_config
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.saving.saved import load_run
from mi2p_inject.recipes.training import train as training
from mi2p_inject.recipes.training.checkpoints import last_checkpoint
from mi2p_inject.recipes.training.sharding import check_launch

LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def launched(*arguments: str) -> subprocess.CompletedProcess[str]:
    """By torchrun itself."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*LAUNCH, *arguments], capture_output=True, text=True, timeout=1500, env=environment, check=False
    )


def two_forks(*arguments: str) -> tuple[list[int], str]:
    """Two processes with the variables that torchrun sets; when one fails the other is killed. Statuses and output."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    paths = [str(Path(train.__code__.co_filename).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, **meet, "LOCAL_WORLD_SIZE": "2", "PYTHONPATH": os.pathsep.join(paths)}
    with ExitStack() as stack, ThreadPoolExecutor(2) as readers:
        ranks = [
            stack.enter_context(
                Forked(arguments, env={**environment, "RANK": rank, "LOCAL_RANK": rank}, stderr=subprocess.STDOUT)
            )
            for rank in "01"
        ]
        said = [readers.submit(rank.stdout.read) for rank in ranks]
        while any(rank.poll() is None for rank in ranks) and not any(rank.poll() for rank in ranks):
            time.sleep(0.05)
        for rank in ranks:
            rank.kill()
        return [rank.wait() for rank in ranks], "".join(one.result() for one in said)


@pytest.fixture(scope="module")
def runs(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One launch of all that `distributed_runs` does, and the whole training in one process."""
    out = tmp_path_factory.mktemp("distributed")
    statuses, said = two_forks(str(Path(__file__).with_name("distributed_runs.py")), str(table), str(out))
    assert statuses[0] == 9, said  # it went away
    assert last_checkpoint(out / "sharded" / "checkpoints"), said
    train(table, out / "one", **WHOLE)
    (out / "said.txt").write_text(said)
    return out


def test_two_processes_and_accumulation_are_one_large_batch(runs: Path, table: Path, tmp_path: Path) -> None:
    train(table, tmp_path / "one", batch_size=16, **LARGE_BATCH)
    train(table, tmp_path / "accumulated", gradient_accumulation_steps=2, **LARGE_BATCH)
    expected = losses(tmp_path / "one")
    assert len(expected) == 3
    assert losses(tmp_path / "accumulated") == pytest.approx(expected, abs=1e-4)
    assert losses(runs / "two") == pytest.approx(expected, abs=1e-4)
    assert (runs / "said.txt").read_text().count("note: 48 train") == 1  # only the first process prints
    logits = [load_run(run).predictions()["test_logits"] for run in (tmp_path / "one", runs / "two")]
    assert np.allclose(*logits, atol=1e-3)


def test_sharded_by_fsdp_the_losses_are_the_same(runs: Path) -> None:
    found = json.loads((runs / "steps.json").read_text())
    assert found["all_sharded"]
    assert found["sharded"] == pytest.approx(found["whole"], abs=1e-5)
    assert found["whole"][2] < found["whole"][0]


@pytest.mark.fault("kills", "one of several processes dies in a sharded training", "the same command goes on")
def test_a_sharded_run_is_resumed_and_gathered(runs: Path, table: Path) -> None:
    out = runs / "sharded"
    checkpoint = last_checkpoint(out / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.name == f"checkpoint-{KILLED // 4 * 4}"
    parts = sorted(checkpoint.glob("shard-*"))
    assert [path.name for path in parts] == ["shard-0-of-2.safetensors", "shard-1-of-2.safetensors"]
    sizes = [path.stat().st_size for path in parts]
    statuses, said = two_forks(*command(table, out, **SHARDED))
    assert statuses == [0, 0], said
    assert "goes on from step 4" in said
    whole, run = load_run(runs / "one"), load_run(out)
    assert losses(out) == pytest.approx(losses(whole.path), abs=1e-4)
    expected, found = (one.model()[0].state_dict() for one in (whole, run))
    weights = sum(value.nbytes for value in expected.values())
    assert max(sizes) < 1.6 * weights  # half of the weights and of the two moments of each
    # Adam turns the rounding of a gradient of zero into steps: biases of keys, which softmax does not see.
    assert all(torch.allclose(found[name], value, atol=2e-3) for name, value in expected.items())
    assert np.allclose(*(one.predictions()["test_logits"] for one in (whole, run)), atol=1e-3)
    assert not (out / "checkpoints").exists()


@pytest.mark.slow
def test_torchrun_sets_what_the_forks_are_given(runs: Path, table: Path, tmp_path: Path) -> None:
    """Its processes import everything anew: minutes on a busy machine."""
    result = launched(*command(table, tmp_path / "two", **LARGE_BATCH))
    assert result.returncode == 0, result.stderr
    assert losses(tmp_path / "two") == pytest.approx(losses(runs / "two"), abs=1e-4)


def test_processes_fill_one_source_cache(runs: Path, table: Path, tmp_path: Path) -> None:
    train(table, tmp_path / "one", **{**CACHED, "batch_size": 8})
    assert losses(runs / "cached") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
    assert list((runs / "sources").rglob("*.safetensors"))
    assert not list((runs / "sources").rglob("*.lock"))


@pytest.mark.parametrize(
    ("variable", "words"),
    [("ACCELERATE_USE_FSDP", "Accelerate's FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")],
)
@pytest.mark.fault("S5", "accelerate launch with --use_fsdp or --use_deepspeed", "RecipeError: --set sharding=fsdp")
def test_other_ways_to_shard_are_refused(
    variable: str, words: str, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "true")
    with pytest.raises(RecipeError, match=f"(?s){words}.*sharding=fsdp"):
        train(table, tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_one_process_does_not_shard(table: Path) -> None:
    config = make_config(settings(table, sharding="fsdp"))
    with pytest.raises(RecipeError, match=r"(?s)several processes.*torchrun"):
        check_launch(config.run)


@pytest.mark.fault("S5", "a killed run, given to another number of processes", "RecipeError: go on with as many")
def test_another_number_of_processes_does_not_go_on(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its batches would be other ones from there on, and its schedule."""
    out = tmp_path / "run"
    monkeypatch.setattr(training, "row_progress", interrupted_at(3))
    with pytest.raises(KeyboardInterrupt):
        train(table, out, save_steps=2, **CACHED)
    statuses, said = two_forks(*command(table, out, save_steps=2, **CACHED))
    assert any(statuses)
    assert re.search(r"(?s)another number of processes.*expected: 1.*given: 2.*go on with 1", said), said
    monkeypatch.undo()
    train(table, out, save_steps=2, **CACHED)
    assert len(losses(out)) == 3
