"""How numbers are computed: precision, sums in windows, and what changes while a graph is recorded."""

from __future__ import annotations

__all__: list[str] = []
