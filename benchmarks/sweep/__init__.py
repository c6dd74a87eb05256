"""`mi2p sweep`: the contract over all models of timm, transformers and open_clip, each in a process of its own."""

from __future__ import annotations

from benchmarks.sweep.compare import BrokenError as BrokenError
from benchmarks.sweep.contract import as_backbone as as_backbone
from benchmarks.sweep.contract import as_source as as_source
from benchmarks.sweep.verdict import Result as Result
from benchmarks.sweep.verdict import judge as judge
