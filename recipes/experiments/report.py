"""A set's numbers, as metrics.json holds them, as Markdown and on the screen; nothing else is looked up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mi2p_inject.core.human import printable
from mi2p_inject.recipes.characters import in_markdown
from mi2p_inject.recipes.experiments.picked import picking_metrics
from mi2p_inject.recipes.metrics.metric_info import info_of

__all__ = ["Gain", "gains_of", "markdown", "marked_gain", "show", "shown_gain", "significant"]

Numbers = Mapping[str, Any]
Gain = tuple[str, str, Mapping[str, Any]]
"""(experiment, what it is compared with, the paired difference)"""

_DOWN = " ↓"


def markdown(numbers: Numbers) -> str:
    """Lines, gains, and how to read them.

    Args:
        numbers: a set's metrics.json.
    """
    lines, metrics = numbers["experiments"], numbers["metrics"]
    paper = [name for name in metrics if any(name in line["paper"] for line in lines.values())]
    named = any(line["paper_title"] for line in lines.values())
    heads = ["experiment", "system", *map(_head, metrics.values())]
    chosen = [name for name in picking_metrics(metrics) if any(name in line["validation"] for line in lines.values())]
    heads += [f"{_head(metrics[name])} on validation" for name in chosen]
    heads += [*(["paper's line"] if named else []), *(f"paper's {metrics[name]['title']}" for name in paper)]
    apart = _differ_in_seeds(numbers)
    text = _table([*heads, "seeds"] if apart else heads)
    for name, line in lines.items():
        cells = [
            in_markdown(name),
            in_markdown(line["title"]),
            *(_with_interval(line, one, info) for one, info in metrics.items()),
            *(_on_validation(line, one, metrics[one]) for one in chosen),
        ]
        cells += [*([line["paper_title"]] if named else []), *(str(line["paper"].get(one, "")) for one in paper)]
        text.append(_cells([*cells, _listed(line["seeds"])] if apart else cells))
    text += _baseline(numbers, len(heads) + apart)
    gains = list(gains_of(numbers))
    if gains:
        text += ["", *_table(["difference", *map(_head, metrics.values()), *(["seeds"] if apart else [])])]
    for name, base, gain in gains:
        cells = [marked_gain(gain["test"][one], info) for one, info in metrics.items()]
        cells += [_listed(gain["seeds"])] if apart else []
        text.append(_cells([in_markdown(f"{name} minus {base}"), *cells]))
    if read := _reading(numbers):
        text += ["", *_table(read[0]), *map(_cells, read[1:])]
    return "\n".join([*text, "", *(f"{in_markdown(note)}\n" for note in _notes(numbers, paper))])


def show(numbers: Numbers, console: Console) -> None:
    """The same, short, for a terminal: as many metrics as it has room for."""
    lines, metrics = numbers["experiments"], numbers["metrics"]
    many = len(numbers["seeds"]) > 1
    cell = _mean if many else _with_interval
    beside = " (the paper's)" if any(line["paper"] for line in lines.values()) else ""
    heading = f"{numbers['title']}. Test, {'mean ± sd over seeds' if many else '[95 % interval]'}{beside}"

    def shown(line: Mapping[str, Any], name: str, info: Mapping[str, Any]) -> str:
        return cell(line, name, info) + (f" ({line['paper'][name]})" if name in line["paper"] else "")

    apart = _differ_in_seeds(numbers)

    def with_seeds(name: str, of: Mapping[str, Any]) -> str:
        return f"{name} (seed{'s' if len(of['seeds']) > 1 else ''} {_listed(of['seeds'])})" if apart else name

    results = {with_seeds(name, line): [shown(line, *one) for one in metrics.items()] for name, line in lines.items()}
    gains = {
        with_seeds(f"{name} minus {base}", gain): [shown_gain(gain["test"][one], info) for one, info in metrics.items()]
        for name, base, gain in gains_of(numbers)
    }
    heads = [_head(info) for info in metrics.values()]
    _print(console, heading, ["experiment", *heads], results)
    _print(console, "Differences, in points [95 % interval, paired]", ["difference", *heads], gains)
    if read := _reading(numbers):
        _print(console, "Reading check", [read[0][0], read[0][-1]], {line[0]: [line[-1]] for line in read[1:]})
    for note in _notes(numbers, []):
        console.print(printable(note), highlight=False, markup=False)


def gains_of(numbers: Numbers) -> Iterator[Gain]:
    """Every paired difference, in the order of the lines."""
    for name, line in numbers["experiments"].items():
        for base, gain in line["gain"].items():
            yield name, base, gain


def significant(gain: Mapping[str, float]) -> bool:
    """Whether the interval of a difference leaves 0 out."""
    return gain["low"] > 0 or gain["high"] < 0


def shown_gain(gain: Mapping[str, float], info: Mapping[str, Any]) -> str:
    """A difference with its interval, in points where the metric is a share.

    Examples:
        >>> shown_gain({"value": 0.029, "low": 0.012, "high": 0.045}, {"percent": True})
        '+2.9 [1.2, 4.5]'
    """
    scale, digits = _scale(info)
    value, low, high = (scale * gain[name] for name in ("value", "low", "high"))
    return f"{value:+.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _scale(info: Mapping[str, Any]) -> tuple[int, int]:
    """Factor and decimals."""
    return (100, 1) if info["percent"] else (1, 3)


def _head(info: Mapping[str, Any]) -> str:
    return str(info["title"]) + (_DOWN if info["lower_is_better"] else "")


def _mean(line: Mapping[str, Any], name: str, info: Mapping[str, Any]) -> str:
    scale, digits = _scale(info)
    spread = f" ± {scale * line['sd'][name]:.{digits}f}" if name in line["sd"] else ""
    return f"{scale * line['test'][name]['value']:.{digits}f}{spread}"


def _with_interval(line: Mapping[str, Any], name: str, info: Mapping[str, Any]) -> str:
    scale, digits = _scale(info)
    low, high = (scale * line["test"][name][end] for end in ("low", "high"))
    return f"{_mean(line, name, info)} [{low:.{digits}f}, {high:.{digits}f}]"


def _on_validation(line: Mapping[str, Any], name: str, info: Mapping[str, Any]) -> str:
    scale, digits = _scale(info)
    return f"{scale * line['validation'][name]:.{digits}f}" if name in line["validation"] else ""


def marked_gain(gain: Mapping[str, float], info: Mapping[str, Any]) -> str:
    """The same, in bold where it is `significant`."""
    return f"**{shown_gain(gain, info)}**" if significant(gain) else shown_gain(gain, info)


def _baseline(numbers: Numbers, columns: int) -> list[str]:
    """The line of the answer that needs no model."""
    baseline = numbers["baseline"]
    if baseline is None:
        return []
    found = [
        _with_interval({**baseline, "sd": {}}, name, info) if name in baseline["test"] else ""
        for name, info in numbers["metrics"].items()
    ]
    cells = ["trivial baseline", f"always {in_markdown(baseline['answer'])}", *found]
    return [_cells([*cells, *[""] * (columns - len(cells))])]


def _reading(numbers: Numbers) -> list[list[str]]:
    """The lines of the reading check, headings first; [] where no experiment has one."""
    lines = []
    for name, line in numbers["experiments"].items():
        for modality, one in line.get("reading", {}).items():
            values = [one["as_is"], one["withheld"], one["shuffled"]]
            shown = ["" if value is None else f"{100 * value:.1f}" for value in values]
            title = info_of(one["metric"]).title
            worth = f"{100 * one['worth']:+.1f}, interval above 0 with {one['above']} of {one['seeds']} seeds"
            lines.append([f"{name}: {modality}", title, *shown, worth])
    head = ["reading check, validation", "metric", "as is", "withheld", "another sample's", "worth, points"]
    return [head, *lines] if lines else []


def _never_answered(numbers: Numbers) -> Iterator[str]:
    """Which experiments never answer some classes that the test split has, with at least one seed."""
    lines = numbers["experiments"].items()
    found = [f"{name} ({', '.join(line['unanswered'])})" for name, line in lines if line.get("unanswered")]
    if found:
        yield f"Classes that are never answered on the test split, with at least one seed: {'; '.join(found)}."


def _over_baseline(numbers: Numbers) -> Iterator[str]:
    """What experiments are worth over the trivial baseline, and which do not surely beat it."""
    metric, info = next(iter(numbers["metrics"].items()))
    lines = numbers["experiments"].items()
    over = [
        f"{name} {shown_gain(line['over_baseline'][metric], info)}"
        for name, line in lines
        if metric in line["over_baseline"]
    ]
    if over:
        yield f"In {info['title']}, minus the trivial baseline: {', '.join(over)}."
    weak = [name for name, line in lines if line["over_baseline"].get(metric, {"low": 1})["low"] <= 0]
    if weak:
        yield (
            f"Not surely better in {info['title']} than always answering {numbers['baseline']['answer']}, by the "
            f"paired 95 % interval: {', '.join(weak)}."
        )
    unsure = [name for name, line in lines if line["over_baseline"].get("log_loss", {"high": -1})["high"] >= 0]
    if unsure:
        yield (
            "Not surely better in log-loss than the classes' shares in training, by the paired 95 % interval: "
            f"{', '.join(unsure)}."
        )
    if "log_loss" in (numbers["baseline"] or {"test": {}})["test"]:
        yield "The trivial baseline's probabilities are the classes' shares in training."


def _notes(numbers: Numbers, paper: list[str]) -> Iterator[str]:
    """How to read it."""
    data, seeds = numbers["data"], numbers["seeds"]
    if numbers["smoke"]:
        yield "SMOKE RUN: a few samples, one epoch; the numbers mean nothing."
    counts = " / ".join(f"{count} {split}" for split, count in data["splits"].items())
    yield (
        f"{numbers['title']}. On {data['name']}: {counts} samples, {len(data['classes'])} classes, {data['groups']} "
        f"groups; encoders: {numbers['encoders']}."
    )
    mean = f"Mean over seeds {_listed(seeds)} ± standard deviation" if len(seeds) > 1 else f"Seed {seeds[0]}"
    if _differ_in_seeds(numbers):
        mean = "Mean over each line's own seeds ± standard deviation, differences over the seeds that both lines have"
    lower = (
        f" Lower is better where{_DOWN} stands."
        if any(m["lower_is_better"] for m in numbers["metrics"].values())
        else ""
    )
    yield (
        f"{mean} [95 % bootstrap interval over groups of test samples]; differences are paired and, where they are "
        f"shares, in points; bold: the interval leaves 0 out.{lower}"
    )
    if paper:
        yield "The paper's lines and figures stand beside for comparison, in percent."
    yield from _over_baseline(numbers)
    yield from _never_answered(numbers)
    if any("random weights" in line["title"] for line in numbers["experiments"].values()):
        yield "Encoders with random weights are small stand-ins: their numbers say nothing about the real ones."
    yield from numbers["notes"]


def _print(console: Console, title: str, heads: Sequence[str], lines: Mapping[str, Sequence[str]]) -> None:
    """A table of the first columns, as many as the console has room for."""
    if not lines:
        return
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    room = console.width - 2
    for number, head in enumerate(heads):
        cells = list(lines) if number == 0 else [line[number - 1] for line in lines.values()]
        room -= max(map(len, [head, *cells])) + 3
        if room < 0 and number > 1:
            break
        table.add_column(head, no_wrap=True)
    for name, line in lines.items():
        table.add_row(*map(Text, [name, *line[: len(table.columns) - 1]]))  # not as rich's markup: "[kg]" is no style
    console.print(table)


def _table(heads: list[str]) -> list[str]:
    return [_cells(heads), "|---" * len(heads) + "|"]


def _cells(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _differ_in_seeds(numbers: Numbers) -> bool:
    return {tuple(line["seeds"]) for line in numbers["experiments"].values()} != {tuple(numbers["seeds"])}


def _listed(seeds: list[int]) -> str:
    return ", ".join(map(str, seeds))
