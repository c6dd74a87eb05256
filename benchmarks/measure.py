"""How things are measured: side by side in one process for time, each in a process of its own for memory."""

from __future__ import annotations

import gc
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["LIBRARIES", "Comparison", "Step", "in_process", "peak_of", "resident", "seconds_of", "side_by_side"]

Step = Callable[[], object]

LIBRARIES = ["torch", "timm", "transformers", "peft"]
"""Imported once, not once in each of the fresh processes."""


@dataclass(frozen=True)
class Comparison:
    """Two things measured in turn, many times.

    Attributes:
        base: samples of what it is compared with.
        ours: samples of ours.
        unit: "s" or "MB".
        paired: whether sample i of one ran right beside sample i of the other.
    """

    base: list[float]
    ours: list[float]
    unit: str
    paired: bool

    @property
    def ratio(self) -> float:
        """Ours ÷ base: the median of the pairs' ratios, or the ratio of the medians."""
        return statistics.median(self.ratios) if self.paired else _middle(self.ours) / _middle(self.base)

    @property
    def spread(self) -> tuple[float, float]:
        """Lower and upper quartile of the pairs' ratios (least and largest ratio where samples are no pairs)."""
        if not self.paired:
            return min(self.ours) / max(self.base), max(self.ours) / min(self.base)
        if len(self.ratios) < 2:
            return self.ratios[0], self.ratios[0]
        low, _, high = statistics.quantiles(self.ratios, n=4, method="inclusive")
        return low, high

    @property
    def ratios(self) -> list[float]:
        return [ours / base for base, ours in zip(self.base, self.ours, strict=True)]


def side_by_side(base: Step, ours: Step, *, rounds: int, warmup_rounds: int = 2) -> Comparison:
    """Seconds of two steps, run in turn: base, ours, ours, base, ... so that neither always comes second."""
    for _ in range(warmup_rounds):
        base(), ours()
    seconds: dict[int, list[float]] = {0: [], 1: []}
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            for which in (0, 1) if number % 2 == 0 else (1, 0):
                seconds[which].append(seconds_of((base, ours)[which]))
    finally:
        gc.enable()
    return Comparison(seconds[0], seconds[1], "s", paired=True)


def seconds_of(step: Step) -> float:
    """Seconds of one run; waits for the GPU where there is one."""
    _synchronise()
    started = time.perf_counter()
    step()
    _synchronise()
    return time.perf_counter() - started


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _middle(samples: Sequence[float]) -> float:
    return statistics.median(samples)


def in_process(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a fresh process and bring back what it returns.

    Raises:
        RuntimeError: the process died.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, function, args))
    process.start()
    sender.close()
    try:
        answer = receiver.recv()
    except EOFError as error:
        process.join()
        raise RuntimeError(f"{function.__name__}{args} died with exit code {process.exitcode}") from error
    process.join()
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _send(sender: Any, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
        sender.send(function(*args))
    except BaseException as error:
        sender.send(error)


def peak_of(build: Callable[[], Step], runs: int = 3) -> float:
    """MB that building a step and running it takes at its peak; call it in a fresh process.

    On a CPU: the peak of the resident memory beyond what the process held before (its libraries). On a GPU: the
    allocator's peak.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    held = resident("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts here
    step = build()
    for _ in range(runs):
        step()
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    return resident("VmHWM") - held


def resident(field: str) -> float:
    """MB of this process's memory, by the name that Linux gives it: VmRSS, VmHWM (the peak), RssAnon (its own)."""
    with open(f"/proc/{os.getpid()}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field)) * 1024 / 1e6
