"""One declarative adapter per architecture, gathered in one explicit table."""

from __future__ import annotations

if __name__ != "mi2p_inject.adapters":
    raise ImportError(f"import these adapters as mi2p_inject.adapters, not as {__name__}")

from mi2p_inject.adapters.adapter import Adapter as Adapter
from mi2p_inject.adapters.adapter import Readout as Readout
from mi2p_inject.adapters.find import Match as Match
from mi2p_inject.adapters.find import find as find
from mi2p_inject.adapters.pool import pool as pool
from mi2p_inject.adapters.table import adapters as adapters

__all__ = ["Adapter", "Match", "Readout", "adapters", "find", "pool"]
