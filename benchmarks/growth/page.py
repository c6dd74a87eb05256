"""docs/growth.md, from the JSON that `python -m benchmarks.growth` wrote; nothing in it is typed by hand."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.growth.simulate import FORMULAS, Parts, Plan, Simulated, simulate
from mi2p_inject.core.human import human

__all__ = ["RANKS", "SAMPLES", "page"]

SAMPLES = (1_000, 10_000, 100_000, 1_000_000)
RANKS = (1, 2, 4, 8)
_NAMES = {
    "compute": "the model's step",
    "source": "the source encoder",
    "exchange": "exchange of gradients",
    "images": "opening images",
    "cache": "reading the cache",
    "fill": "filling the cache",
}
_PARTS = {
    "step": ("a step of one batch, features given", "s"),
    "source": ("the source encoder's forward of one batch", "s"),
    "image": ("opening and resizing one image", "s"),
    "read": ("one sample's features, from a file in memory", "s"),
    "fill": ("encoding and writing one sample's features", "s"),
    "sample_bytes": ("one sample's features on disk", "B"),
    "index_bytes": ("one sample in the index of an open cache, in memory", "B"),
    "exchange_speed": ("all-reduce between two gloo processes here", "B/s"),
    "disk_speed": ("reading a file that is not in memory", "B/s"),
}


def page(data: dict[str, Any]) -> str:
    """The Markdown page of one run."""
    parts = Parts(**data["parts"]["parts"])
    sections = (_head(data), _ratios(data["ratios"]), _measured(data["parts"]), _samples(parts), _ranks(parts))
    return "\n".join(line for section in sections for line in section)


def _head(data: dict[str, Any]) -> list[str]:
    machine = data["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    shared = (
        f" The machine was shared with other work (load {data['load']:.1f} at the start):" if data["load"] > 1 else ""
    )
    return [
        "# Growth",
        "",
        "Written by `python -m benchmarks.growth`; every sample is in [growth.json](growth.json). How cost grows with",
        "sites, tokens and channels is measured; with samples and ranks it is calculated from measured parts.",
        "",
        f"{machine['device']}, {machine['threads']} threads; {versions}; {data['date']}.{shared}"
        + (
            " clock times are longer than they would be alone, ratios within one run and processor seconds hardly."
            if shared
            else ""
        ),
        "",
    ]


def _ratios(found: list[dict[str, Any]]) -> list[str]:
    return [
        "## Sites, tokens, channels",
        "",
        "Forward and backward of the units alone, batch 8, warm: steps of both sizes in turn in one process,",
        "the median of the pairs' ratios and their quartiles.",
        "",
        "| what grows | from | to | size | cost |",
        "|---|---|---|---|---|",
        *(
            f"| {one['axis']} | {one['base']} | {one['size']} | {one['size'] / one['base']:g}× "
            f"| {one['ratio']:.2f}× ({one['spread'][0]:.2f}–{one['spread'][1]:.2f}) |"
            for one in found
        ),
        "",
    ]


def _measured(found: dict[str, Any]) -> list[str]:
    check = found["check"]
    return [
        "## The parts",
        "",
        f"{found['what']}. Seconds are those of one processor core (processor time of one thread), which others on the",
        "machine do not lengthen by waiting; disk and exchange are by the clock.",
        "",
        "| part | median | quartiles |",
        "|---|---|---|",
        *(
            f"| {words} | {_amount(found['parts'][name], unit)} | {_quartiles(found['samples'][name], unit)} |"
            for name, (words, unit) in _PARTS.items()
        ),
        f"| gradients of one step | {_amount(found['parts']['gradient_bytes'], 'B')} | – |",
        f"| memory of the machine | {_amount(found['parts']['memory_bytes'], 'B')} | – |",
        "",
        f"One check: a real training of {check['samples']} samples and {check['epochs']} epochs, one thread, took "
        f"{check['measured']:.1f} s of its core, from an empty cache on; the formulas say {check['predicted']:.1f} s "
        f"(predicted ÷ measured {check['predicted'] / check['measured']:.2f}).",
        "",
        "## The formulas",
        "",
        "```text",
        FORMULAS.rstrip("\n"),
        "```",
        "",
        "Assumed: a rank is one thread with a core of its own, all share one disk, ranks exchange gradients as fast as",
        "two processes of this machine. Left out: start, validation, checkpoints, and that loader processes",
        "and training take each other's time where cores are few.",
        "",
    ]


def _samples(parts: Parts) -> list[str]:
    lines = [
        "## Samples",
        "",
        "Ten epochs, one rank, two loader processes. `cached` is the whole training with the source cache, its filling",
        "included, ÷ without one. The bottleneck is the longest of what the training waits for.",
        "",
        "| samples | without cache | bottleneck | with cache | bottleneck | cached | on disk | index in memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for samples in SAMPLES:
        plain, cached = (simulate(parts, Plan(samples, cached=cached)) for cached in (False, True))
        lines.append(
            f"| {samples:,} | {_time(plain.total)} | {_NAMES[plain.bottleneck]} {_share(plain)} "
            f"| {_time(cached.total)} | {_NAMES[cached.bottleneck]} {_share(cached)} "
            f"| {cached.total / plain.total:.2f}× "
            f"| {_amount(cached.cache_bytes, 'B')} | {_amount(cached.index_bytes, 'B')} |"
        )
    return [*lines, ""]


def _ranks(parts: Parts) -> list[str]:
    samples = SAMPLES[-1]
    alone = simulate(parts, Plan(samples))
    lines = [
        "## Ranks",
        "",
        f"{samples:,} samples, ten epochs, with the source cache, two loader processes a rank.",
        "",
        "| ranks | total | speed-up | exchange ÷ step | bottleneck |",
        "|---|---|---|---|---|",
    ]
    for ranks in RANKS:
        found = simulate(parts, Plan(samples, ranks=ranks))
        lines.append(
            f"| {ranks} | {_time(found.total)} | {alone.total / found.total:.2f}× "
            f"| {found.terms['exchange'] / found.terms['compute']:.2f} | {_NAMES[found.bottleneck]} {_share(found)} |"
        )
    return [*lines, ""]


def _share(found: Simulated) -> str:
    return f"({found.terms[found.bottleneck] / found.total:.0%})"


def _time(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _amount(value: float, unit: str) -> str:
    if unit == "s":
        return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.3g} ms"
    return human(value, unit)


def _quartiles(samples: list[float], unit: str) -> str:
    if len(samples) < 2:
        return "–"
    low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    return f"{_amount(low, unit)} – {_amount(high, unit)}"
