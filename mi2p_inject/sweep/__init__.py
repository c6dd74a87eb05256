"""`mi2p sweep`: the contract over all models of timm, transformers and open_clip, each in a process of its own."""

from __future__ import annotations

from mi2p_inject.sweep.compare import BrokenError as BrokenError
from mi2p_inject.sweep.contract import as_backbone as as_backbone
from mi2p_inject.sweep.contract import as_source as as_source
from mi2p_inject.sweep.verdict import Result as Result
from mi2p_inject.sweep.verdict import judge as judge
