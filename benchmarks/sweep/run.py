"""The run: one forked process a model, with limits, and a file of results that survives a kill."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from benchmarks.sweep.picks import Pick
from benchmarks.sweep.verdict import Answer, Result, Verdict, judge
from mi2p_inject.core.errors import SweepError

__all__ = ["Limits", "ResultFile", "sweep"]

GIB = 2**30


@dataclass(frozen=True)
class Limits:
    """Of one model: memory in GiB beyond what the parent holds already, and seconds."""

    memory: float = 6.0
    seconds: float = 300.0


class ResultFile:
    """Results as JSON lines, one appended whole and synced after each model.

    Args:
        path: the file; it need not exist.
        versions: of the libraries. Results of other versions are not mixed with these.

    Raises:
        SweepError: the file was written with other versions, or is no such file.
    """

    def __init__(self, path: Path, versions: dict[str, str]) -> None:
        self.path, self.versions = path, versions
        self.results: dict[str, Result] = {}
        lines = self._whole_lines()
        if not lines:
            self._append({"versions": versions})
            return
        try:
            head, *rest = [json.loads(line) for line in lines]
            found = head["versions"]
            self.results = {result.name: result for result in map(Result.from_json, rest)}
        except (ValueError, KeyError, TypeError) as error:
            raise SweepError(
                f"{path} is no file of sweep results: {type(error).__name__}: {error}",
                expected="JSON lines that mi2p sweep wrote",
                given=str(path),
                fix="choose another --out, or --overwrite",
            ) from error
        if found != versions:
            raise SweepError(
                f"{path} holds results of other versions",
                expected=", ".join(f"{name} {number}" for name, number in versions.items()),
                given=", ".join(f"{name} {number}" for name, number in found.items()),
                fix="choose another --out, or --overwrite to start again",
            )

    def add(self, result: Result) -> None:
        """Keep one result, on disk before this returns."""
        self.results[result.name] = result
        self._append(result.to_json())

    def _whole_lines(self) -> list[str]:
        """The lines that were written to their end; a torn last one is cut off."""
        if not self.path.exists():
            return []
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if whole.startswith(b'{"versions":') and len(whole) < len(data):
            os.truncate(self.path, len(whole))
        return (whole or data).decode("utf-8", "replace").splitlines()

    def _append(self, data: object) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def sweep(picks: Sequence[Pick], limits: Limits, jobs: int = 1) -> Iterator[Result]:
    """Judge models, each in a process of its own forked from this one, and give their results as they come.

    What a model leaves behind (caches, memory, a crash of the interpreter) ends with its process. Fork instead of
    spawn: the libraries are imported once, in the parent, so that a model costs seconds and not an import. The parent
    must not have run a backward pass: autograd's threads do not survive a fork.

    Args:
        picks: the models.
        limits: of each.
        jobs: how many at once, each with one thread.

    Raises:
        SweepError: this system cannot fork.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        raise SweepError(
            "the sweep forks a process for each model",
            expected="Linux or another POSIX system",
            given=sys.platform,
            fix="run it there, or in a container",
        )
    torch.set_num_threads(1)
    waiting, running = list(reversed(picks)), list[_Running]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_Running(waiting.pop(), limits))
            wait([one.pipe for one in running], timeout=max(0.0, min(one.time_left() for one in running)))
            for one in [one for one in running if one.done()]:
                running.remove(one)
                yield one.result()
    finally:
        for one in running:
            one.stop()


class _Running:
    """One model's process."""

    def __init__(self, pick: Pick, limits: Limits) -> None:
        self.pick, self.limits, self.started = pick, limits, time.monotonic()
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe(duplex=False)
        self.process: BaseProcess = context.Process(target=_child, args=(pick, limits, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def time_left(self) -> float:
        return self.started + self.limits.seconds - time.monotonic()

    def done(self) -> bool:
        return self.pipe.poll() or self.time_left() <= 0

    def result(self) -> Result:
        """The child's own, or what its end says."""
        seconds = round(time.monotonic() - self.started, 1)
        late = not self.pipe.poll()
        if not late:
            with contextlib.suppress(EOFError):  # it died without a word
                result: Result = self.pipe.recv()
                self.stop()
                return replace(result, seconds=seconds)
        self.stop()
        code = self.process.exitcode or 0
        verdict: Verdict = "time" if late else "memory" if code == -signal.SIGKILL else "crashed"
        answer = Answer(verdict, f"over {self.limits.seconds:g} s" if late else f"the process ended with code {code}")
        return Result(self.pick.name, self.pick.family, "", answer, answer, seconds)

    def stop(self) -> None:
        self.process.join(timeout=0 if self.time_left() <= 0 else 1)
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.pipe.close()


def _child(pick: Pick, limits: Limits, pipe: Connection) -> None:
    _limit_memory(limits.memory)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    pipe.send(judge(pick.name, pick.family, pick.build))
    pipe.close()


def _limit_memory(gib: float) -> None:
    """An allocation beyond raises instead of taking the machine down."""
    import resource

    with contextlib.suppress(OSError, ValueError):  # a harder limit is in place, or a system without this one
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + int(gib * GIB)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
