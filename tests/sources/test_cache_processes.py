"""Several processes, killed ones, and the workers of a loader."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from cached_sources import IDS, filled, model, words_for
from helpers import complains
from kills import FORK, KILLS, killed_after
from torch import Tensor

import mi2p_inject.sources.fill_cache as source_fill
from mi2p_inject.core.errors import SourceError
from mi2p_inject.sources.cache import SourceCache
from mi2p_inject.sources.fill_cache import fill


def _fill_slowly(folder: Path, seconds: float) -> None:
    torch.set_num_threads(1)
    source_fill.SAMPLES_PER_FILE = 2

    def read(samples: list[str]) -> dict[str, Tensor]:
        time.sleep(seconds)
        return words_for(samples)

    fill(folder, model("bert").frozen_source, IDS, read, preprocessing="slow", batch_size=2, say=lambda line: None)


def test_processes_share_the_work_and_a_killed_one_leaves_whole_files(tmp_path: Path) -> None:
    workers = [FORK.Process(target=_fill_slowly, args=(tmp_path, 0.2)) for _ in range(2)]
    for worker in workers:
        worker.start()
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(workers[0].pid or 0, signal.SIGKILL)
    workers[1].join(60)
    assert workers[1].exitcode == 0
    (folder,) = tmp_path.iterdir()
    cache = SourceCache(folder)
    assert sorted(name for name in IDS if name in cache) == sorted(IDS)
    lengths = words_for(IDS)["attention_mask"].sum(1)
    assert cache[IDS].mask is not None
    assert torch.equal(cache[IDS].mask.sum(1), lengths)  # type: ignore[union-attr]


@pytest.mark.usefixtures("small_files")
def test_processes_with_other_orders_of_the_samples_write_the_same_files(tmp_path: Path) -> None:
    caches = [filled(tmp_path / str(number), "bert", samples) for number, samples in enumerate((IDS, IDS[::-1]))]
    names = [sorted(file.name for file in cache.folder.glob("*.safetensors")) for cache in caches]
    assert len(names[0]) == 4
    assert names[0] == names[1]


def test_a_folder_that_takes_no_lock_is_said_to_be_unwritable(tmp_path: Path) -> None:
    cache = filled(tmp_path, "bert", IDS[:1])
    for file in cache.folder.glob("*.safetensors"):
        (cache.folder / f"{file.stem}.lock").mkdir()
        file.unlink()
    with complains(SourceError, "cannot write the source cache", str(cache.folder)):
        filled(tmp_path, "bert", IDS[:1])


def test_locks_of_other_lists_stay(tmp_path: Path) -> None:
    cache = filled(tmp_path, "resnet", IDS[:3])
    (cache.folder / "other.lock").touch()
    filled(tmp_path, "resnet", IDS[:5])
    assert [file.name for file in cache.folder.glob("*.lock")] == ["other.lock"]


def test_a_cache_travels_to_workers(tmp_path: Path) -> None:
    cache = filled(tmp_path, "resnet")
    loader = torch.utils.data.DataLoader(  # type: ignore[var-annotated]
        IDS, batch_size=4, num_workers=1, collate_fn=lambda ids: cache[ids].data, multiprocessing_context="fork"
    )
    assert torch.equal(torch.cat(list(loader)), cache[IDS].data)
    assert torch.equal(pickle.loads(pickle.dumps(cache))[IDS].data, cache[IDS].data)


def test_others_may_read_what_the_folder_lets_them_read(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    (file,) = filled(tmp_path / "cache", "bert").folder.glob("*.safetensors")
    assert file.stat().st_mode == (tmp_path / "plain").stat().st_mode


def slow_words(samples: list[str]) -> dict[str, Tensor]:
    time.sleep(0.01)
    return words_for(samples)


@pytest.mark.fuzz
@pytest.mark.fault(
    "kills", "SIGKILL at any moment of filling a source cache", "filling again ends with the same values"
)
def test_killed_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_fill, "SAMPLES_PER_FILE", 2)
    source = model("bert").frozen_source

    def fill_in(folder: Path) -> SourceCache:
        return fill(folder, source, IDS, slow_words, preprocessing="", batch_size=2, say=lambda line: None)

    undisturbed = fill_in(tmp_path / "undisturbed")
    for number in range(KILLS):
        killed_after(lambda: fill_in(tmp_path / str(number)), 0.4)  # noqa: B023  # called before the next turn
        cache = fill_in(tmp_path / str(number))
        names = [sorted(path.name for path in one.folder.iterdir()) for one in (undisturbed, cache)]
        assert names[0] == names[1]
        assert torch.equal(cache[IDS].data, undisturbed[IDS].data)


@pytest.mark.fault("S5", "two processes fill one source cache", "they share the work; who waits names the other")
def test_who_waits_names_the_other(tmp_path: Path) -> None:
    begun = FORK.Event()

    def first() -> None:
        def read(samples: list[str]) -> dict[str, Tensor]:
            begun.set()
            time.sleep(0.5)
            return words_for(samples)

        filled(tmp_path, "bert", read=read)

    worker = FORK.Process(target=first)
    worker.start()
    assert begun.wait(30)
    (place,) = tmp_path.iterdir()
    deadline = time.monotonic() + 30
    while not list(place.glob("*.lock")) and time.monotonic() < deadline:
        time.sleep(0.01)
    said: list[str] = []
    cache = filled(tmp_path, "bert", say=said.append)
    worker.join(30)
    assert worker.exitcode == 0
    assert any(f"process {worker.pid} on" in line for line in said)
    assert all(sample in cache for sample in IDS)
    assert not list(place.glob("*.lock"))


def _until_the_disk_is_full(folder: Path, most: int, said: Any) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    try:
        filled(folder, "bert")
    except SourceError as error:
        said.put(str(error))
    else:
        said.put("filled")


@pytest.mark.usefixtures("small_files")
@pytest.mark.fault("kills", "a source cache on a full disk", "SourceError; nothing half-written; it goes on with room")
def test_a_full_disk(tmp_path: Path) -> None:
    whole = {path.name: path.stat().st_size for path in filled(tmp_path / "whole", "bert").folder.iterdir()}
    said = FORK.Queue()
    worker = FORK.Process(target=_until_the_disk_is_full, args=(tmp_path / "cache", min(whole.values()) - 1, said))
    worker.start()
    error = said.get(timeout=60)
    worker.join(30)
    assert "cannot write the source cache" in error
    assert "make room" in error
    (place,) = (tmp_path / "cache").iterdir()
    assert [path.name for path in place.iterdir() if path.suffix != ".lock"] == []
    filled(tmp_path / "cache", "bert")
    assert {path.name: path.stat().st_size for path in place.iterdir()} == whole
