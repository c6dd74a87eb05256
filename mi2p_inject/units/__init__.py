"""The unit kinds: one final class each, one table, open to kinds of other distributions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from mi2p_inject.core.errors import UnitError
from mi2p_inject.core.registry import Registry, closest
from mi2p_inject.units.base import Unit, UnitConfig, ZeroInit
from mi2p_inject.units.cross_attention import CrossAttention
from mi2p_inject.units.film import FiLM
from mi2p_inject.units.mi2p import MI2P
from mi2p_inject.units.mmtm import MMTM

__all__ = [
    "ENTRY_POINT_GROUP",
    "MI2P",
    "MMTM",
    "UNITS",
    "CrossAttention",
    "FiLM",
    "Unit",
    "UnitConfig",
    "ZeroInit",
    "option_names",
    "unit_config",
]

ENTRY_POINT_GROUP = "mi2p_inject.units"

UNITS: Registry[UnitConfig] = Registry(
    "unit",
    ENTRY_POINT_GROUP,
    UnitError,
    lambda given: given if isinstance(given, UnitConfig) else None,
    "a UnitConfig with its default options",
    {
        "mi2p": MI2P(),
        "mi2p-paper": MI2P(channel_embedding_dim=0, readout=0, source_norm=False, pooled_shift=False),
        "cross-attention": CrossAttention(),
        "film": FiLM(),
        "mmtm": MMTM(),
    },
)
"""Name -> configured unit. A new kind is one class and one line here, or an entry point of another distribution."""

_OTHER_WORDS = {
    "heads": "num_heads",
    "d_k": "head_dim",
    "identity": "channel_embedding_dim",
    "gate": "zero_init",
    "train": "trainable",
}
"""What else options are called, in the paper or by people -> their names; the last is one of `inject` itself."""


def option_names(unit: str) -> tuple[str, ...]:
    """The options of a kind of the table.

    Raises:
        UnitError: an unknown name (the closest one is named).

    Examples:
        >>> from mi2p_inject.units import option_names
        >>> option_names("film")
        ('scale', 'source_norm')
    """
    return tuple(field.name for field in dataclasses.fields(UNITS[unit]))


def _instead(option: str, names: list[str]) -> str:
    """What to give in place of an option that is none of a kind's."""
    if (word := _OTHER_WORDS.get(option)) in (*names, "trainable"):
        return f"{option} is called {word}"
    kinds = [kind for kind in UNITS if option in option_names(kind)]
    if kinds:
        return f"{option} is an option of the unit {' and of '.join(kinds)}: unit={kinds[0]!r}, or leave it out"
    return closest(option, names)


def unit_config(unit: str | UnitConfig, options: Mapping[str, Any]) -> UnitConfig:
    """A configured unit from a name of the table, or a configuration, with options replaced.

    Raises:
        UnitError: unknown name or option (the closest one is named), an option out of range, or a configuration whose
            checkpoints could not be read back.

    Examples:
        >>> from mi2p_inject.units import unit_config
        >>> unit_config("mi2p", {"zero_init": None}).zero_init is None
        True
    """
    config = UNITS[unit] if isinstance(unit, str) else unit
    if not isinstance(config, UnitConfig):
        raise UnitError(
            "unit= takes a name or a configured unit",
            expected="'mi2p' or MI2P(...)",
            given=repr(unit),
            fix="pass MI2P(...)",
        )
    _check_kind(config, named=isinstance(unit, str))
    names = [field.name for field in dataclasses.fields(config)]
    for name in options:
        if name not in names:
            raise UnitError(
                f"the unit {config.kind!r} has no option {name!r}",
                expected=f"some of {', '.join(names)}" if names else "no options",
                given=name,
                fix=_instead(name, names),
            )
    config = dataclasses.replace(config, **options)
    for name, value in dataclasses.asdict(config).items():
        if value is not None and not isinstance(value, (bool, int, float, str)):
            raise UnitError(
                f"the option {name} of the unit {config.kind!r} cannot be kept in a checkpoint",
                expected="None, a boolean, a number or a string",
                given=repr(value),
                fix=f"change {name}=",
            )
    return config


def _check_kind(config: UnitConfig, named: bool) -> None:
    """A checkpoint keeps the kind's name: the table must find this very class by it."""
    cls = type(config)
    if config.kind in UNITS:
        other = type(UNITS[config.kind])
        if other is not cls:
            raise UnitError(
                f"two classes of units are of the kind {config.kind!r}",
                expected=f"{other.__module__}.{other.__qualname__}, which the table has under this name",
                given=f"{cls.__module__}.{cls.__qualname__}",
                fix="give the new class a kind of its own",
            )
    elif named:
        raise UnitError(
            f"the table does not know the kind {config.kind!r} of one of its units, so no checkpoint could be loaded",
            expected="an entry point named by the kind",
            given=f"kind {config.kind!r} of {cls.__module__}.{cls.__qualname__}",
            fix=f"name the entry point {config.kind}, or change kind",
        )
