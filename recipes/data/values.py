"""Values as tables hold them: what stands for "nothing", what is no text."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np

__all__ = ["MISSING_WORD", "UNDECODABLE", "is_missing", "missing_word", "visible"]

MISSING_WORD = "a word for a missing value (such as nan, N/A), taken as missing"
UNDECODABLE = "characters that are no Unicode text, replaced"

#: what pandas, R, SQL and spreadsheets write for a missing value, in small letters
_WORDS = frozenset({"nan", "-nan", "n/a", "#n/a", "#na", "<na>", "null", "nat", "1.#qnan", "-1.#ind"})
#: more of them, where no class or name is called so
_MORE = frozenset({"na", "none"})
#: byte-order mark, zero-width space, word joiner, copied along from web pages and spreadsheets, and control characters:
#: nobody sees them, and a terminal obeys the last
_INVISIBLE = re.compile("[\ufeff\u200b\u2060\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")
_SPACES = re.compile("[ \u00a0\u2007\u202f]+")


def is_missing(value: Any) -> bool:
    """Whether a cell is empty: null, NaN or NaT of any library, white space, characters that nobody sees."""
    if isinstance(value, str):
        return not (value if value.isascii() else _INVISIBLE.sub("", value)).strip()
    if value is None or type(value).__name__ == "NAType":  # pandas'
        return True
    return isinstance(value, (float, Decimal, date, np.generic)) and bool(value != value)


def visible(label: str) -> str:
    """A label without characters that nobody sees, its spaces single and plain: what looks the same is one class.

    Examples:
        >>> visible("\\ufeffred\\u00a0 car ")
        'red car'
    """
    return _SPACES.sub(" ", _INVISIBLE.sub("", label)).strip()


def missing_word(value: str, *, label: bool = False) -> bool:
    """Whether a text is no more than a word for a missing value.

    Args:
        value: of a cell.
        label: of a label, "None" and "NA" are names: some classes are called so.

    Examples:
        >>> missing_word("NaN"), missing_word("None"), missing_word("None", label=True)
        (True, True, False)
    """
    word = value.strip().lower()
    return word in _WORDS or (not label and word in _MORE)
