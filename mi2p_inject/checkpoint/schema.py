"""The JSON of a checkpoint: every key, type and range it must hold; and its reading."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mi2p_inject.core.errors import CheckpointError, Mi2pError
from mi2p_inject.core.expansion_config import UNNAMED, ExpansionConfig, SourceConfig
from mi2p_inject.core.files.json_rules import (
    COUNT,
    FLAG,
    OPTION,
    SIZE,
    TEXT,
    ListOf,
    MapOf,
    Rule,
    Schema,
    fault,
    is_int,
    one_of,
)
from mi2p_inject.core.files.read import read_regular
from mi2p_inject.core.files.seal import SEAL, sealed
from mi2p_inject.core.layout import Axes
from mi2p_inject.core.site import Site
from mi2p_inject.core.views import ViewSpec
from mi2p_inject.sources.by_name import check_name
from mi2p_inject.units import UNITS, UnitConfig, unit_config
from mi2p_inject.units.base import options_as_saved

__all__ = [
    "CONFIG_NAME",
    "FORMAT",
    "TENSORS",
    "VERSION",
    "VERSION_OF_NAMED",
    "WEIGHTS_NAME",
    "damaged",
    "expansion_config_of",
    "read_config",
]

CONFIG_NAME = "mi2p_config.json"
FORMAT, VERSION, VERSION_OF_NAMED = "mi2p_inject", 5, 6
"""A model of named sources is of its own version, which releases without them refuse; any other stays as it was."""
WEIGHTS_NAME = re.compile(r"model-[0-9a-f]{12}(-\d{5}-of-\d{5})?\.safetensors")
MOST_BYTES = 16 * 2**20
"""Of the JSON. A model of 10,000 tensors takes 2 MB."""

_DIGEST = Rule(
    "64 hexadecimal digits", lambda value: isinstance(value, str) and bool(re.fullmatch("[0-9a-f]{64}", value))
)
_ELEMENT = Rule("an index, a key or null", lambda value: value is None or isinstance(value, str) or is_int(value, -99))
_GRID = ListOf(SIZE, length=2, nullable=True)
TENSORS = MapOf({"dtype": TEXT, "shape": ListOf(COUNT), "sha256": _DIGEST})
_VIEW: Schema = {"kind": one_of("map", "tokens"), "width": SIZE, "grid": _GRID}
_LAYOUT: Schema = {
    "axes": one_of(*(axes.value for axes in Axes)),
    "element": _ELEMENT,
    "prefix": COUNT,
    "grid": _GRID,
    "image": _GRID,
}
CONFIG: Schema = {
    "weights": ListOf(TEXT),
    "tensors": TENSORS,
    "aliases": MapOf(TEXT),
    "backbone": {"class": TEXT, "tensors": TENSORS, "trained": ListOf(TEXT)},
    "sites": ListOf({"path": TEXT, "layout": _LAYOUT, "view": _VIEW}),
    "num_heads": Rule("a number of heads (1 to 65536)", lambda value: is_int(value, 1, 2**16)),
    "trainable": one_of("all", "units"),
    "strict": FLAG,
    "left_out": ListOf(TEXT),
}
_SOURCE: dict[str, Schema] = {"unit": {"kind": TEXT, "options": MapOf(OPTION)}, "source": _VIEW}
OF_VERSION: Mapping[int, Schema] = {
    VERSION: _SOURCE,
    VERSION_OF_NAMED: {"sources": ListOf({"name": TEXT, "paths": ListOf(TEXT), **_SOURCE})},
}
"""What else there is in the JSON of a version."""


def read_config(folder: Path) -> dict[str, Any]:
    """The JSON of a checkpoint, of our format and version, as it was written, obeying the schema.

    Raises:
        CheckpointError: it is absent, damaged, or not ours.
    """
    path = folder / CONFIG_NAME
    try:
        config = json.loads(read_regular(path, MOST_BYTES).decode("utf-8"))
        whole = isinstance(config, dict) and config.get(SEAL) == sealed(config)[SEAL]
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
    version: Any = config.get("version")
    if not is_int(version, 0) or version not in OF_VERSION:
        raise CheckpointError(
            "the checkpoint is of another version",
            expected=f"version {' or '.join(map(str, OF_VERSION))}",
            given=f"version {config.get('version')}"[:80],
            fix="use the release of mi2p_inject that wrote it, or a newer one",
        )
    if broken := fault(config, CONFIG) or fault(config, OF_VERSION[version]):
        raise damaged(path, f"{broken.place} is wrong", broken.expected, broken.given)
    if not whole:
        raise damaged(path, "its text is not what was saved", "a text with the checksum that it states", "another text")
    return config


def expansion_config_of(config: dict[str, Any], path: Path) -> ExpansionConfig:
    """What the expanded model is built from, as a JSON that obeys the schema says.

    Raises:
        CheckpointError: an unknown unit, or values that contradict each other.
        UnitError: the entry point that gives the unit cannot be loaded.
    """
    paths, named = [site["path"] for site in config["sites"]], config["version"] == VERSION_OF_NAMED
    given = config["sources"] if named else [{**config, "name": UNNAMED, "paths": paths}]
    kinds = {source["name"]: _known(source["unit"]["kind"]) for source in given}
    try:
        sources = {
            source["name"]: SourceConfig(
                ViewSpec.from_json(source["source"]),
                _unit(kinds[source["name"]], source["unit"]["options"]),
                tuple(source["paths"]),
            )
            for source in given
        }
        for name in sources if named else ():
            check_name(name)
        expansion_config = ExpansionConfig(
            sites=tuple(Site.from_json(site) for site in config["sites"]),
            sources=sources,
            num_heads=config["num_heads"],
            trainable=config["trainable"],
            strict=config["strict"],
            left_out=tuple(config["left_out"]),
        )
    except (Mi2pError, TypeError, ValueError, OverflowError) as error:
        raise damaged(path, str(error)) from error
    if not expansion_config.sites:
        raise damaged(path, "it has no sites")
    if len(set(paths)) < len(paths) or any(len(set(one.paths)) < len(one.paths) for one in sources.values()):
        raise damaged(path, "it names a site twice")
    if len(sources) < len(given) or not sources:
        raise damaged(path, "it names a source twice, or none")
    if {path for one in sources.values() for path in one.paths} != set(paths):
        raise damaged(path, "its sources' sites are not those that it describes")
    return expansion_config


def _unit(kind: UnitConfig, options: Mapping[str, Any]) -> UnitConfig:
    return unit_config(kind, options_as_saved(kind, options))


def _known(kind: str) -> UnitConfig:
    if kind not in UNITS:
        raise CheckpointError(
            f"the checkpoint holds an unknown unit {kind!r}",
            expected=f"one of {', '.join(UNITS)}",
            given=kind,
            fix="install the distribution that defines this unit, or call UNITS.register with its configuration; "
            "if it is one of ours, upgrade mi2p_inject",
        )
    return UNITS[kind]


def damaged(path: Path, why: str, expected: str = "", given: str = "") -> CheckpointError:
    """The error for a file that is not what `save_pretrained` wrote."""
    return CheckpointError(
        f"the checkpoint is damaged: {why}",
        expected=expected or "the files as save_pretrained wrote them",
        given=f"{given} in {path.name}" if given else path.name,
        fix="copy it again",
    )
