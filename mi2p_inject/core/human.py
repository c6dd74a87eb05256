"""Numbers and texts for people."""

from __future__ import annotations

import re

__all__ = ["human", "printable"]

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def human(number: float, unit: str = "FLOP") -> str:
    """Operations or bytes for people.

    Examples:
        >>> from mi2p_inject.core.human import human
        >>> human(2.83e9), human(12_300, "B")
        ('2.83 GFLOP', '12.3 kB')
    """
    for prefix in ("", "k", "M", "G"):
        if number < 1000:
            return f"{number:.3g} {prefix}{unit}"
        number /= 1000
    return f"{number:.3g} T{unit}"


def printable(text: str) -> str:
    r"""A text whose control characters are escapes: what a stranger's file holds must not command a terminal.

    Examples:
        >>> print(printable("a \x1b[31mred\x1b[0m name"))
        a \x1b[31mred\x1b[0m name
    """
    return text if text.isprintable() else _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
