"""The table of adapters: ours, listed here family by family, and those that other distributions register."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from mi2p_inject.adapters.adapter import Adapter
from mi2p_inject.adapters.families import clip as clip_towers
from mi2p_inject.adapters.families import hf_audio, hf_image, hf_text, timm_cnn, timm_transformer
from mi2p_inject.core.errors import AdapterError
from mi2p_inject.core.registry import entry_points_of, load_entry_point

__all__ = ["BUILT_IN", "ENTRY_POINT_GROUP", "EXPECTED", "adapters"]

ENTRY_POINT_GROUP = "mi2p_inject.adapters"
EXPECTED = "an Adapter or a sequence of them"
BUILT_IN: tuple[Adapter, ...] = (
    *timm_cnn.ADAPTERS,
    *timm_transformer.ADAPTERS,
    *hf_text.ADAPTERS,
    *hf_image.ADAPTERS,
    *hf_audio.ADAPTERS,
    *clip_towers.ADAPTERS,
)


@cache
def adapters() -> tuple[Adapter, ...]:
    """All adapters: the built-in ones, then those of the entry-point group `mi2p_inject.adapters`.

    An entry point names an `Adapter` or a sequence of them. A third party's adapter for a class that already has one
    is refused: which one is meant could not be seen from the call.

    Raises:
        AdapterError: an entry point gives something else, or two adapters share a name or a class.
    """
    found = list(BUILT_IN)
    for entry in entry_points_of(ENTRY_POINT_GROUP):
        given = load_entry_point(entry, AdapterError, EXPECTED)
        more = given if isinstance(given, Sequence) else (given,)
        for adapter in more:
            if not isinstance(adapter, Adapter):
                raise AdapterError(
                    f"entry point {entry.name!r} gives something that is no adapter",
                    expected=EXPECTED,
                    given=repr(adapter),
                    fix=f"correct {entry.value}, or uninstall its distribution",
                )
        found += more
    for what, names in (
        ("name", [adapter.name for adapter in found]),
        ("class", [name for adapter in found for name in adapter.classes]),
    ):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise AdapterError(
                f"two adapters share a {what}",
                expected="one adapter each",
                given=", ".join(twice),
                fix="remove one of them",
            )
    return tuple(found)
