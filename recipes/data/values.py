"""Values as tables hold them: what stands for "nothing", what is no text."""

from __future__ import annotations

from typing import Any

__all__ = ["MISSING_WORD", "UNDECODABLE", "is_missing", "missing_word"]

MISSING_WORD = "a word for a missing value (such as nan, N/A), taken as missing"
UNDECODABLE = "characters that are no Unicode text, replaced"

#: what pandas, R, SQL and spreadsheets write for a missing value, in small letters
_WORDS = frozenset({"nan", "-nan", "n/a", "#n/a", "#na", "<na>", "null", "nat", "1.#qnan", "-1.#ind"})
#: more of them, where no class or name is called so
_MORE = frozenset({"na", "none"})


def is_missing(value: Any) -> bool:
    """Whether a cell is empty: null, NaN, white space."""
    return (
        value is None or (isinstance(value, float) and value != value) or (isinstance(value, str) and not value.strip())
    )


def missing_word(value: str, *, label: bool = False) -> bool:
    """Whether a text is no more than a word for a missing value.

    Args:
        value: of a cell.
        label: of a label, "None" and "NA" are names: some classes are called so.

    Example:
        >>> missing_word("NaN"), missing_word("None"), missing_word("None", label=True)
        (True, True, False)
    """
    word = value.strip().lower()
    return word in _WORDS or (not label and word in _MORE)
