"""What a trained run says: its numbers, for the terminal and as Markdown."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from mi2p_inject.recipes.training.saved import SavedRun

__all__ = ["TITLES", "points", "print_evaluation", "print_run", "run_markdown", "shown"]

TITLES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "weighted_f1": "weighted-F1",
    "micro_f1": "micro-F1",
    "samples_f1": "samples-F1",
}


def shown(interval: dict[str, float]) -> str:
    """A metric with its interval, in percent."""
    return f"{100 * interval['value']:.1f} [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"


def points(interval: dict[str, float]) -> str:
    """A difference with its interval, in points."""
    return f"{100 * interval['value']:+.1f} [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"


def print_run(run: SavedRun, console: Console) -> None:
    """The metrics of the parts that were not trained on, and where they are."""
    for part in ("validation", "test"):
        if part in run.numbers:
            _print_metrics(console, f"{part}, % [95 % interval]", run.numbers[part])
    console.print(
        f"in {run.path}: metrics.json, history.json, predictions.safetensors", highlight=False, soft_wrap=True
    )


def print_evaluation(numbers: dict[str, Any], console: Console) -> None:
    """What `evaluate_run` gave."""
    for note in numbers["notes"]:
        console.print(f"note: {note}", highlight=False, markup=False)
    _print_metrics(console, f"{numbers['part']}, {numbers['samples']} samples, % [95 % interval]", numbers["metrics"])


def run_markdown(run: SavedRun) -> str:
    """Everything worth reading about a run."""
    numbers, config = run.numbers, run.config
    fused = f", {config.model.fusion} fusion" if len(config.model.backbones) > 1 else ""
    lines = [
        f"# {config.model.model}{fused}",
        "",
        f"{' + '.join(numbers['encoders'].values())}; {config.data.data}; seed {config.run.seed}.",
        f"{numbers['parameters']['pretrained']:,} pre-trained and {numbers['parameters']['new']:,} new parameters "
        f"trained, {numbers['seconds']:.0f} s, weights of step {numbers['best_step']} "
        f"(best {TITLES[numbers['selected_by']]}).",
        "",
    ]
    parts = [part for part in ("validation", "test") if part in numbers]
    if parts:
        names = [name for name in TITLES if name in numbers[parts[0]]]
        lines += [
            f"| part | samples | {' | '.join(TITLES[name] for name in names)} |",
            "|---|---|" + "---|" * len(names),
        ]
        for part in parts:
            cells = " | ".join(shown(numbers[part][name]) for name in names)
            lines.append(f"| {part} | {numbers['parts'][part]} | {cells} |")
        lines += ["", f"| class | F1 on {parts[-1]} |", "|---|---|"]
        scores = numbers[parts[-1]]["f1_of_classes"]
        lines += [f"| {name} | {100 * f1:.1f} |" for name, f1 in zip(run.classes, scores, strict=True)]
    changed = ", ".join(f"{name}={value}" for name, value in config.changed().items())
    lines += ["", f"Settings that differ from the defaults: {changed}", ""]
    return "\n".join([*lines, *(f"- {note}" for note in numbers["notes"])]) + "\n"


def _print_metrics(console: Console, title: str, metrics: dict[str, Any]) -> None:
    names = [name for name in TITLES if name in metrics]
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in names:
        table.add_column(TITLES[name], no_wrap=True)
    table.add_row(*(shown(metrics[name]) for name in names))
    console.print(table)
