"""The figure of an explanation."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mi2p_inject.recipes.explain.result import BranchExplanation, Explanation

__all__ = ["draw_explanation"]

Floats = NDArray[np.float64]
_INK, _FAINT, _FOR, _AGAINST, _READ = "#222222", "#777777", "#1b6ca8", "#b5452c", "#b9c6d2"
_COLUMNS, _MOST_WORDS, _CELL = 6, 12, 1.9  # pictures in a row, words that are shown, inches of a picture
_TITLE = {"image": "The picture model reads the text", "text": "The text model reads the picture"}


def draw_explanation(explanation: Explanation) -> Any:
    """A `matplotlib.figure.Figure`: a block for each expanded model."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    blocks = [_rows(branch) for branch in explanation.branches]
    inches = [[0.55, *(2.5 if row == "overview" else _CELL + 0.55 for row, _ in rows)] for rows in blocks]
    heights = [one for block in inches for one in block]
    head = 0.85
    total = sum(heights) + head + 0.2
    figure = Figure(figsize=(_COLUMNS * _CELL, total), dpi=130, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(heights), 12, height_ratios=heights, top=1 - head / total, bottom=0.15 / total, left=0.02, right=0.985,
        hspace=0.0, wspace=0.12,
    )  # fmt: skip
    _head(figure, explanation, total)
    line = 0
    for branch, rows in zip(explanation.branches, blocks, strict=True):
        _block_title(figure.add_subplot(grid[line, :]), branch)
        line += 1
        for row, chosen in rows:
            if row == "overview":
                _overview(figure, grid, line, explanation, branch)
            elif row == "groups":
                _groups(figure, grid, line, explanation, branch)
            else:
                _words(figure, grid, line, explanation, branch, chosen)
            line += 1
    return figure


def _rows(branch: BranchExplanation) -> list[tuple[str, list[int]]]:
    rows: list[tuple[str, list[int]]] = [("overview", [])]
    if branch.groups:
        rows.append(("groups", []))
    if branch.word_maps is not None:
        words = _shown_words(branch, len(branch.word_maps))
        rows += [("words", words[start : start + _COLUMNS]) for start in range(0, len(words), _COLUMNS)]
    return rows


def _shown_words(branch: BranchExplanation, count: int) -> list[int]:
    """The words of the most evidence, in their order."""
    weight = np.abs(branch.word_evidence) if branch.word_evidence is not None else np.zeros(count)
    return sorted(np.argsort(-weight, kind="stable")[:_MOST_WORDS].tolist())


def _head(figure: Any, explanation: Explanation, total: float) -> None:
    probability = explanation.probabilities[explanation.target]
    parts = [f"without the {name}: {_percent(one)}" for name, one in explanation.without.items()]
    figure.text(
        0.02, 1 - 0.28 / total, f"{explanation.target}: {_percent(probability)}", fontsize=14, color=_INK, weight="bold"
    )  # fmt: skip
    figure.text(0.985, 1 - 0.28 / total, ",  ".join(parts), fontsize=9, color=_FAINT, ha="right")
    text = textwrap.shorten(" ".join(explanation.words), 120, placeholder=" …")
    figure.text(0.02, 1 - 0.56 / total, f"“{text}”", fontsize=10.5, color=_INK, style="italic")


def _block_title(axes: Any, branch: BranchExplanation) -> None:
    axes.axis("off")
    axes.plot([0, 1], [0.98, 0.98], transform=axes.transAxes, color="#dddddd", lw=1)
    axes.text(0, 0.3, _TITLE[branch.modality], fontsize=11, weight="bold", color=_INK, transform=axes.transAxes)
    said = f"{branch.unit} units without attention"
    if branch.spread is not None:
        said = f"{branch.unit}, site {branch.site}: attention is spread over {branch.spread:,.0f} of {branch.keys:,} "
        said += "tokens" if branch.modality == "image" else "pixels" if "cross" in branch.unit else "channels"
        said += ", a head and query, on average"
    axes.text(1, 0.3, said, fontsize=8.5, color=_FAINT, ha="right", transform=axes.transAxes)


def _overview(figure: Any, grid: Any, line: int, explanation: Explanation, branch: BranchExplanation) -> None:
    axes = figure.add_subplot(grid[line, 0:3])
    _picture(axes, explanation, None, "the picture, as the model sees it")
    axes = figure.add_subplot(grid[line, 3:6])
    if branch.evidence_map is not None:
        _evidence(figure, axes, explanation, branch)
    else:
        axes.axis("off")
    if branch.word_evidence is not None:
        _bars(figure.add_subplot(grid[line, 8:12]), explanation, branch)


def _evidence(figure: Any, axes: Any, explanation: Explanation, branch: BranchExplanation) -> None:
    found = np.asarray(branch.evidence_map)
    largest = float(np.abs(found).max()) or 1.0
    shown = _picture(axes, explanation, found, "evidence by place", signed=True, largest=largest)
    bar = figure.colorbar(shown, ax=axes, fraction=0.045, pad=0.03, ticks=[-largest, 0, largest])
    bar.ax.set_yticklabels([f"−{largest:.2g}", "0", f"+{largest:.2g}"], fontsize=7, color=_FAINT)
    bar.outline.set_visible(False)


def _bars(axes: Any, explanation: Explanation, branch: BranchExplanation) -> None:
    evidence = np.asarray(branch.word_evidence)
    chosen = _shown_words(branch, len(evidence))
    names = [_short(explanation.words[one], 16) for one in chosen] + ["other tokens"]
    values = [*evidence[chosen], branch.rest_evidence + float(np.delete(evidence, chosen).sum())]
    places = -np.arange(len(values))
    axes.barh(places, values, height=0.62, color=[_FOR if one >= 0 else _AGAINST for one in values])
    axes.axvline(0, color=_FAINT, lw=0.8)
    if branch.word_attention is not None:
        others = branch.rest_attention + float(np.delete(branch.word_attention, chosen).sum())
        shares = [*branch.word_attention[chosen], others]
        names = [f"{name}  ({_percent(share)} read)" for name, share in zip(names, shares, strict=True)]
    axes.set_yticks(places, names, fontsize=8, color=_INK)
    axes.tick_params(axis="x", labelsize=7, colors=_FAINT)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    what = "what each word takes from the picture" if branch.modality == "text" else "what is taken from each word"
    axes.set_title(f"evidence for {_short(explanation.target, 24)}, logits: {what}", fontsize=8.5, color=_INK, loc="right")
    axes.margins(y=0.02)


def _groups(figure: Any, grid: Any, line: int, explanation: Explanation, branch: BranchExplanation) -> None:
    for place, group in enumerate(branch.groups[:4]):
        axes = figure.add_subplot(grid[line, 3 * place : 3 * place + 3])
        best = np.argsort(-group.words)[:3]
        words = ", ".join(f"{_short(explanation.words[one], 12)} {_percent(group.words[one])}" for one in best)
        title = f"{group.channels} channels read\n{words}\nother tokens {_percent(group.rest)}"
        _picture(axes, explanation, group.map, title)


def _words(
    figure: Any, grid: Any, line: int, explanation: Explanation, branch: BranchExplanation, chosen: list[int]
) -> None:
    maps = np.asarray(branch.word_maps)
    largest = float(maps.max()) or 1.0
    for place, word in enumerate(chosen):
        axes = figure.add_subplot(grid[line, 2 * place : 2 * place + 2])
        _picture(axes, explanation, maps[word], _short(explanation.words[word], 18), largest=largest)


def _picture(
    axes: Any,
    explanation: Explanation,
    heat: Floats | None,
    title: str,
    *,
    signed: bool = False,
    largest: float | None = None,
) -> Any:
    """The picture, and over its grey form a heat map stretched to its size."""
    height, width = explanation.image.shape[:2]
    extent = (0, width, height, 0)
    axes.set_title(title, fontsize=8.5, color=_INK)
    axes.axis("off")
    if heat is None:
        return axes.imshow(explanation.image, extent=extent)
    grey = explanation.image.mean(2)
    axes.imshow(grey, extent=extent, cmap="gray", vmin=-60, vmax=255)
    top = (float(np.abs(heat).max()) or 1.0) if largest is None else largest
    look: dict[str, Any] = {"cmap": "RdBu", "vmin": -top, "vmax": top} if signed else {"cmap": "inferno", "vmin": 0}
    if not signed:
        look["vmax"] = top
    return axes.imshow(heat, extent=extent, interpolation="bicubic", alpha=0.55, **look)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
