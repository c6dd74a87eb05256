"""The plug-in kinds: one final class each, one table."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any

from mi2p_inject.core.errors import UnitError
from mi2p_inject.units.base import Unit as Unit
from mi2p_inject.units.base import UnitConfig as UnitConfig
from mi2p_inject.units.base import ZeroInit as ZeroInit
from mi2p_inject.units.mi2p import MI2P as MI2P

UNITS: dict[str, UnitConfig] = {
    "mi2p": MI2P(),
    "mi2p-paper": MI2P(channel_embedding_dim=0),
}
"""Name -> configured unit. A new kind is one class and one row here."""


def unit_config(unit: str | UnitConfig, options: dict[str, Any]) -> UnitConfig:
    """A configured unit from a name of the table, or a configuration, with options replaced.

    Raises:
        UnitError: unknown name or option (the closest ones are named), or an option out of range.

    Example:
        >>> from mi2p_inject.units import unit_config
        >>> unit_config("mi2p", {"gate": None}).gate is None
        True
    """
    if isinstance(unit, str):
        if unit not in UNITS:
            raise UnitError(
                f"unknown unit {unit!r}",
                expected=f"one of {', '.join(UNITS)}",
                given=unit,
                fix=_closest(unit, list(UNITS)),
            )
        unit = UNITS[unit]
    if not isinstance(unit, UnitConfig):
        raise UnitError(
            "unit= takes a name or a configured unit",
            expected="'mi2p' or MI2P(...)",
            given=repr(unit),
            fix="pass MI2P(...)",
        )
    names = [field.name for field in dataclasses.fields(unit)]
    for name in options:
        if name not in names:
            raise UnitError(
                f"the unit {unit.kind!r} has no option {name!r}",
                expected=f"some of {', '.join(names)}",
                given=name,
                fix=_closest(name, names),
            )
    return dataclasses.replace(unit, **options)


def _closest(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(names)}"
