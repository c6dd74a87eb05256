"""A cell of a table as a number or as a category."""

from __future__ import annotations

import math
import unicodedata
from numbers import Real
from typing import Any

from mi2p_inject.core.errors import SourceError

__all__ = ["category_in", "number_in"]

_WORDS = ("<NA>", "NaT")
"""As pandas prints what is missing."""


def number_in(cell: Any, where: str) -> float | None:
    """The finite number in a cell; None where it is None, NaN or blank.

    Args:
        cell: of any type.
        where: of an error: begins it.

    Raises:
        SourceError: it holds something else.

    Examples:
        >>> number_in(" 1.5 ", "row 1"), number_in(float("nan"), "row 2")
        (1.5, None)
    """
    if _is_missing(cell) or str(cell) in (*_WORDS, "nan"):
        return None
    try:
        number = float(cell)
        if math.isfinite(number) and "_" not in str(cell):
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    raise SourceError(
        f"{where} is no finite number",
        expected="a number such as 1234.5, without thousand separators, or nothing where it is missing",
        given=repr(cell)[:80],
        fix="correct the cell, leave it empty, or give the column as categorical",
    )


def category_in(cell: Any) -> str | None:
    """The category in a cell, without blanks around it, in Unicode form NFC; None where it is None, NaN or blank.

    Examples:
        >>> category_in(" Bern "), category_in(3.0), category_in("")
        ('Bern', '3', None)
    """
    if _is_missing(cell) or str(cell) in _WORDS:
        return None
    if isinstance(cell, Real) and not isinstance(cell, int) and float(cell).is_integer():
        cell = int(float(cell))  # pandas makes floats of whole numbers beside missing ones
    return unicodedata.normalize("NFC", str(cell).strip())


def _is_missing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, Real) and cell != cell) or not str(cell).strip()
