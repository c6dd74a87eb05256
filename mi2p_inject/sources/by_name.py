"""Sources by name: what a dict of them may hold, for `inject` and in each call."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from mi2p_inject.core.errors import SourceError
from mi2p_inject.core.expansion_config import UNNAMED
from mi2p_inject.core.layout import describe
from mi2p_inject.core.registry import closest
from mi2p_inject.sources.features import SourceFeatures

__all__ = ["Given", "by_name", "check_name", "given_sources", "only", "set_up"]

Given = Mapping[str, tuple[Any, Tensor | None]]
"""Source name -> its batch or features, and its mask of rows; sources that are missing are not in it."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def check_name(name: object) -> None:
    """Refuse what cannot name a source: names are part of the keys of its units' weights.

    Raises:
        SourceError: no string, or of other characters.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise SourceError(
            "this cannot name a source",
            expected="letters, digits, _ and -, at most 64",
            given=repr(name)[:80],
            fix="choose a name such as 'text' or 'audio'",
        )


def by_name(what: str, given: Any, names: Collection[str]) -> dict[str, Any]:
    """An option of `inject` for each source: one value for all, or a mapping by their names.

    Args:
        what: the option's name, for errors.
        given: the value, or a mapping; a source that it does not name gets None.
        names: the sources' names; only the empty one: values are no mappings by name.

    Raises:
        SourceError: a name that no source has.

    Examples:
        >>> from mi2p_inject.sources.by_name import by_name
        >>> by_name("unit", "film", ["text", "audio"])
        {'text': 'film', 'audio': 'film'}
        >>> by_name("unit", {"audio": "film"}, ["text", "audio"])
        {'text': None, 'audio': 'film'}
    """
    if UNNAMED in names or not isinstance(given, Mapping):
        return dict.fromkeys(names, given)
    _check_known(what, given, names)
    return {name: given.get(name) for name in names}


def only(what: str, given: Any, names: Collection[str]) -> dict[str, Any]:
    """As `by_name`, for what cannot be the same for several sources: with names it must be a mapping.

    Raises:
        SourceError: it is none, or has a name that no source has.
    """
    if UNNAMED not in names and given is not None and not isinstance(given, Mapping):
        raise SourceError(
            f"{what}= must say which source it is of",
            expected=f"a dict with keys among {', '.join(map(repr, names))}",
            given=type(given).__name__,
            fix=f"pass {what}={{{next(iter(names))!r}: ...}}",
        )
    return by_name(what, given, names)


def set_up(source_encoder: Any, source_spec: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Encoders and specs by name, as `inject` is given them; one that has no name has the empty one.

    Raises:
        SourceError: one of the two is by name and the other is not, or something cannot be a name.
    """
    both = {"source_encoder": source_encoder, "source_spec": source_spec}
    given = {what: value for what, value in both.items() if value is not None}
    mappings = [what for what, value in given.items() if isinstance(value, Mapping)]
    if mappings and len(mappings) < len(given):
        raise SourceError(
            f"{mappings[0]}= names its sources, and the other option does not",
            expected="both as dicts by the sources' names, or neither",
            given=", ".join(f"{what}={type(value).__name__}" for what, value in given.items()),
            fix="name the source in both",
        )
    encoders, specs = (
        dict(value) if isinstance(value, Mapping) else {} if value is None else {UNNAMED: value}
        for value in both.values()
    )
    for name in [*encoders, *specs] if mappings else ():
        check_name(name)
    return encoders, specs


def given_sources(source: Any, source_mask: Any, names: Collection[str]) -> Given:
    """The sources of a call that are there, each with its mask, in the order of the model's sources.

    Args:
        source: of a model whose source has no name: a batch or features; of another: a mapping by name, in which a
            source that is missing in the whole batch is None or absent. None: no source at all.
        source_mask: (B,) bool for a source without a name, a mapping by name otherwise.
        names: of the model's sources.

    Raises:
        SourceError: no mapping, an unknown name, or a mask without its source.
    """
    if UNNAMED in names:
        source, source_mask = {UNNAMED: source}, {UNNAMED: source_mask}
    for what, given in (("source", source), ("source_mask", source_mask)):
        if given is None:
            continue
        if not isinstance(given, Mapping):
            raise SourceError(
                f"this model has named sources, and {what}= is no dict by their names",
                expected=f"{what}={{{', '.join(f'{name!r}: ...' for name in names)}}}, each of them or some",
                given="SourceFeatures" if isinstance(given, SourceFeatures) else describe(given),
                fix=f"name the source that it is: {what}={{{next(iter(names))!r}: ...}}",
            )
        _check_known(what, given, names)
    source, source_mask = source or {}, source_mask or {}
    found = {name: (source[name], source_mask.get(name)) for name in names if source.get(name) is not None}
    alone = [name for name in names if source_mask.get(name) is not None and name not in found]
    if alone:
        raise SourceError(
            "source_mask without a source",
            expected="both or neither",
            given=f"source={{{alone[0]!r}: None}}" if alone[0] else "source=None",
            fix="pass source=",
        )
    return found


def _check_known(what: str, given: Mapping[Any, Any], names: Collection[str]) -> None:
    unknown = [name for name in given if name not in names]
    if unknown:
        raise SourceError(
            f"{what}= names a source that this model does not have: {unknown[0]!r}"[:200],
            expected=f"some of {', '.join(map(repr, names))}",
            given=", ".join(repr(name) for name in given)[:200],
            fix=closest(str(unknown[0]), list(names)),
        )
