"""How fast processes exchange gradients; a module of its own, as each process imports it."""

from __future__ import annotations

import tempfile
import time
from typing import Any

import torch

__all__ = ["exchange_speeds"]


def exchange_speeds(size: int, rounds: int = 3) -> list[float]:
    """Bytes a second: 2 (R - 1) / R · bytes ÷ seconds of an all-reduce between R = 2 gloo processes of this machine.

    Args:
        size: float32 numbers.
        rounds: samples.
    """
    import torch.multiprocessing as mp

    with tempfile.TemporaryDirectory() as folder:
        answers = mp.get_context("spawn").SimpleQueue()
        mp.spawn(_exchange, (f"file://{folder}/ranks", size, rounds, answers), nprocs=2)  # type: ignore[attr-defined, no-untyped-call]
        seconds = answers.get()
    return [4 * size / one for one in seconds]


def _exchange(rank: int, meeting: str, size: int, rounds: int, answers: Any) -> None:
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    values, seconds = torch.ones(size), []
    for _ in range(rounds + 1):  # the first one is not counted
        torch.distributed.barrier()
        started = time.perf_counter()
        torch.distributed.all_reduce(values)
        seconds.append(time.perf_counter() - started)
    torch.distributed.destroy_process_group()
    if rank == 0:
        answers.put(seconds[1:])
