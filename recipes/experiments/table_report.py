"""A table's numbers, as `mi2p table` wrote them into metrics.json, as Markdown and on the screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from mi2p_inject.recipes.evaluation.run_report import TITLES, points

__all__ = ["markdown", "show", "significant"]

Numbers = Mapping[str, Any]


def markdown(numbers: Numbers) -> str:
    """Rows, gains, and how to read them.

    Args:
        numbers: a table's metrics.json.
    """
    rows, names = numbers["rows"], _names(numbers)
    told = [name for name in names if any(name in row["paper"] for row in rows.values())]
    heads = ["row", "encoders", *(TITLES[name] for name in names), *(f"paper's {TITLES[name]}" for name in told)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows.values():
        shown = [_with_interval(row, name) for name in names]
        cells = [row["title"], row["encoders"], *shown, *(str(row["paper"].get(name, "")) for name in told)]
        lines.append(f"| {' | '.join(cells)} |")
    gains = _gains(numbers)
    if gains:
        lines += ["", f"| gain, in points | {' | '.join(TITLES[name] for name in names)} |"]
        lines.append("|---" * (len(names) + 1) + "|")
    for title, gain in gains:
        lines.append(f"| {title} | {' | '.join(_marked(gain[name]) for name in names)} |")
    counts = " / ".join(f"{count} {part}" for part, count in numbers["parts"].items())
    lines += [
        "",
        f"Table {numbers['table']} on {numbers['data']}: {counts}, {len(numbers['classes'])} classes; encoders: "
        f"{numbers['encoders']}.",
        f"Mean over seeds {', '.join(map(str, numbers['seeds']))} ± standard deviation over the seeds [95 % bootstrap "
        "interval over the test samples]; bold gains: the interval leaves 0 out.",
    ]
    if any("random weights" in row["encoders"] for row in rows.values()):
        lines.append("Encoders with random weights are small stand-ins: their numbers say nothing about the real ones.")
    return "\n".join(lines) + "\n"


def show(numbers: Numbers, console: Console) -> None:
    """The same, short, for a terminal."""
    rows, names = numbers["rows"], _names(numbers)
    beside = " (the paper's)" if any(row["paper"] for row in rows.values()) else ""
    title = f"Table {numbers['table']}, test, %, mean ± sd over seeds{beside}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("row", no_wrap=True)
    for name in names:
        table.add_column(TITLES[name], no_wrap=True)
    for key, row in rows.items():
        told = {name: f" ({row['paper'][name]})" if name in row["paper"] else "" for name in names}
        table.add_row(key, *(_mean(row, name) + told[name] for name in names))
    console.print(table)
    for title, gain in _gains(numbers):
        shown = ", ".join(f"{TITLES[name]} {points(gain[name])}" for name in names)
        console.print(f"{title}: {shown}", highlight=False, markup=False)


def significant(gain: Mapping[str, float]) -> bool:
    """Whether the interval of a gain leaves 0 out."""
    return gain["low"] > 0 or gain["high"] < 0


def _names(numbers: Numbers) -> list[str]:
    """The metrics of the table, in the order of `TITLES`."""
    first = next(iter(numbers["rows"].values()))
    return [name for name in TITLES if name in first["test"]]


def _gains(numbers: Numbers) -> list[tuple[str, Mapping[str, Any]]]:
    return [(f"{key} minus {base}", gain) for key, row in numbers["rows"].items() for base, gain in row["gain"].items()]


def _mean(row: Mapping[str, Any], name: str) -> str:
    spread = f" ± {100 * row['sd'][name]:.1f}" if name in row["sd"] else ""
    return f"{100 * row['test'][name]['value']:.1f}{spread}"


def _with_interval(row: Mapping[str, Any], name: str) -> str:
    found = row["test"][name]
    return f"{_mean(row, name)} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"


def _marked(gain: Mapping[str, float]) -> str:
    return f"**{points(dict(gain))}**" if significant(gain) else points(dict(gain))
