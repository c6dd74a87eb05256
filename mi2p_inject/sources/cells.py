"""A cell of a table as a number or as a category."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from numbers import Real
from typing import Any

from mi2p_inject.core.errors import SourceError

__all__ = ["category_in", "mean_and_deviation", "number_in", "spellings"]

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


def spellings(category: str) -> tuple[str, ...]:
    """A category as other tables write it: a whole number is a float where pandas had missing cells beside it.

    Examples:
        >>> spellings("3"), spellings("3.0"), spellings("Bern")
        (('3', '3.0'), ('3.0', '3'), ('Bern',))
    """
    if re.fullmatch(r"-?[0-9]+", category):
        return category, f"{category}.0"
    return (category, category[:-2]) if re.fullmatch(r"-?[0-9]+\.0", category) else (category,)


def mean_and_deviation(known: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation, 1 where that is zero; of numbers whose sum or squares leave the range, too."""
    exponent = math.frexp(max(map(abs, known)))[1]
    scaled = [math.ldexp(one, -exponent) for one in known]  # exact: powers of two
    mean = math.fsum(scaled) / len(scaled)
    deviation = math.sqrt(math.fsum((one - mean) ** 2 for one in scaled) / len(scaled))
    return math.ldexp(mean, exponent), math.ldexp(deviation, exponent) or 1.0


def _is_missing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, Real) and cell != cell) or not str(cell).strip()
