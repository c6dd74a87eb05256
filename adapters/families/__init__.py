"""The adapters, a file a family; `mi2p_inject.adapters.table` gathers them."""

from __future__ import annotations

__all__: list[str] = []
