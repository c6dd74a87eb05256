"""`mi2p sweep`: `check_model` over all models of timm, transformers and open_clip, each in a process of its own."""

from __future__ import annotations

from benchmarks.sweep.verdict import Result as Result
from benchmarks.sweep.verdict import judge as judge

__all__ = ["Result", "judge"]
