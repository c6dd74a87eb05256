"""docs/performance.md and its plot, from the JSON that the benchmarks wrote; nothing in them is typed by hand."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.table import BENCHMARKS

__all__ = ["machine_line", "page", "render"]


def render(results: Path) -> None:
    """Write performance.md and performance.png beside a performance.json; what was not measured is left out."""
    data = json.loads(results.read_text())
    if data["scaling"]:
        _plot(data["scaling"], results.with_suffix(".png"))
    results.with_suffix(".md").write_text(page(data, results.with_suffix(".png").name))


def page(data: dict[str, Any], plot: str) -> str:
    """The Markdown page of one run."""
    on_gpu = {one.name for one in BENCHMARKS if one.gpu}
    others = data.get("elsewhere", {})
    on_cpu = [one for one in data["benchmarks"] if one["name"] not in on_gpu]
    sections = [_head(data), _limits(on_cpu), _elsewhere([one["name"] for one in on_cpu], others)]
    if data["floor"]:
        sections += [_floor(data["floor"]), _elsewhere(["floor"], others)]
    sections += _gpu([one for one in data["benchmarks"] if one["name"] in on_gpu], data.get("gpu"))
    if data["peers"]:
        sections += [_peers(data["peers"]), _elsewhere(["peers"], others)]
    if data["scaling"]:
        sections += [_growth(data["scaling"], plot), _elsewhere(["scaling"], others)]
    return "\n".join(line for section in sections for line in section)


def _head(data: dict[str, Any]) -> list[str]:
    return [
        "# Performance",
        "",
        "Written by `make bench`; every sample is in [performance.json](performance.json). Time is forward and",
        "backward, as ratios of steps run in turn in one process: the median of the pairs, and in brackets their",
        "quartiles. Memory is the peak of a training step in a process of its own, beyond what the libraries take.",
        "Weights are random, sizes are real.",
        "",
        machine_line(data),
        "",
    ]


def machine_line(measured: dict[str, Any]) -> str:
    """The line that names machine, versions and day."""
    machine = measured["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return f"{machine['device']}, {machine['threads']} threads; {versions}; {measured['date']}."


def _elsewhere(names: list[str], others: dict[str, Any]) -> list[str]:
    """What of a section another machine than the page's measured."""
    found: dict[str, list[str]] = {}
    for name in names:
        if name in others:
            found.setdefault(machine_line(others[name]), []).append(f"`{name}`")
    return [line for where, rows in found.items() for line in (f"{', '.join(rows)}: on {where}", "")]


def _limits(found: list[dict[str, Any]]) -> list[str]:
    return [
        "## Limits",
        "",
        *_table(found),
        "`c`, `d` and `e` leave the source encoder out: its features are given, as they are with the source cache.",
        "",
    ]


def _table(found: list[dict[str, Any]]) -> list[str]:
    return [
        "| | measured | compared with | result | limit | |",
        "|---|---|---|---|---|---|",
        *(_line(line) for line in found),
        "",
    ]


def _gpu(found: list[dict[str, Any]], where: dict[str, Any] | None) -> list[list[str]]:
    """What was measured on a GPU, where its time goes, and what was not measured."""
    sections = []
    if found and where:
        intro = "Forward and backward under autocast to bfloat16; medians and quartiles as above."
        sections.append(["## Limits for a GPU", "", intro, "", machine_line(where), "", *_table(found)])
        if profiles := [one for one in found if one["profile"]]:
            sections.append(_profiles(profiles))
    if missing := [one for one in BENCHMARKS if one.gpu and one.name not in {line["name"] for line in found}]:
        sections.append(_unmeasured(missing))
    return sections


def _profiles(found: list[dict[str, Any]]) -> list[str]:
    return [
        "### What a step asks of the GPU",
        "",
        "One step of each, profiled: the kernels it launches, the time in which they run, and the time until Python",
        "has launched them all. Where launching takes longer than running, the card waits for Python, and the ratio",
        "above is one of launches, not of what the card computes. The last column is the units' fused attention",
        "alone, of the base's running time: the floor of what they can add to it. All twelve units do not get below",
        "their limit while their attention alone is above it.",
        "",
        "| | kernels | a unit adds | running | a unit adds | ratio | launching | their attention |",
        "|---|---|---|---|---|---|---|---|",
        *(_profile(one["name"], one["profile"]) for one in found),
        "",
    ]


def _profile(name: str, profile: dict[str, Any]) -> str:
    base, ours, units = profile["base"], profile["ours"], profile["units"]
    kernels, busy, attention = (ours[key] - base[key] for key in ("kernels", "busy", "attention"))
    return (
        f"| {name} | {base['kernels']} → {ours['kernels']} | {kernels / units:.0f} "
        f"| {1000 * base['busy']:.1f} → {1000 * ours['busy']:.1f} ms | {1000 * busy / units:.2f} ms "
        f"| {ours['busy'] / base['busy']:.3f}× | {1000 * base['launch']:.1f} → {1000 * ours['launch']:.1f} ms "
        f"| {attention / base['busy']:.1%} |"
    )


def _unmeasured(missing: list[Any]) -> list[str]:
    """The limits for a GPU that were not measured."""
    return [
        "### Limits for a GPU: unmeasured",
        "",
        "Forward and backward under autocast to bfloat16. Nothing is known of these yet: `make bench` on a machine",
        "with a CUDA device measures them and names the card.",
        "",
        "| | what | compared with | limit | |",
        "|---|---|---|---|---|",
        *(f"| {one.name} | {one.ours} | {one.base} | ≤ {one.limit}× | unmeasured |" for one in missing),
        "",
    ]


def _floor(floor: dict[str, Any]) -> list[str]:
    return [
        "## What benchmarks c and c-paper are made of",
        "",
        "The operations of the twelve units, forward and backward, each measured alone in buffers that are there",
        "already; no other order of the products has fewer. What c takes beyond their sum is allocation, copies",
        "and Python. The last column is that of the units `mi2p-paper`, without channel embedding and readout.",
        "",
        "| part | GFLOP | GB moved | ms | of BERT-base's step | `mi2p-paper` |",
        "|---|---|---|---|---|---|",
        *_parts(floor),
        "",
    ]


def _peers(peers: list[dict[str, Any]]) -> list[str]:
    return [
        "## Whole models side by side",
        "",
        "One training step (AdamW) of 8 samples, 224 px and 64 tokens each.",
        "",
        "| model | step | peak memory |",
        "|---|---|---|",
        *(
            f"| {peer['name']} | {1000 * statistics.median(peer['seconds']):.0f} ms | {peer['megabytes']:.0f} MB |"
            for peer in peers
        ),
        "",
    ]


def _growth(curves: list[dict[str, Any]], plot: str) -> list[str]:
    return [
        "## Growth",
        "",
        "Forward and backward of the units alone. The slope is that of the logarithms over the larger sizes.",
        "",
        "| against | from | to | slope |",
        "|---|---|---|---|",
        *(f"| {one['name']} | {one['sizes'][0]} | {one['sizes'][-1]} | {one['slope']:.2f} |" for one in curves),
        "",
        f"![Cost of units against sizes]({plot})",
        "",
    ]


def _parts(floor: dict[str, Any]) -> list[str]:
    rows = [
        (ours["name"], ours["gigaflops"], ours["gigabytes"], ours["seconds"], paper["seconds"])
        for ours, paper in zip(floor["parts"], floor["parts_of_paper"], strict=True)
    ]
    total = ("**together**", *(sum(column) for column in list(zip(*rows, strict=True))[1:]))
    return [
        f"| {name} | {flops:.1f} | {moved:.1f} | {1000 * ours:.0f} | {ours / floor['backbone']:.1%} "
        f"| {paper / floor['backbone']:.1%} |"
        for name, flops, moved, ours, paper in [*rows, total]
    ]


def _line(line: dict[str, Any]) -> str:
    base = line["base"] or "–"
    if not line["base"]:
        middle = statistics.median(line["samples"]["ours"])
        result, limit, value = f"{middle:.2g} s", f"≤ {line['limit']} s", middle
    else:
        low, high = line["spread"]
        value = 1 / line["ratio"] if line["at_least"] else line["ratio"]
        low, high = (1 / high, 1 / low) if line["at_least"] else (low, high)
        digits = 0 if line["at_least"] else 3
        result = f"{value:.{digits}f}× ({low:.{digits}f}–{high:.{digits}f})" + (" less" if line["at_least"] else "")
        limit = "–" if line["limit"] is None else f"{'≥' if line['at_least'] else '≤'} {line['limit']}×"
    if line["limit"] is None:
        verdict = ""
    else:
        verdict = "met" if (value >= line["limit"] if line["at_least"] else value <= line["limit"]) else "**missed**"
    return f"| {line['name']} | {line['ours']} | {base} | {result} | {limit} | {verdict} |"


def _plot(curves: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(curves), figsize=(4 * len(curves), 3.4), sharey=True)
    for panel, curve in zip(panels, curves, strict=True):
        milliseconds = [1000 * statistics.median(samples) for samples in curve["seconds"]]
        panel.loglog(curve["sizes"], milliseconds, "o-", label=f"measured, slope {curve['slope']:.2f}")
        linear = [milliseconds[-1] * size / curve["sizes"][-1] for size in curve["sizes"]]
        panel.loglog(curve["sizes"], linear, ":", color="grey", label="linear")
        panel.set_xticks(curve["sizes"], [str(size) for size in curve["sizes"]])
        panel.minorticks_off()
        panel.set_xlabel(curve["name"], fontsize=8)
        panel.legend(fontsize=8)
    panels[0].set_ylabel("ms, forward + backward, batch 8")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
