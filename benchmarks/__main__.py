"""`python -m benchmarks`: run the benchmarks, write docs/performance.json, render docs/performance.md and its plot."""

from __future__ import annotations

import datetime
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from benchmarks.comparisons import peer_cost, peer_names
from benchmarks.floor import all_parts
from benchmarks.measure import in_process
from benchmarks.render import render
from benchmarks.scaling import all_curves
from benchmarks.table import BENCHMARKS, measurable, measured
from mi2p_inject.core.files.atomic_write import write_file

__all__ = ["PACKAGES", "machine", "main", "measured_elsewhere"]

PACKAGES = ("torch", "timm", "transformers", "peft", "numpy")


def main(
    only: Annotated[
        str, typer.Option(help="Names of benchmarks, 'peers', 'scaling' or 'floor', with commas; the rest is kept.")
    ] = "",
    out: Annotated[Path, typer.Option(help="The JSON; page and plot are written beside it.")] = Path(
        "docs/performance.json"
    ),
) -> None:
    """Measure what injection costs, and write the page about it.

    Examples:

    - `python -m benchmarks` (all, about a quarter of an hour on two cores)

    - `python -m benchmarks --only c,d --out runs/bench.json`
    """
    console = Console()
    wanted = (
        set(only.split(",")) if only else {*(benchmark.name for benchmark in BENCHMARKS), "peers", "scaling", "floor"}
    )
    if unknown := wanted - {*(benchmark.name for benchmark in BENCHMARKS), "peers", "scaling", "floor"}:
        raise typer.BadParameter(
            f"no benchmarks {', '.join(sorted(unknown))}; there are {', '.join(one.name for one in BENCHMARKS)}"
        )
    data = (
        json.loads(out.read_text())
        if only and out.exists()
        else {"benchmarks": [], "peers": [], "scaling": [], "floor": {}}
    )
    here = {"machine": machine(), "date": datetime.date.today().isoformat()}
    on_gpu = {one.name for one in BENCHMARKS if one.gpu}
    data = here | data if only else data | here
    if wanted & on_gpu and torch.cuda.is_available():
        data["gpu"] = here
    for benchmark in BENCHMARKS:
        if benchmark.name in wanted and not measurable(benchmark):
            console.print(f"{benchmark.name:<12} unmeasured: it needs a CUDA device")
        elif benchmark.name in wanted:
            result = in_process(measured, benchmark.name)
            console.print(
                f"{benchmark.name:<12} {result['ratio']:.3f} ({result['spread'][0]:.3f}-{result['spread'][1]:.3f})"
            )
            data["benchmarks"] = [one for one in data["benchmarks"] if one["name"] != benchmark.name] + [result]
            _save(data, out)
    if "peers" in wanted:
        data["peers"] = []
        for name in in_process(peer_names):
            seconds, megabytes = in_process(peer_cost, name)
            data["peers"].append({"name": name, "seconds": seconds, "megabytes": megabytes})
            console.print(f"{name}: {min(seconds):.2f} s, {megabytes:.0f} MB")
        _save(data, out)
    if "scaling" in wanted:
        data["scaling"] = in_process(all_curves)
        _save(data, out)
    if "floor" in wanted:
        data["floor"] = in_process(all_parts)
        _save(data, out)
    data["elsewhere"] = measured_elsewhere(data, wanted - on_gpu, here)
    order = [benchmark.name for benchmark in BENCHMARKS]
    kept = [one for one in data["benchmarks"] if one["name"] in order]
    data["benchmarks"] = sorted(kept, key=lambda one: order.index(one["name"]))
    _save(data, out)
    render(out)
    console.print(f"written: {out.with_suffix('.md')}")


def measured_elsewhere(data: dict[str, Any], names: set[str], here: dict[str, Any]) -> dict[str, Any]:
    """Name of a benchmark -> machine and day, of those that another machine than the page's measured.

    Args:
        data: of the page.
        names: what has been measured here and now.
        here: machine and day.
    """
    others = {name: where for name, where in data.get("elsewhere", {}).items() if name not in names}
    return others if here["machine"] == data["machine"] else others | dict.fromkeys(names, here)


def machine() -> dict[str, Any]:
    """Its name (the card's, where there is one), threads, versions."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "device": gpu or f"{_processor()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _save(data: dict[str, Any], out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    write_file(out, lambda path: path.write_text(json.dumps(data) + "\n"))


if __name__ == "__main__":
    typer.run(main)
