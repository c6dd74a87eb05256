"""The JSON of a checkpoint: every key, type and range it must hold, told once as a tree of rules; and its reading."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from mi2p_inject.core.errors import CheckpointError, Mi2pError
from mi2p_inject.core.expansion_config import ExpansionConfig
from mi2p_inject.core.layout import Axes
from mi2p_inject.core.site import Site
from mi2p_inject.core.views import ViewSpec
from mi2p_inject.units import UNITS, unit_config

CONFIG_NAME = "mi2p_config.json"
FORMAT, VERSION = "mi2p_inject", 3


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


def _is_int(value: Any, least: int, most: int = 2**31) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


TEXT = Rule("a string", lambda value: isinstance(value, str))
FLAG = Rule("true or false", lambda value: isinstance(value, bool))
SIZE = Rule("a size (a positive integer)", lambda value: _is_int(value, 1))
COUNT = Rule("an integer, zero or more", lambda value: _is_int(value, 0))
OPTION = Rule("a single value", lambda value: value is None or isinstance(value, (bool, int, float, str)))
ELEMENT = Rule("an index, a key or null", lambda value: value is None or isinstance(value, str) or _is_int(value, -99))
GRID = ListOf(SIZE, length=2, nullable=True)


def _one_of(*words: str) -> Rule:
    return Rule(" or ".join(map(repr, words)), lambda value: isinstance(value, str) and value in words)


VIEW: Schema = {"kind": _one_of("map", "tokens"), "width": SIZE, "grid": GRID}
LAYOUT: Schema = {
    "axes": _one_of(*(axes.value for axes in Axes)),
    "element": ELEMENT,
    "prefix": COUNT,
    "grid": GRID,
    "image": GRID,
}
CONFIG: Schema = {
    "weights": TEXT,
    "aliases": MapOf(TEXT),
    "backbone": {"class": TEXT, "tensors": MapOf(ListOf(COUNT))},
    "unit": {"kind": TEXT, "options": MapOf(OPTION)},
    "source": VIEW,
    "sites": ListOf({"path": TEXT, "layout": LAYOUT, "view": VIEW}),
    "num_heads": Rule("a number of heads (1 to 65536)", lambda value: _is_int(value, 1, 2**16)),
    "trainable": _one_of("all", "units"),
    "strict": FLAG,
    "left_out": ListOf(TEXT),
}


def read_config(folder: Path) -> dict[str, Any]:
    """The JSON of a checkpoint, of our format and version, obeying the schema.

    Raises:
        CheckpointError: it is absent, damaged, or not ours.
    """
    path = folder / CONFIG_NAME
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            "not a checkpoint of an expanded model",
            expected=f"a folder with {CONFIG_NAME}",
            given=f"{folder} with {', '.join(sorted(os.listdir(folder))[:6]) or 'nothing'}",
            fix="pass the folder that save_pretrained wrote",
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, str(error)) from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise damaged(path, "it is not of our format")
    if config.get("version") != VERSION:
        raise CheckpointError(
            "the checkpoint is of another version",
            expected=f"version {VERSION}",
            given=f"version {config.get('version')}",
            fix="use the release of mi2p_inject that wrote it, or a newer one",
        )
    if broken := fault(config, CONFIG):
        raise damaged(path, f"{broken.place} is wrong", broken.expected, broken.given)
    return config


def expansion_config_of(config: dict[str, Any], path: Path) -> ExpansionConfig:
    """The expansion that a JSON which obeys the schema describes.

    Raises:
        CheckpointError: an unknown unit, or values that contradict each other.
        UnitError: the entry point that gives the unit cannot be loaded.
    """
    kind, options = config["unit"]["kind"], config["unit"]["options"]
    if kind not in UNITS:
        raise CheckpointError(
            f"the checkpoint holds an unknown unit {kind!r}",
            expected=f"one of {', '.join(UNITS)}",
            given=kind,
            fix="install the distribution that defines this unit, or call UNITS.register with its configuration; "
            "if it is one of ours, upgrade mi2p_inject",
        )
    unit = UNITS[kind]
    try:
        expansion_config = ExpansionConfig(
            sites=tuple(Site.from_json(site) for site in config["sites"]),
            unit=unit_config(unit, options),
            source=ViewSpec.from_json(config["source"]),
            num_heads=config["num_heads"],
            trainable=config["trainable"],
            strict=config["strict"],
            left_out=tuple(config["left_out"]),
        )
    except (Mi2pError, TypeError, ValueError, OverflowError) as error:
        raise damaged(path, str(error)) from error
    if not expansion_config.sites:
        raise damaged(path, "it has no sites")
    if len({site.path for site in expansion_config.sites}) < len(expansion_config.sites):
        raise damaged(path, "it names a site twice")
    return expansion_config


def damaged(path: Path, why: str, expected: str = "", given: str = "") -> CheckpointError:
    """The error for a file that is not what `save_pretrained` wrote."""
    return CheckpointError(
        f"the checkpoint is damaged: {why}",
        expected=expected or "the files as save_pretrained wrote them",
        given=f"{given} in {path.name}" if given else path.name,
        fix="copy it again",
    )


def fault(data: Any, schema: Schema, place: str = "") -> Fault | None:
    """The first place where `data` breaks `schema`, or None. Keys that no rule names are ignored.

    Example:
        >>> from mi2p_inject.checkpoint.schema import VIEW, fault
        >>> fault({"kind": "tokens", "width": "768", "grid": None}, VIEW)
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
    text = repr(data)
    return text if len(text) <= 80 else f"{text[:77]}..."
