"""What a run says: one table, one metrics file, one figure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from mi2p_inject.recipes.data import Samples
from mi2p_inject.recipes.data.formats.openmoji import ATTRIBUTION, LICENCE
from mi2p_inject.recipes.evaluation.metrics import METRICS, Interval, bootstrap_difference, bootstrap_metrics
from mi2p_inject.recipes.experiments.demo_experiment import PAIRS, ROWS
from mi2p_inject.recipes.experiments.figure import draw_figure
from mi2p_inject.recipes.training.run_folder import FINISHED, RunFolder

__all__ = ["PARTS", "Report", "write_report"]

#: not trained on
PARTS = ("validation", "test")
_TITLES = {"accuracy": "accuracy", "macro_f1": "macro-F1", "weighted_f1": "weighted-F1"}
_TITLE_OF_ROW = {row.name: row.title for row in ROWS}


@dataclass(frozen=True)
class Report:
    """Everything measured.

    Attributes:
        samples: the data.
        seed, smoke: the run's options.
        predictions: row -> part -> (n,) predicted class.
        trained: row -> what its training noted (seconds, parameters, schedule).
        versions: package -> version.
        seconds: this run took; a run that went on with an earlier one counts its own part only.
    """

    samples: Samples
    seed: int
    smoke: bool
    predictions: dict[str, dict[str, NDArray[np.int64]]]
    trained: dict[str, dict[str, Any]]
    versions: dict[str, str]
    seconds: float

    @property
    def true(self) -> NDArray[np.int64]:
        """(n,) the test part's labels."""
        return self.samples.targets("test")

    @property
    def groups(self) -> NDArray[np.int64]:
        """(n,) the test part's groups."""
        return np.unique(np.asarray(self.samples.splits["test"]["group"][:], dtype=str), return_inverse=True)[1]

    def tested(self, row: str) -> dict[str, Interval]:
        """A row's test metrics."""
        predicted = self.predictions[row]["test"]
        return bootstrap_metrics(self.true, predicted, self.groups, len(self.samples.classes), seed=self.seed)

    def gained(self, row: str) -> dict[str, Interval]:
        """An expanded row's test metrics minus those of its unimodal row, paired."""
        first, second = (self.predictions[name]["test"] for name in (row, PAIRS[row]))
        return bootstrap_difference(self.true, first, second, self.groups, len(self.samples.classes), seed=self.seed)


def write_report(report: Report, folder: RunFolder, console: Console) -> None:
    """Write figure.png, table.md and, last, metrics.json; print the table."""
    tested = {row.name: report.tested(row.name) for row in ROWS}
    gained = {name: report.gained(name) for name in PAIRS}
    folder.write("figure.png", lambda file: draw_figure(report, tested, gained, file))
    folder.write("table.md", lambda file: file.write_text(_markdown(report, tested, gained), encoding="utf-8"))
    folder.write_json(FINISHED, _numbers(report, tested, gained))
    _print(report, tested, gained, console)
    console.print(f"written: {folder.path}/table.md, figure.png, metrics.json, rows/", highlight=False, soft_wrap=True)


def _notes(report: Report) -> list[str]:
    counts = " / ".join(str(len(rows)) for rows in report.samples.splits.values())
    notes = [
        f"{counts} train / validation / test, {len(report.samples.classes)} topics, seed {report.seed}; left out: bare "
        "skin tones and all skin-tone variants.",
        "Variants of one picture (gender, hair, direction, families, clock times, identical flags) stay in one part: "
        f"{_groups(report)} groups. [low, high]: 95 % bootstrap over groups.",
        ATTRIBUTION,
    ]
    return ["SMOKE RUN: a few samples, one epoch; the numbers mean nothing.", *notes] if report.smoke else notes


def _markdown(report: Report, tested: dict[str, dict[str, Interval]], gained: dict[str, dict[str, Interval]]) -> str:
    titles = [_TITLES[name] for name in METRICS]
    lines = [f"| row | what | {' | '.join(titles)} |", "|---|---|" + "---|" * len(titles)]
    for row, metrics in tested.items():
        lines.append(f"| {row} | {_TITLE_OF_ROW[row]} | {' | '.join(_percent(metrics[name]) for name in METRICS)} |")
    lines += ["", f"| gain, in points | {' | '.join(titles)} |", "|---|" + "---|" * len(titles)]
    for row, metrics in gained.items():
        lines.append(f"| {row} minus {PAIRS[row]} | {' | '.join(_points(metrics[name]) for name in METRICS)} |")
    return "\n".join([*lines, "", *(note + "\n" for note in _notes(report))])


def _print(
    report: Report,
    tested: dict[str, dict[str, Interval]],
    gained: dict[str, dict[str, Interval]],
    console: Console,
) -> None:
    console.print(_table("Test, % [95 % interval]", tested, _percent, end_section="score"))
    console.print(_table("Gain over its unimodal row, points [95 % interval, paired]", gained, _points))
    for note in _notes(report):
        console.print(note, highlight=False, markup=False)


def _table(
    title: str, rows: dict[str, dict[str, Interval]], show: Callable[[Interval], str], end_section: str = ""
) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("row", no_wrap=True, min_width=max(len(row.name) for row in ROWS))
    for name in METRICS:
        table.add_column(_TITLES[name], no_wrap=True, min_width=len("-10.0 [-10.0, -10.0]"))
    for row, metrics in rows.items():
        table.add_row(row, *(show(metrics[name]) for name in METRICS), end_section=row == end_section)
    return table


def _numbers(
    report: Report, tested: dict[str, dict[str, Interval]], gained: dict[str, dict[str, Interval]]
) -> dict[str, Any]:
    labels = report.samples.targets("validation")
    rows: dict[str, Any] = {}
    for name, metrics in tested.items():
        right = report.predictions[name]["validation"] == labels
        rows[name] = {
            "title": _TITLE_OF_ROW[name],
            "test": {metric: asdict(interval) for metric, interval in metrics.items()},
            "validation_accuracy": float(right.mean()),
            **report.trained.get(name, {}),
        }
    return {
        "recipe": "openmoji",
        "seed": report.seed,
        "smoke": report.smoke,
        "licence_of_pictures": LICENCE,
        "attribution": ATTRIBUTION,
        "versions": report.versions,
        "data": {
            "topics": list(report.samples.classes),
            "samples": sum(len(rows) for rows in report.samples.splits.values()),
            "groups": _groups(report),
            "split": {name: len(rows) for name, rows in report.samples.splits.items()},
        },
        "rows": rows,
        "gains": {
            f"{name} - {PAIRS[name]}": {metric: asdict(interval) for metric, interval in metrics.items()}
            for name, metrics in gained.items()
        },
        "seconds": round(report.seconds, 1),
    }


def _groups(report: Report) -> int:
    return len({group for rows in report.samples.splits.values() for group in rows["group"][:]})


def _percent(interval: Interval) -> str:
    return f"{100 * interval.value:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def _points(interval: Interval) -> str:
    return f"{100 * interval.value:+.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
