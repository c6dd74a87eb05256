"""How each metric is called and shown; written beside the numbers, so that a report needs no table of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["METRIC_INFO", "MetricInfo", "describe_metrics", "info_of", "metrics_of"]


@dataclass(frozen=True)
class MetricInfo:
    """How a metric is shown.

    Attributes:
        title: for people.
        percent: a share, shown in percent and its differences in points; else as it is.
        lower_is_better: as a loss or an error.
    """

    title: str
    percent: bool = True
    lower_is_better: bool = False


METRIC_INFO: dict[str, MetricInfo] = {
    "accuracy": MetricInfo("accuracy"),
    "macro_f1": MetricInfo("macro-F1"),
    "weighted_f1": MetricInfo("weighted-F1"),
    "micro_f1": MetricInfo("micro-F1"),
    "samples_f1": MetricInfo("samples-F1"),
    "macro_average_precision": MetricInfo("macro average precision"),
    "log_loss": MetricInfo("log-loss", percent=False, lower_is_better=True),
    "expected_calibration_error": MetricInfo("calibration error", lower_is_better=True),
}


def info_of(name: str) -> MetricInfo:
    """How a metric is shown; a name that is not in the table is its own title, and a share."""
    return METRIC_INFO.get(name, MetricInfo(name))


def metrics_of(numbers: Iterable[str]) -> list[str]:
    """The metrics of a split's numbers, in order."""
    return [name for name in numbers if name != "f1_of_classes"]


def describe_metrics(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Name -> how it is shown, as JSON values; a name that is not in the table is its own title.

    Examples:
        >>> describe_metrics(["recall_at_5"])["recall_at_5"]["title"]
        'recall_at_5'
    """
    return {name: asdict(info_of(name)) for name in names}
