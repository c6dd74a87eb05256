"""What an expanded model attends to, and what that says of its answer."""

from mi2p_inject.explain.record import AttentionRecord, SiteAttention, record_attention

__all__ = ["AttentionRecord", "SiteAttention", "record_attention"]
