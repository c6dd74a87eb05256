"""The best expanded system and its strongest rivals, picked on the validation split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mi2p_inject.recipes.metrics.metric_info import info_of
from mi2p_inject.recipes.systems import SYSTEMS, System

__all__ = ["best_expanded", "picking_metrics", "rivals", "strongest_fusion"]

Lines = Mapping[str, Any]
"""Experiment -> what metrics.json holds of it."""


def picking_metrics(metrics: Iterable[str]) -> list[str]:
    """Those of a set that may pick systems on the validation split: the first one, and log-loss."""
    return [name for number, name in enumerate(metrics) if number == 0 or name == "log_loss"]


def best_expanded(lines: Lines, metric: str) -> str | None:
    """The expanded system that is best on the validation split; None without any.

    Args:
        lines: all experiments of a set.
        metric: the one that decides.
    """
    return _best([name for name, line in lines.items() if _is_expanded(line, lines)], lines, metric)


def strongest_fusion(lines: Lines, metric: str) -> str | None:
    """The late fusion of plain encoders that is best on the validation split; None without any.

    Args:
        lines: all experiments of a set.
        metric: the one that decides.
    """
    late = [name for name in rivals(lines) if all(_is_late(one) for one in _members(lines[name], lines))]
    return _best(late, lines, metric)


def rivals(lines: Lines) -> list[str]:
    """What reads both modalities and is not expanded: late fusions, and the compared systems of the literature."""
    return [
        name
        for name, line in lines.items()
        if not _is_expanded(line, lines) and len({kind for one in _systems(line, lines) for kind in one.modalities}) > 1
    ]


def _best(names: Sequence[str], lines: Lines, metric: str) -> str | None:
    known = {name: lines[name]["validation"][metric] for name in names if metric in lines[name]["validation"]}
    return (min if info_of(metric).lower_is_better else max)(known, key=known.__getitem__, default=None)


def _members(line: Mapping[str, Any], lines: Lines) -> list[Mapping[str, Any]]:
    return [lines[name] for name in line["averages"]] or [line]


def _systems(line: Mapping[str, Any], lines: Lines) -> list[System]:
    return [SYSTEMS[one["settings"]["model"]] for one in _members(line, lines)]


def _is_expanded(line: Mapping[str, Any], lines: Lines) -> bool:
    return any(one.source_modalities for one in _systems(line, lines))


def _is_late(line: Mapping[str, Any]) -> bool:
    """A fusion of pooled vectors or scores, or a model of one modality that is averaged with others."""
    name = line["settings"]["model"]
    return name == "late-fusion" or len(SYSTEMS[name].modalities) == 1
