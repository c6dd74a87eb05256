"""What a trained run says: its numbers, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from mi2p_inject.core.human import printable
from mi2p_inject.recipes.characters import in_markdown, print_notes
from mi2p_inject.recipes.data.tables.in_memory import called
from mi2p_inject.recipes.metrics.metric_info import info_of, metrics_of
from mi2p_inject.recipes.saving.saved import SavedRun

__all__ = ["number", "print_evaluation", "print_run", "reads", "run_markdown", "shown", "title"]


def title(metric: str) -> str:
    """How a metric is called in reports."""
    return info_of(metric).title


def number(metric: str, value: float) -> str:
    """A value of a metric, in percent where it is a share."""
    return f"{100 * value:.1f}" if info_of(metric).percent else f"{value:.3f}"


def shown(metric: str, interval: Mapping[str, float]) -> str:
    """A metric with its interval, in percent where it is a share.

    Examples:
        >>> shown("log_loss", {"value": 0.25, "low": 0.2, "high": 0.3})
        '0.250 [0.200, 0.300]'
    """
    value, low, high = (number(metric, interval[end]) for end in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def reads(run: SavedRun) -> str:
    """What a run reads: its encoders, and the columns of a table.

    Args:
        run: a finished one.
    """
    names = run.config.data.column_names
    columns = (f"columns {', '.join(names)}",) if names else ()
    return "; ".join((" + ".join(run.numbers["encoders"].values()), *columns))


def print_run(run: SavedRun, console: Console) -> None:
    """The metrics of the splits that were not trained on, the trivial baseline, and where they are."""
    for split in ("validation", "test"):
        if split in run.numbers:
            _print_metrics(console, f"{split}, shares in % [95 % interval]", run.numbers[split])
    always = run.numbers["baseline"]
    for split in ("test", "validation"):
        if split in always:
            scores = ", ".join(f"{title(name)} {number(name, value)}" for name, value in always[split].items())
            console.print(printable(f"{split}, always {always['answer']}: {scores}"), highlight=False, markup=False)
            break
    for line in (*_decided_by(run), *run.numbers.get("remarks", [])):
        console.print(printable(line), highlight=False, markup=False)
    console.print(
        f"in {run.path}: metrics.json, history.json, predictions.safetensors",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def print_evaluation(numbers: dict[str, Any], console: Console) -> None:
    """What `evaluate_run` gave.

    Args:
        numbers: of `evaluate_run`.
        console: where to print.
    """
    print_notes(numbers["notes"], console)
    heading = f"{numbers['split']}, {numbers['samples']} samples, shares in % [95 % interval]"
    _print_metrics(console, heading, numbers["metrics"])


def run_markdown(run: SavedRun) -> str:
    """Everything worth reading about a run."""
    numbers, config = run.numbers, run.config
    lines = [
        f"# {config.model.system.describe(config.model)}",
        "",
        f"{in_markdown(reads(run))}; {in_markdown(called(Path(config.data.data)))}; seed {config.run.seed}.",
        f"{numbers['parameters']['pretrained']:,} pre-trained and {numbers['parameters']['new']:,} new parameters "
        f"trained, {numbers['seconds']:.0f} s, weights of step {numbers['best_step']} "
        f"({_chosen(numbers)}).",
        "",
    ]
    lines += _score_lines(run)
    for line in (*_decided_by(run), *numbers.get("remarks", [])):
        lines += ["", f"{in_markdown(line[0].upper() + line[1:])}."]
    changed = ", ".join(f"{name}={value}" for name, value in config.changed().items())
    lines += ["", f"Settings that differ from the defaults: {in_markdown(changed)}", ""]
    return "\n".join([*lines, *(f"- {in_markdown(note)}" for note in numbers["notes"])]) + "\n"


def _chosen(numbers: Mapping[str, Any]) -> str:
    """Why the weights are those of that step."""
    if "validation" in numbers:
        return f"best {title(numbers['selected_by'])}"
    return "the last: there is no validation split"


def _score_lines(run: SavedRun) -> list[str]:
    """The table of splits with the trivial baseline below, and the F1 of each class."""
    numbers = run.numbers
    splits = [split for split in ("validation", "test") if split in numbers]
    if not splits:
        return []
    always, last = numbers["baseline"], splits[-1]
    answer = in_markdown(always["answer"])
    names = metrics_of(numbers[last])
    lines = [
        f"| split | samples | {' | '.join(title(name) for name in names)} |",
        "|---|---|" + "---|" * len(names),
        *(f"| {one} | {numbers['splits'][one]} | {_cells(names, numbers[one], shown)} |" for one in splits),
        f"| {last}, always {answer} | {numbers['splits'][last]} | {_cells(names, always[last], number)} |",
    ]
    if of_classes := numbers[last]["f1_of_classes"]:
        lines += ["", f"| class | F1 on {last} |", "|---|---|"]
        lines += [f"| {in_markdown(name)} | {100 * f1:.1f} |" for name, f1 in of_classes.items()]
        nowhere = [name for name in numbers["classes"] if name not in of_classes]
        lines += [f"| {in_markdown(name)} | \N{EN DASH} (no samples, no answers) |" for name in nowhere]
    return lines


def _decided_by(run: SavedRun) -> list[str]:
    """Thresholds and temperature, where there are any."""
    found = []
    if thresholds := run.task.shown_decision(run.decision).get("thresholds"):
        common = run.decision.get("common_threshold")
        own = [f"{name} {at:.3f}" for name, at in thresholds.items() if common is None or abs(at - common) > 1e-6]
        every = [] if common is None else [f"{common:.3f} for all classes" + (" but" if own else "")]
        found.append(f"thresholds: {' '.join([*every, ', '.join(own)]).strip()}")
    if "temperature" in run.decision:
        found.append(f"temperature: {run.decision['temperature']:.3f}, fitted on the validation split")
    return found


def _cells(names: Sequence[str], values: Mapping[str, Any], written: Callable[[str, Any], str]) -> str:
    return " | ".join(written(name, values[name]) if name in values else "" for name in names)


def _print_metrics(console: Console, heading: str, metrics: Mapping[str, Any]) -> None:
    table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD)
    names = metrics_of(metrics)
    for name in names:
        table.add_column(title(name))
    table.add_row(*(shown(name, metrics[name]) for name in names))
    console.print(table)
