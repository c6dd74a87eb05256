"""`python -m benchmarks.growth`: measure the parts, calculate the rest, write docs/growth.json and docs/growth.md."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.__main__ import machine
from benchmarks.growth.page import page
from benchmarks.growth.parts import measured_parts
from benchmarks.growth.ratios import measured_ratios
from benchmarks.measure import in_process
from mi2p_inject.core.files.atomic_write import write_file

__all__ = ["main"]


def main(
    only: Annotated[str, typer.Option(help="ratios or parts; the other is kept.")] = "",
    out: Annotated[Path, typer.Option(help="The JSON; the page is written beside it.")] = Path("docs/growth.json"),
) -> None:
    """Cost against sites, tokens, channels, samples and ranks; some minutes on two cores.

    Examples:

    - `python -m benchmarks.growth`
    """
    console = Console()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if only not in ("", "ratios", "parts"):
        raise typer.BadParameter(f"--only {only}: there are ratios and parts")
    data = json.loads(out.read_text(encoding="utf-8")) if only else {}
    data |= {"machine": machine(), "date": datetime.date.today().isoformat(), "load": load}
    if only != "parts":
        console.print("sites, tokens, channels")
        data["ratios"] = in_process(measured_ratios)
    if only != "ratios":
        console.print("parts of a training")
        data["parts"] = in_process(measured_parts)
    write_file(out, lambda path: path.write_text(json.dumps(data) + "\n", encoding="utf-8"))
    write_file(out.with_suffix(".md"), lambda path: path.write_text(page(data), encoding="utf-8"))
    console.print(f"written: {out.with_suffix('.md')}")


if __name__ == "__main__":
    typer.run(main)
