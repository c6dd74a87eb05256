"""The table of late fusions, open to those of other distributions."""

from __future__ import annotations

from mi2p_inject.core.errors import FusionError
from mi2p_inject.core.registry import Registry
from mi2p_inject.fusion.base import Fusion
from mi2p_inject.fusion.compact_bilinear import CompactBilinearFusion
from mi2p_inject.fusion.concat import ConcatFusion
from mi2p_inject.fusion.cross_attention import CrossAttentionFusion
from mi2p_inject.fusion.gated_bilinear import GatedBilinearFusion
from mi2p_inject.fusion.gmu import GMUFusion
from mi2p_inject.fusion.score import ScoreFusion

__all__ = ["ENTRY_POINT_GROUP", "FUSIONS"]

ENTRY_POINT_GROUP = "mi2p_inject.fusions"

FUSIONS: Registry[type[Fusion]] = Registry(
    "fusion",
    ENTRY_POINT_GROUP,
    FusionError,
    lambda given: given if isinstance(given, type) and issubclass(given, Fusion) else None,
    "a class of fusions (a subclass of mi2p_inject.fusion.Fusion)",
    {
        "score": ScoreFusion,
        "concat": ConcatFusion,
        "cross-attention": CrossAttentionFusion,
        "gmu": GMUFusion,
        "compact-bilinear": CompactBilinearFusion,
        "gated-bilinear": GatedBilinearFusion,
    },
)
"""Name -> class, built from the branches' widths and the number of classes. A new one is one class and one line here,
or an entry point of another distribution."""
