"""Several processes and killed ones: a checkpoint is always whole, and nothing is left beside it."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import complains, expanded, net
from kills import FORK, KILLS, killed_after, killed_in

import mi2p_inject.checkpoint.write as writing
from mi2p_inject import ExpandedModel, load
from mi2p_inject.checkpoint.card import CARD_NAME
from mi2p_inject.checkpoint.schema import CONFIG_NAME, WEIGHTS_NAME
from mi2p_inject.core.errors import CheckpointError, InjectionWarning
from mi2p_inject.core.files.lock import WriterLock


def filled_with(me: ExpandedModel, number: int) -> ExpandedModel:
    with torch.no_grad():
        for tensor in me.state_dict().values():
            tensor.fill_(number)
    return me


def holds(folder: Path) -> set[float]:
    """The numbers that the checkpoint's tensors are filled with: one, where all are of one save."""
    return {float(one) for tensor in load(folder, backbone=net()).state_dict().values() for one in tensor.view(-1)}


def only_a_checkpoint(folder: Path) -> bool:
    names = sorted(path.name for path in folder.iterdir() if path.name != CARD_NAME)
    return len(names) == 2 and CONFIG_NAME in names and any(map(WEIGHTS_NAME.fullmatch, names))


@pytest.mark.parametrize("umask", [0o022, 0o077])
@pytest.mark.fault("files", "a checkpoint that only its owner can read, whatever the umask", "the umask's mode")
def test_modes(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        expanded().save_pretrained(tmp_path / "a")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "a").iterdir()} == {0o666 & ~umask}


@pytest.mark.fuzz
@pytest.mark.fault(
    "kills", "SIGKILL at any moment of save_pretrained", "the checkpoint before or the new one; no leftovers"
)
def test_killed_at_any_moment(tmp_path: Path) -> None:
    me = expanded()
    filled_with(me, -1).save_pretrained(tmp_path)

    def saves() -> None:
        for number in itertools.count():
            filled_with(me, number).save_pretrained(tmp_path)

    for _ in range(KILLS):
        assert killed_after(saves, 0.3)
        assert len(holds(tmp_path)) == 1
    filled_with(me, 7).save_pretrained(tmp_path)
    assert holds(tmp_path) == {7}
    assert only_a_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "step", ["the first weights", "between weights and JSON", "before the old weights are removed"]
)
def test_killed_between_the_steps(tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    me = expanded()
    filled_with(me, 1).save_pretrained(tmp_path)
    real_write, real_remove = writing.write_file, writing._remove

    def save(here: Callable[[], None]) -> None:
        def write(path: Path, write: Any) -> None:
            if step == "the first weights" or (step == "between weights and JSON" and path.name == CONFIG_NAME):
                real_write(path, lambda temporary: (write(temporary), here()))
            real_write(path, write)

        monkeypatch.setattr(writing, "write_file", write)
        if step == "before the old weights are removed":
            monkeypatch.setattr(writing, "_remove", lambda *_: here())
        filled_with(me, 2).save_pretrained(tmp_path)

    killed_in(save)
    assert writing._remove is real_remove
    assert holds(tmp_path) == {2 if step.startswith("before") else 1}
    assert not only_a_checkpoint(tmp_path)
    filled_with(me, 3).save_pretrained(tmp_path)
    assert holds(tmp_path) == {3}
    assert only_a_checkpoint(tmp_path)


@pytest.mark.fault("S5", "two processes save into one folder", "one after the other: the checkpoint is always whole")
def test_several_savers(tmp_path: Path) -> None:
    me = expanded()

    def saves(number: int) -> None:
        for _ in range(8):
            filled_with(me, number).save_pretrained(tmp_path)

    filled_with(me, 0).save_pretrained(tmp_path)
    workers = [FORK.Process(target=saves, args=(number,)) for number in (1, 2, 3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(holds(tmp_path)) == 1
    assert only_a_checkpoint(tmp_path)


@pytest.mark.fault("S5", "another process is saving into the folder", "it waits, and says for whom")
def test_the_second_saver_names_who_is_saving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "LOCK_SECONDS", 0.2)
    ready = FORK.Event()

    def hold() -> None:
        with WriterLock(tmp_path / writing.LOCK_NAME):
            ready.set()
            time.sleep(60)

    holder = FORK.Process(target=hold)
    holder.start()
    assert ready.wait(30)
    with pytest.warns(InjectionWarning, match=f"process {holder.pid} on"), complains(CheckpointError, f"{holder.pid}"):
        expanded().save_pretrained(tmp_path)
    holder.kill()
    holder.join(30)
    expanded().save_pretrained(tmp_path)
    assert only_a_checkpoint(tmp_path)
