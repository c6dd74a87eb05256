"""Which tokens, patches or frames are real, of encoders without an adapter: read off what the batch calls its mask."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mi2p_inject.adapters.inputs import argument, downsampled_mask
from mi2p_inject.core.errors import SourceError
from mi2p_inject.core.numerics.recording import hides_values

__all__ = ["token_mask"]

REAL = ("attention_mask", "pixel_attention_mask", "input_features_mask", "feature_attention_mask", "patch_valid")
"""What encoders call the argument that tells real tokens, patches or frames (true) from padding."""
PADDING = ("src_key_padding_mask", "key_padding_mask")
"""What torch calls the one that tells it the other way round: true, or minus infinity, where a token is padding."""
EITHER = "padding_mask"
"""True is a real token to transformers, and padding to others."""


def token_mask(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], features: Tensor) -> Tensor | None:
    """For models without an adapter: the batch's mask where it fits the features, else as the model carries it over.

    Raises:
        SourceError: the mask hides something, and the model changes the length in a way of its own, or it is not known
            which of its values is padding.
    """
    given = ((name, argument(model, args, kwargs, name)) for name in (*REAL, *PADDING, EITHER))
    name, mask = next(((name, mask) for name, mask in given if isinstance(mask, Tensor)), ("", None))
    if mask is None:
        return None
    if name in PADDING:
        mask = mask == 0
    if name == EITHER and not type(model).__module__.startswith("transformers."):
        _check_of_one_value(model, mask)
        return None
    if mask.dim() == 3 and mask.flatten(1).shape == features.shape[:2]:  # (B, 1, L), as convolutions take it
        mask = mask.flatten(1)
    if mask.shape == features.shape[:2]:
        return mask
    if hasattr(model, "_get_feature_vector_attention_mask"):
        return downsampled_mask(model, args, kwargs, features)
    if bool(mask.bool().all()):
        return None
    raise SourceError(
        f"the source encoder {type(model).__name__} changes the length, so its mask says nothing of its features",
        expected=f"a mask of shape {tuple(features.shape[:2])}",
        given=f"{name} of shape {tuple(mask.shape)}",
        fix="run the encoder yourself and pass source=SourceFeatures(features, mask)",
    )


def _check_of_one_value(model: nn.Module, mask: Tensor) -> None:
    """Refuse a mask that hides something, whichever way it is meant."""
    if not hides_values(mask) and bool((mask == mask.flatten()[:1]).all()):
        return
    raise SourceError(
        f"{EITHER} of {type(model).__name__} may be true where a token is real, or where it is padding",
        expected=f"{REAL[0]} (true: real) or {PADDING[0]} (true: padding)",
        given=f"{EITHER} of shape {tuple(mask.shape)}",
        fix=f"run the encoder yourself and pass source=SourceFeatures(features, mask), or name it {REAL[0]}",
    )
