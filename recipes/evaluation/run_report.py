"""What a trained run says: its numbers, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from mi2p_inject.recipes.evaluation.metric_info import METRIC_INFO, MetricInfo
from mi2p_inject.recipes.saving.saved import SavedRun
from mi2p_inject.recipes.tasks import Task

__all__ = ["print_evaluation", "print_run", "run_markdown", "shown", "title"]


def title(metric: str) -> str:
    """How a metric is called in reports."""
    return METRIC_INFO.get(metric, MetricInfo(metric)).title


def shown(interval: dict[str, float]) -> str:
    """A metric with its interval, in percent."""
    return f"{100 * interval['value']:.1f} [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"


def print_run(run: SavedRun, console: Console) -> None:
    """The metrics of the splits that were not trained on, the trivial baseline, and where they are."""
    for split in ("validation", "test"):
        if split in run.numbers:
            _print_metrics(console, f"{split}, % [95 % interval]", run.numbers[split], run.task)
    always = run.numbers["baseline"]
    for split in ("test", "validation"):
        if split in always:
            scores = ", ".join(f"{title(name)} {_percent(value)}" for name, value in always[split].items())
            console.print(f"{split}, always {always['answer']}: {scores}", highlight=False, markup=False)
            break
    console.print(
        f"in {run.path}: metrics.json, history.json, predictions.safetensors", highlight=False, soft_wrap=True
    )


def print_evaluation(numbers: dict[str, Any], task: Task, console: Console) -> None:
    """What `evaluate_run` gave.

    Args:
        numbers: of `evaluate_run`.
        task: what was learned.
        console: where to print.
    """
    for note in numbers["notes"]:
        console.print(f"note: {note}", highlight=False, markup=False)
    heading = f"{numbers['split']}, {numbers['samples']} samples, % [95 % interval]"
    _print_metrics(console, heading, numbers["metrics"], task)


def run_markdown(run: SavedRun) -> str:
    """Everything worth reading about a run."""
    numbers, config = run.numbers, run.config
    lines = [
        f"# {config.model.system.describe(config.model)}",
        "",
        f"{' + '.join(numbers['encoders'].values())}; {config.data.data}; seed {config.run.seed}.",
        f"{numbers['parameters']['pretrained']:,} pre-trained and {numbers['parameters']['new']:,} new parameters "
        f"trained, {numbers['seconds']:.0f} s, weights of step {numbers['best_step']} "
        f"(best {title(numbers['selected_by'])}).",
        "",
    ]
    lines += _score_lines(run)
    changed = ", ".join(f"{name}={value}" for name, value in config.changed().items())
    lines += ["", f"Settings that differ from the defaults: {changed}", ""]
    return "\n".join([*lines, *(f"- {note}" for note in numbers["notes"])]) + "\n"


def _score_lines(run: SavedRun) -> list[str]:
    """The table of splits with the trivial baseline below, and the F1 of each class."""
    numbers, names = run.numbers, run.task.metrics
    splits = [split for split in ("validation", "test") if split in numbers]
    if not splits:
        return []
    always, last = numbers["baseline"], splits[-1]
    lines = [
        f"| split | samples | {' | '.join(title(name) for name in names)} |",
        "|---|---|" + "---|" * len(names),
        *(f"| {one} | {numbers['splits'][one]} | {_cells(names, numbers[one], shown)} |" for one in splits),
        f"| {last}, always {always['answer']} | {numbers['splits'][last]} | {_cells(names, always[last], _percent)} |",
    ]
    if numbers[last]["f1_of_classes"]:
        lines += ["", f"| class | F1 on {last} |", "|---|---|"]
        lines += [f"| {name} | {_percent(f1)} |" for name, f1 in numbers[last]["f1_of_classes"].items()]
    return lines


def _cells(names: Sequence[str], values: Mapping[str, Any], written: Callable[[Any], str]) -> str:
    return " | ".join(written(values[name]) for name in names)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _print_metrics(console: Console, heading: str, metrics: Mapping[str, Any], task: Task) -> None:
    table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD)
    for name in task.metrics:
        table.add_column(title(name), no_wrap=True)
    table.add_row(*(shown(metrics[name]) for name in task.metrics))
    console.print(table)
