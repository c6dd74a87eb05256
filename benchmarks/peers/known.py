"""What fails only with injection, and why: each is a limit that the documentation names."""

from __future__ import annotations

__all__ = ["KNOWN", "reason"]

KNOWN: dict[str, str] = {
    "test_head_hidden_size[convnext_atto-": "it prunes a stage that holds a site: a known limit, and the error says so",
}
"""The start of a test's name, as in ``test_model_forward_torchscript`` -> the reason."""


def reason(test: str) -> str | None:
    """Why a test may fail with injection; None: it must not."""
    name = test.rpartition("::")[2]
    return next((why for start, why in KNOWN.items() if name.startswith(start)), None)
