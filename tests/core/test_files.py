"""Files written in one step, locks that say who holds them, and reading of regular files only."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from kills import FORK, killed_in
from safetensors.torch import save_file

from mi2p_inject.core.files.atomic_write import PREFIX, remove_leftovers, write_file, write_folder
from mi2p_inject.core.files.digest import file_digest
from mi2p_inject.core.files.lock import LockHeldError, WriterLock, holder_of
from mi2p_inject.core.files.read import check_regular, read_regular


def write_tensors(path: Path) -> None:
    save_file({"a": torch.zeros(2)}, path)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
@pytest.mark.fault("files", "a file that only its owner can read, whatever the umask", "the mode that the umask gives")
def test_files_have_the_mode_that_the_umask_gives(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_file(tmp_path / "a.safetensors", write_tensors)
        write_folder(tmp_path / "b", lambda folder: write_tensors(folder / "c.safetensors"))
    finally:
        os.umask(before)
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("a.safetensors", "b", "b/c.safetensors")]
    assert modes == [0o666 & ~umask, 0o777 & ~umask, 0o666 & ~umask]


def test_nothing_is_left_but_what_was_written(tmp_path: Path) -> None:
    write_file(tmp_path / "a", lambda path: path.write_text("1"))
    write_file(tmp_path / "a", lambda path: path.write_text("2"))
    write_folder(tmp_path / "b", lambda folder: (folder / "c").write_text("3"))
    write_folder(tmp_path / "b", lambda folder: (folder / "d").write_text("4"))
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == ["a", "b", "b/d"]
    assert (tmp_path / "a").read_text() == "2"


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_failure_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    write_file(tmp_path / "a", lambda path: path.write_text("old"))
    write_folder(tmp_path / "b", lambda folder: (folder / "c").write_text("old"))
    if step != "write":
        monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space"):
        write_file(tmp_path / "a", full if step == "write" else lambda path: path.write_text("new"))
    with pytest.raises(OSError, match="No space"):
        write_folder(tmp_path / "b", full if step == "write" else lambda folder: (folder / "c").write_text("new"))
    assert ((tmp_path / "a").read_text(), (tmp_path / "b" / "c").read_text()) == ("old", "old")
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.fault("files", "a killed writer's half-written files stay for ever", "the next writer removes them")
def test_the_next_writer_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    def slowly(here: Callable[[], None]) -> None:
        write_file(tmp_path / "a", lambda path: (path.write_text("half"), here()))

    killed_in(slowly)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(PREFIX)
    write_file(tmp_path / "b", lambda path: path.write_text("whole"))
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.fault("files", "a link among the leftovers of killed writers", "what it leads to is left alone")
def test_a_link_among_the_leftovers_is_not_followed(tmp_path: Path) -> None:
    mine, place = tmp_path / "mine", tmp_path / "place"
    mine.mkdir()
    place.mkdir()
    for name in ("lock", "data"):
        (mine / name).write_text("keep")
    (place / f"{PREFIX}0123").symlink_to(mine)
    write_file(place / "a", lambda path: path.write_text("b"))
    assert [(mine / name).read_text() for name in ("lock", "data")] == ["keep"] * 2


def test_a_live_writer_is_left_alone(tmp_path: Path) -> None:
    def meanwhile(path: Path) -> None:
        remove_leftovers(tmp_path)
        write_file(tmp_path / "a", lambda other: other.write_text("first"))
        path.write_text("second")

    write_file(tmp_path / "a", meanwhile)
    assert (tmp_path / "a").read_text() == "second"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_writer_whose_folder_is_taken_for_a_leftover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """filelock makes a folder that it does not find, and complains where that one is gone once more meanwhile."""
    acquire, failed = WriterLock.acquire, []

    def gone(lock: WriterLock, timeout: float = 0) -> None:
        if not failed:
            failed.append(lock.path.parent)
            lock.path.parent.rmdir()
            raise FileExistsError(17, "File exists", str(lock.path.parent))
        acquire(lock, timeout)

    monkeypatch.setattr(WriterLock, "acquire", gone)
    write_file(tmp_path / "a", lambda path: path.write_text("b"))
    assert failed
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_many_writers_of_one_file(tmp_path: Path) -> None:
    def often(number: int) -> None:
        for _ in range(20):
            write_file(tmp_path / "a", lambda path: path.write_text(str(number) * 1000))

    workers = [FORK.Process(target=often, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    text = (tmp_path / "a").read_text()
    assert text == text[0] * 1000
    assert len(list(tmp_path.iterdir())) == 1


class TestLock:
    def test_the_second_names_who_has_it(self, tmp_path: Path) -> None:
        path = tmp_path / ".lock"
        with WriterLock(path):
            with pytest.raises(LockHeldError, match=rf"process {os.getpid()} on .*, since 20") as error:
                WriterLock(path).acquire()
            assert error.value.holder == holder_of(path)
        assert not path.exists()
        with WriterLock(path):
            assert path.exists()

    def test_a_killed_holder_holds_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / ".lock"

        def hold(here: Callable[[], None]) -> None:
            with WriterLock(path):
                here()

        pid = killed_in(hold)
        holder = holder_of(path)
        assert holder is not None
        assert holder.pid == pid
        with WriterLock(path):
            assert holder_of(path).pid == os.getpid()  # type: ignore[union-attr]
        assert not path.exists()

    def test_one_at_a_time(self, tmp_path: Path) -> None:
        counter = tmp_path / "counter"
        counter.write_text("0")

        def count() -> None:
            for _ in range(50):
                lock = WriterLock(tmp_path / ".lock")
                lock.acquire(timeout=-1)
                counter.write_text(str(int(counter.read_text()) + 1))
                lock.release()

        workers = [FORK.Process(target=count) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
        assert counter.read_text() == "150"
        assert [path.name for path in tmp_path.iterdir()] == ["counter"]

    @pytest.mark.parametrize("content", [b"", b"[1]", b'{"pid": 1}', b"\xff" * 10_000])
    def test_a_lock_file_of_other_content(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / ".lock").write_bytes(content)
        assert holder_of(tmp_path / ".lock") is None
        with WriterLock(tmp_path / ".lock"), pytest.raises(LockHeldError):
            WriterLock(tmp_path / ".lock").acquire()


def special(kind: str, at: Path) -> Path:
    """What is no regular file, under a name in a folder."""
    if kind == "pipe":
        os.mkfifo(at)
    elif kind == "folder":
        at.mkdir()
    else:
        at.symlink_to({"device": "/dev/zero", "loop": at.name, "dangling": "nowhere"}[kind])
    return at


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "loop", "dangling"])
@pytest.mark.fault("files", "a named pipe, a device or a folder where a file should be", "an error before it is read")
def test_only_regular_files_are_read(tmp_path: Path, kind: str) -> None:
    path = special(kind, tmp_path / "a")
    with pytest.raises(OSError):  # noqa: PT011  # of several kinds
        read_regular(path, 100)
    with pytest.raises(OSError):  # noqa: PT011
        check_regular(path)


def test_a_link_to_a_regular_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "b").symlink_to("a")  # as in the cache of the hub
    assert read_regular(tmp_path / "b", 3) == b"123"
    assert check_regular(tmp_path / "b", 3) == 3


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="Linux's")
@pytest.mark.fault("files", "a file of /proc, which gives more bytes than its size", "an error, if it never ends, too")
def test_a_file_that_gives_more_than_its_size(tmp_path: Path) -> None:
    for name in ("environ", "pagemap"):
        (tmp_path / name).symlink_to(f"/proc/self/{name}")
        with pytest.raises(OSError, match="more bytes than the file's size"):
            file_digest(tmp_path / name)


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "a", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match="1,099,511,627,776 bytes, where at most 100 are expected"):
        read_regular(tmp_path / "a", 100)
    assert check_regular(tmp_path / "a") == 2**40
