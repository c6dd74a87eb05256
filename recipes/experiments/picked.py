"""The best expanded system and its strongest rivals, picked on the validation split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mi2p_inject.recipes.systems import SYSTEMS, System

__all__ = ["best_expanded", "rivals", "strongest_fusion"]

Lines = Mapping[str, Any]
"""Experiment -> what metrics.json holds of it."""


def best_expanded(lines: Lines, metric: str, lower: bool = False) -> str | None:
    """The expanded system that is best on the validation split; None without any.

    Args:
        lines: all experiments of a set.
        metric: the one that decides.
        lower: it is better where it is lower.
    """
    return _best([name for name, line in lines.items() if _is_expanded(line, lines)], lines, metric, lower)


def strongest_fusion(lines: Lines, metric: str, lower: bool = False) -> str | None:
    """The late fusion of plain encoders that is best on the validation split; None without any.

    Args:
        lines: all experiments of a set.
        metric: the one that decides.
        lower: it is better where it is lower.
    """
    late = [name for name in rivals(lines) if all(_is_late(one) for one in _members(lines[name], lines))]
    return _best(late, lines, metric, lower)


def rivals(lines: Lines) -> list[str]:
    """What reads both modalities and is not expanded: late fusions, and the compared systems of the literature."""
    return [
        name
        for name, line in lines.items()
        if not _is_expanded(line, lines) and len({kind for one in _systems(line, lines) for kind in one.modalities}) > 1
    ]


def _best(names: Sequence[str], lines: Lines, metric: str, lower: bool) -> str | None:
    known = {name: lines[name]["validation"][metric] for name in names if metric in lines[name]["validation"]}
    return (min if lower else max)(known, key=known.__getitem__, default=None)


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
