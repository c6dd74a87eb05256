"""What an expanded model attends to, and what that says of its answer."""

from mi2p_inject.explain.evidence import Evidence, attends, evidence, explain
from mi2p_inject.explain.maps import channel_maps, effective_count, token_maps
from mi2p_inject.explain.record import AttentionRecord, SiteAttention, record_attention

__all__ = [
    "AttentionRecord",
    "Evidence",
    "SiteAttention",
    "attends",
    "channel_maps",
    "effective_count",
    "evidence",
    "explain",
    "record_attention",
    "token_maps",
]
