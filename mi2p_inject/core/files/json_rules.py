"""What a JSON must hold, stated once as a tree of rules, and the first place where one breaks them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = [
    "COUNT",
    "FLAG",
    "OPTION",
    "SIZE",
    "TEXT",
    "Fault",
    "ListOf",
    "MapOf",
    "Rule",
    "Schema",
    "fault",
    "is_int",
    "one_of",
]


@dataclass(frozen=True)
class Rule:
    """A leaf of the schema: what is expected, in words, and a test for it."""

    expected: str
    holds: Callable[[Any], bool]


@dataclass(frozen=True)
class ListOf:
    """A list (of exactly `length` entries, if given) whose entries obey one schema."""

    entry: Schema
    length: int | None = None
    nullable: bool = False


@dataclass(frozen=True)
class MapOf:
    """An object with any keys, whose values obey one schema."""

    value: Schema


Schema: TypeAlias = "Rule | ListOf | MapOf | Mapping[str, Schema]"


@dataclass(frozen=True)
class Fault:
    """The first place where a JSON breaks the schema."""

    place: str
    expected: str
    given: str


def is_int(value: Any, least: int, most: int = 2**31) -> bool:
    """An integer in a range; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


TEXT = Rule("a string", lambda value: isinstance(value, str))
FLAG = Rule("true or false", lambda value: isinstance(value, bool))
SIZE = Rule("a size (a positive integer)", lambda value: is_int(value, 1))
COUNT = Rule("an integer, zero or more", lambda value: is_int(value, 0))
OPTION = Rule("a single value", lambda value: value is None or isinstance(value, (bool, int, float, str)))


def one_of(*words: str) -> Rule:
    """One of a few words."""
    return Rule(" or ".join(map(repr, words)), lambda value: isinstance(value, str) and value in words)


def fault(data: Any, schema: Schema, place: str = "") -> Fault | None:
    """The first place where `data` breaks `schema`, or None. Keys that no rule names are ignored.

    Examples:
        >>> fault({"kind": "tokens", "width": "768"}, {"kind": TEXT, "width": SIZE})
        Fault(place='width', expected='a size (a positive integer)', given="'768'")
    """
    if isinstance(schema, Rule):
        return None if schema.holds(data) else Fault(place, schema.expected, _short(data))
    if isinstance(schema, ListOf):
        if data is None and schema.nullable:
            return None
        if not isinstance(data, list) or (schema.length is not None and len(data) != schema.length):
            count = "" if schema.length is None else f" of {schema.length}"
            return Fault(place, f"a list{count}{' or null' if schema.nullable else ''}", _short(data))
        return _first(((f"{place}[{index}]", entry, schema.entry) for index, entry in enumerate(data)))
    if not isinstance(data, dict):
        return Fault(place, "an object", _short(data))
    if isinstance(schema, MapOf):
        return _first((_inside(place, key), value, schema.value) for key, value in data.items())
    for key in schema:
        if key not in data:
            return Fault(_inside(place, key), "this key", f"only {', '.join(sorted(data)) or 'nothing'}"[:200])
    return _first((_inside(place, key), data[key], rule) for key, rule in schema.items())


def _first(parts: Any) -> Fault | None:
    found = (fault(data, schema, place) for place, data, schema in parts)
    return next((one for one in found if one is not None), None)


def _inside(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _short(data: Any) -> str:
    try:
        text = repr(data)
    except RecursionError:
        return f"a {type(data).__name__} of many levels"
    return text if len(text) <= 80 else f"{text[:77]}..."
