"""What metrics.json and history.json of a training must hold: whatever reads them may rely on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mi2p_inject.core.files.json_rules import TEXT, Fault, ListOf, MapOf, Rule, Schema, fault, is_int
from mi2p_inject.core.human import printable
from mi2p_inject.recipes.metrics.metric_info import metrics_of

__all__ = ["history_fault", "numbers_fault"]

_SPLITS = ("validation", "test")
_MOST = 2**63

_NUMBER = Rule("a number", lambda value: isinstance(value, float) or is_int(value, -_MOST, _MOST))
_WHOLE = Rule("an integer, zero or more", lambda value: is_int(value, 0, _MOST))
_WORDS = Rule("a string that is not empty", lambda value: isinstance(value, str) and bool(value.strip()))
_NAME = Rule("a string without control characters", lambda value: isinstance(value, str) and printable(value) == value)
_PERHAPS = Rule("a number or null", lambda value: value is None or _NUMBER.holds(value))
_INTERVAL: Schema = {"value": _NUMBER, "low": _NUMBER, "high": _NUMBER}
_SCHEMA: dict[str, Schema] = {
    "problem_type": TEXT,
    "classes": ListOf(_NAME),
    "splits": MapOf(_WHOLE),
    "encoders": MapOf(TEXT),
    "parameters": {"pretrained": _WHOLE, "new": _WHOLE},
    "notes": ListOf(TEXT),
    "versions": MapOf(TEXT),
    "best_step": _WHOLE,
    "selected_by": TEXT,
    "seconds": _NUMBER,
}
_OPTIONAL: dict[str, Schema] = {
    "remarks": ListOf(_WORDS),
    "over_baseline": MapOf(MapOf(_INTERVAL)),
    "reading": {
        "metric": TEXT,
        "as_is": MapOf(_NUMBER),
        "modalities": MapOf({"withheld": _NUMBER, "shuffled": _PERHAPS, "worth": _INTERVAL}),
    },
}
_HISTORY = ListOf(MapOf(_NUMBER))
_STEPS = ListOf({"step": Rule("a step", lambda value: is_int(value, 0))})


def numbers_fault(numbers: Any) -> Fault | None:
    """The first place where metrics.json is not as a training writes it; None where it is.

    Args:
        numbers: what the file holds.

    Examples:
        >>> numbers_fault({"problem_type": 5})
        Fault(place='classes', expected='this key', given='only problem_type')
    """
    given = numbers if isinstance(numbers, Mapping) else {}
    splits = [one for one in _SPLITS if one in given]
    there = [one for one in given if given[one] is not None or one != "reading"]  # null: there was no validation split
    schema = _SCHEMA | {name: rule for name, rule in _OPTIONAL.items() if name in there}
    found = fault(numbers, schema)
    if found is None and "reading" in there:
        found = fault(numbers, {"reading": {"as_is": {given["reading"]["metric"]: _NUMBER}}})
    if found is not None or not splits:
        return found
    counted: Schema = dict.fromkeys(splits, _WHOLE)
    scores: Schema = {"answer": TEXT, **dict.fromkeys(splits, MapOf(_NUMBER))}
    found = fault(numbers, {"splits": counted, "baseline": scores})
    for split in splits:
        names = metrics_of(numbers[split]) if isinstance(numbers[split], dict) else []
        rules: Schema = {**dict.fromkeys(names, _INTERVAL), "f1_of_classes": MapOf(_NUMBER)}
        found = found or fault(numbers, {split: rules})
    return found


def history_fault(history: Any) -> Fault | None:
    """The first place where history.json is not as a training writes it; None where it is."""
    return fault(history, _HISTORY) or fault(history, _STEPS)
