"""The table of rows: ours, listed here family by family, and those that other distributions register."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from mi2p_inject.adapters import clip as clip_towers
from mi2p_inject.adapters import hf_audio, hf_image, hf_text, timm_cnn, timm_transformer
from mi2p_inject.adapters.row import Adapter
from mi2p_inject.core.errors import AdapterError

ENTRY_POINT_GROUP = "mi2p_inject.adapters"
BUILT_IN: tuple[Adapter, ...] = (
    *timm_cnn.ROWS,
    *timm_transformer.ROWS,
    *hf_text.ROWS,
    *hf_image.ROWS,
    *hf_audio.ROWS,
    *clip_towers.ROWS,
)


@cache
def adapters() -> tuple[Adapter, ...]:
    """All rows: the built-in ones, then those of the entry-point group `mi2p_inject.adapters`.

    An entry point names an `Adapter` or a sequence of them. A third party's row for a class that already has one
    is refused: which one is meant could not be seen from the call.

    Raises:
        AdapterError: an entry point gives something else, or two rows share a name or a class.
    """
    rows = list(BUILT_IN)
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        try:
            given = entry.load()
            more = (given,) if isinstance(given, Adapter) else tuple(given)
        except Exception as error:
            raise AdapterError(
                f"entry point {entry.name!r} cannot be loaded",
                expected="an Adapter or a sequence of them",
                given=f"{type(error).__name__}: {error}",
                fix=f"mend {entry.value}, or uninstall its distribution",
            ) from error
        for row in more:
            if not isinstance(row, Adapter):
                raise AdapterError(
                    f"entry point {entry.name!r} gives something that is no adapter row",
                    expected="an Adapter or a sequence of them",
                    given=repr(row),
                    fix=f"mend {entry.value}, or uninstall its distribution",
                )
        rows += more
    for what, names in (
        ("name", [row.name for row in rows]),
        ("class", [name for row in rows for name in row.classes]),
    ):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise AdapterError(
                f"two adapter rows share a {what}",
                expected="one row each",
                given=", ".join(twice),
                fix="remove one of them",
            )
    return tuple(rows)
