"""The figure of a set: what each experiment scored, what it gained, and pictures that an expanded model gets right."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mi2p_inject.recipes.characters import as_written
from mi2p_inject.recipes.data import open_image
from mi2p_inject.recipes.experiments.results import Results

__all__ = ["draw_figure"]

_INK, _FAINT, _GRID_LINE = "#222222", "#8a8a8a", "#e6e6e6"
_PLAIN, _COMPARED, _UNSURE = "#5a5a5a", "#1b6ca8", "#b9c6d2"
_EXAMPLES = 8
_LINE, _HEAD, _PICTURES = 0.3, 1.5, 2.1  # inches
_WIDTH, _PANEL, _LETTER, _MOST_LETTERS = 11.0, 3.4, 0.072, 56


@as_written()
def draw_figure(
    numbers: Mapping[str, Any], file: Path, results: Results | None = None, examples: str = "", *, ending: str = ".png"
) -> None:
    """Draw and save.

    Args:
        numbers: a set's metrics.json.
        file: to write.
        results: the predictions and pictures, for examples.
        examples: the experiment whose corrected errors are shown; "" for none.
        ending: .png, .pdf or .svg.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metric, info = next(iter(numbers["metrics"].items()))
    gains = _gains(numbers)
    base = next(iter(numbers["experiments"].get(examples, {}).get("gain", {})), "")
    pictures = _PICTURES if results is not None and base else 0.0
    lines = max(len(numbers["experiments"]), len(gains))
    height = _HEAD + _LINE * lines + pictures
    left, middle = (_room(names) for names in (numbers["experiments"], gains))  # for names, in inches
    width = max(_WIDTH, left + middle + 2 * _PANEL + 0.3)
    panel = (width - left - middle - 0.3) / 2
    figure = Figure(figsize=(width, height), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    bottom, tall = (0.95 + pictures) / height, (height - 1.4 - pictures) / height
    scale, unit = (100, ", %") if info["percent"] else (1, "")
    axes = figure.add_axes((left / width, bottom, panel / width, tall))
    _draw_results(axes, numbers, metric, scale, f"test {info['title']}{unit}")
    if gains:
        points = ", points" if info["percent"] else ""
        axes = figure.add_axes(((left + panel + middle) / width, bottom, panel / width, tall))
        _draw_gains(axes, gains, metric, scale, f"difference in {info['title']}{points}")
    if results is not None and base:
        _draw_examples(figure, results, examples, base, top=(pictures + 0.25) / height, height=height)
    figure.text(0.985, 0.12 / height, _note(numbers), ha="right", va="bottom", fontsize=7.5, color=_FAINT)
    figure.savefig(file, format=ending[1:].lower())


def _room(names: Collection[str]) -> float:
    return 0.3 + _LETTER * min(max(map(len, names), default=0), _MOST_LETTERS)


def _gains(numbers: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {
        f"{name} minus {base}": gain["test"]
        for name, line in numbers["experiments"].items()
        for base, gain in line["gain"].items()
    }


def _note(numbers: Mapping[str, Any]) -> str:
    smoke = "SMOKE RUN, the numbers mean nothing. " if numbers["smoke"] else ""
    seeds = numbers["seeds"]
    mean = f"mean of seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]}"
    if any(line["seeds"] != seeds for line in numbers["experiments"].values()):
        mean = "mean of each line's own seeds"
    source = " ".join(note for note in numbers["notes"] if note.startswith("Pictures: ")).partition(". ")[0]
    shown = f" {source}." if source else ""
    return f"{smoke}{numbers['data']['name']}, {numbers['data']['splits']['test']} test samples, {mean}.{shown}"


def _draw_results(axes: Any, numbers: Mapping[str, Any], metric: str, scale: int, label: str) -> None:
    lines = numbers["experiments"]
    digits = 1 if scale == 100 else 3
    for place, line in enumerate(lines.values()):
        found, compared = line["test"][metric], bool(line["gain"])
        colour = _COMPARED if compared else _PLAIN
        axes.plot([scale * found["low"], scale * found["high"]], [-place] * 2, color=colour, lw=2)
        axes.plot(
            scale * found["value"],
            -place,
            "o",
            ms=7,
            mfc=colour if compared else "white",
            mec=colour,
            mew=1.6,
            zorder=3,
        )
        _write_value(axes, f"{scale * found['value']:.{digits}f}", scale * found["high"], place)
    axes.margins(x=0.15)
    _style(axes, list(lines), label, "What was tested (filled: compared with another)")


def _draw_gains(axes: Any, gains: Mapping[str, Mapping[str, Any]], metric: str, scale: int, label: str) -> None:
    axes.axvline(0, color=_FAINT, lw=1)
    digits = 1 if scale == 100 else 3
    for place, gain in enumerate(gains.values()):
        one = gain[metric]
        colour = _COMPARED if one["low"] > 0 or one["high"] < 0 else _UNSURE
        axes.plot([scale * one["low"], scale * one["high"]], [-place] * 2, color=colour, lw=2)
        axes.plot(scale * one["value"], -place, "o", ms=6, color=colour, zorder=3)
        _write_value(axes, f"{scale * one['value']:+.{digits}f}", scale * one["high"], place)
    axes.margins(x=0.15)
    _style(axes, list(gains), label, "Paired differences (pale: the interval holds 0)")


def _write_value(axes: Any, text: str, end: float, place: int) -> None:
    """A figure in the lane of a line, to the right of its interval."""
    where = {"xytext": (5, 0), "textcoords": "offset points", "va": "center"}
    axes.annotate(text, (end, -place), **where, fontsize=8, color=_INK)


def _style(axes: Any, names: list[str], label: str, title: str) -> None:
    shown = [name if len(name) <= _MOST_LETTERS else f"…{name[1 - _MOST_LETTERS :]}" for name in names]
    axes.set_yticks([-place for place in range(len(names))], shown, fontsize=9)
    axes.set_ylim(-len(names) + 0.4, 0.6)
    axes.set_xlabel(f"{label}; bars: 95 % interval", fontsize=8.5, color=_INK)
    axes.set_title(title, loc="left", fontsize=10, color=_INK)
    axes.grid(axis="x", color=_GRID_LINE, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=8.5)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _draw_examples(figure: Any, results: Results, name: str, base: str, *, top: float, height: float) -> None:
    """Test samples of the first seed that the base gets wrong and the experiment right, one a group."""
    seed = min(set(results.outcomes[name]) & set(results.outcomes[base]))
    samples = results.samples
    alone, expanded = (results.outcomes[one][seed].decided("test") for one in (base, name))
    right = [(answers == results.true).reshape(len(answers), -1).all(axis=1) for answers in (alone, expanded)]
    fixed, broken = np.flatnonzero(~right[0] & right[1]), np.flatnonzero(right[0] & ~right[1])
    rows = samples.splits["test"]
    groups = np.asarray(rows["group"][:], dtype=str)
    single = [
        row for row in fixed[np.unique(groups[fixed], return_index=True)[1]] if rows[int(row)]["image"] is not None
    ]
    chosen = np.sort(np.random.default_rng(0).permutation(single)[:_EXAMPLES]).astype(int)
    title = f"{name} corrects {len(fixed)} of {base}'s errors and adds {len(broken)} (seed {seed})"
    figure.text(0.02, top, title + (f"; {len(chosen)} of the {len(fixed)}:" if len(chosen) else ""), fontsize=10)
    grid = figure.add_gridspec(
        1, _EXAMPLES, left=0.02, right=0.98, top=top - 0.1 / height, bottom=0.85 / height, wspace=0.12
    )
    for slot, place in enumerate(chosen):
        _draw_example(figure.add_subplot(grid[slot]), samples.classes, rows[int(place)], alone[place], expanded[place])


def _draw_example(axes: Any, classes: tuple[str, ...], row: Mapping[str, Any], alone: Any, expanded: Any) -> None:
    image = row["image"]
    axes.set_axis_off()
    axes.imshow(image if isinstance(image, Image.Image) else open_image(image))
    lines = (
        (f"“{_short(row['text'] or '')}”", _INK),
        (_short(_named(classes, alone)), "#b03030"),
        (f"→ {_short(_named(classes, expanded))}", "#1e7a3c"),
    )
    for number, (text, colour) in enumerate(lines):
        axes.annotate(
            text,
            (0.5, 0),
            xycoords="axes fraction",
            xytext=(0, -4 - 11 * number),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=7,
            color=colour,
        )


def _named(classes: tuple[str, ...], answer: Any) -> str:
    """The class, or the classes of a sample that has several."""
    if np.ndim(answer) == 0:
        return classes[int(answer)]
    return ", ".join(name for name, yes in zip(classes, answer, strict=True) if yes) or "none"


def _short(text: str) -> str:
    return textwrap.shorten(text, 22, placeholder="…")
