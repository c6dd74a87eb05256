"""Late fusion: one final class per strategy, gathered in `FUSIONS`."""

from __future__ import annotations

from torch import nn

from mi2p_inject.fusion.score import ScoreFusion as ScoreFusion

__all__ = ["FUSIONS", "ScoreFusion"]

#: name -> class; each takes a sequence of (B, K) logits and returns (B, K) class probabilities
FUSIONS: dict[str, type[nn.Module]] = {
    "score": ScoreFusion,
}
