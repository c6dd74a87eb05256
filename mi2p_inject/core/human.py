"""Numbers for people."""

from __future__ import annotations

__all__ = ["human"]


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
