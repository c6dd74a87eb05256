"""How long a training takes, from the times of its parts: formulas alone, nothing is run."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["FORMULAS", "Parts", "Plan", "Simulated", "simulate"]

FORMULAS = """\
steps    = epochs · ⌈samples / (batch · ranks)⌉
compute  = steps · step                                      the expanded model's forward, backward and AdamW
source   = steps · source                                    only without a cache
exchange = steps · 2 · (ranks - 1) / ranks · gradient bytes / exchange speed
images   = steps · batch · image / max(workers, 1)           opening and resizing
cache    = steps · batch · read / max(workers, 1)            read = from memory, or sample bytes · sharers / disk speed
                                                             where the whole cache is larger than the memory
fill     = samples / ranks · fill                            encode and write, once
busy, fed = compute + source + exchange, images + cache
total    = fill + (max(busy, fed) with workers, busy + fed without)
"""
"""As the page states them; `simulate` is the same in Python."""


@dataclass(frozen=True)
class Parts:
    """What was measured; seconds of one processor core, and bytes.

    Attributes:
        batch: samples of a step.
        step: of one batch with its features given.
        source: the frozen encoder's forward of one batch.
        image: opening and resizing one image.
        read: the features of one sample, from a file in memory.
        fill: encoding and writing one sample's features.
        sample_bytes: on disk, of one sample's features.
        index_bytes: in memory, of one sample of an open cache.
        gradient_bytes: of what trains.
        exchange_speed: bytes a second, of an all-reduce.
        disk_speed: bytes a second, of a file that is not in memory.
        memory_bytes: of the machine.
    """

    batch: int
    step: float
    source: float
    image: float
    read: float
    fill: float
    sample_bytes: float
    index_bytes: float
    gradient_bytes: float
    exchange_speed: float
    disk_speed: float
    memory_bytes: float


@dataclass(frozen=True)
class Plan:
    """A training.

    Attributes:
        samples: of the training split.
        ranks: processes on one machine that share its disk; each has cores of its own.
        epochs: passes.
        workers: loader processes of a rank.
        cached: the source's features are kept on disk.
    """

    samples: int
    ranks: int = 1
    epochs: int = 10
    workers: int = 2
    cached: bool = True


@dataclass(frozen=True)
class Simulated:
    """What a training takes.

    Attributes:
        terms: seconds of each term of `FORMULAS`.
        total: seconds.
        bottleneck: the largest term of those that the training waits for.
        cache_bytes: on disk.
        index_bytes: in memory, of each process that reads the cache.
    """

    terms: dict[str, float]
    total: float
    bottleneck: str
    cache_bytes: float
    index_bytes: float


def simulate(parts: Parts, plan: Plan) -> Simulated:
    """The formulas.

    Example:
        >>> parts = Parts(10, 1.0, 0.5, 0.01, 0.001, 0.1, 1e5, 500, 1e8, 1e9, 1e8, 1e9)
        >>> found = simulate(parts, Plan(samples=1000, epochs=2, workers=0))
        >>> {name: round(value, 3) for name, value in found.terms.items()}
        {'compute': 200.0, 'source': 0.0, 'exchange': 0.0, 'images': 20.0, 'cache': 2.0, 'fill': 100.0}
        >>> found.total, found.bottleneck
        (322.0, 'compute')
        >>> simulate(parts, Plan(samples=100_000, epochs=2, ranks=100, workers=8)).bottleneck  # 10 GB, 100 at one disk
        'cache'
    """
    steps = plan.epochs * math.ceil(plan.samples / (parts.batch * plan.ranks))
    feeders = max(plan.workers, 1)
    cache_bytes = plan.samples * parts.sample_bytes if plan.cached else 0.0
    in_memory = cache_bytes <= parts.memory_bytes
    read = parts.read if in_memory else parts.sample_bytes * plan.ranks * feeders / parts.disk_speed
    terms = {
        "compute": steps * parts.step,
        "source": 0.0 if plan.cached else steps * parts.source,
        "exchange": steps * 2 * (plan.ranks - 1) / plan.ranks * parts.gradient_bytes / parts.exchange_speed,
        "images": steps * parts.batch * parts.image / feeders,
        "cache": steps * parts.batch * read / feeders if plan.cached else 0.0,
        "fill": plan.samples / plan.ranks * parts.fill if plan.cached else 0.0,
    }
    busy = terms["compute"] + terms["source"] + terms["exchange"]
    fed = terms["images"] + terms["cache"]
    total = terms["fill"] + (max(busy, fed) if plan.workers else busy + fed)
    waited = {"fill"} | ({"compute", "source", "exchange"} if busy >= fed or not plan.workers else set())
    waited |= {"images", "cache"} if fed > busy or not plan.workers else set()
    bottleneck = max(sorted(waited), key=lambda name: terms[name])
    return Simulated(terms, total, bottleneck, cache_bytes, plan.samples * parts.index_bytes if plan.cached else 0.0)
