"""Source features: what a source encoder gives, checked once and made ready for the units once a forward."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import _pytree as fx_pytree
from torch.utils import _pytree as pytree

from mi2p_inject.core.errors import SourceError
from mi2p_inject.core.layout import describe
from mi2p_inject.core.numerics.recording import hides_values, is_recording
from mi2p_inject.core.views import ViewSpec
from mi2p_inject.sources.prepared import PreparedSource

__all__ = ["LARGEST", "SourceFeatures", "prepare"]


@dataclass(frozen=True)
class SourceFeatures:
    """Features of the other modality: tokens (B, L, D) with an optional mask, or a map (B, C, H, W).

    Args:
        data: floating tokens (B, L, D) or map (B, C, H, W).
        mask: (B, L), True (or 1) where a token is real and False (or 0) where it is padding; None: all are real.

    Raises:
        SourceError: wrong number of axes, not floating, or a mask that is none or of another shape.

    Examples:
        >>> import torch
        >>> from mi2p_inject import SourceFeatures
        >>> words = SourceFeatures(torch.randn(2, 7, 384), torch.ones(2, 7, dtype=torch.bool))
        >>> print(words.spec, len(words))
        tokens (B, L, 384) 2
    """

    data: Tensor
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        data = self.data
        if not isinstance(data, Tensor) or data.dim() not in (3, 4) or not data.is_floating_point():
            given = f"{data.dtype} {tuple(data.shape)}" if isinstance(data, Tensor) else type(data).__name__
            raise SourceError(
                "source features are neither tokens nor a map",
                expected="a floating tensor (B, L, D) or (B, C, H, W)",
                given=given,
                fix="pass the encoder's last hidden state or last map, not ids, logits or a pooled vector",
            )
        if self.mask is not None:
            if data.dim() != 3 or not isinstance(self.mask, Tensor) or self.mask.shape != data.shape[:2]:
                raise SourceError(
                    "the mask does not fit the tokens",
                    expected=f"(B, L) = {tuple(data.shape[:2])}" if data.dim() == 3 else "no mask: a map has none",
                    given=describe(self.mask),
                    fix="pass the attention mask that went with these very tokens",
                )
            _check_truth(self.mask)
            object.__setattr__(self, "mask", self.mask.to(device=data.device, dtype=torch.bool))

    def __len__(self) -> int:
        return int(self.data.shape[0])

    @property
    def spec(self) -> ViewSpec:
        """Kind, width and grid of these features."""
        return ViewSpec.of(self.data)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> SourceFeatures:
        """The same features on another device or in another floating dtype."""
        mask = None if self.mask is None else self.mask.to(device=device)
        return SourceFeatures(self.data.to(device=device, dtype=dtype), mask)

    def __getitem__(self, rows: slice | list[int] | Tensor) -> SourceFeatures:
        """The features of some rows (a slice, a list of indices or an index tensor), always with a batch axis."""
        return SourceFeatures(self.data[rows], None if self.mask is None else self.mask[rows])


def _flatten(features: SourceFeatures) -> tuple[list[Tensor | None], None]:
    return [features.data, features.mask], None


def _unflatten(parts: Iterable[Any], context: None) -> SourceFeatures:
    """Without the checks: tools put shapes and other things in the place of tensors."""
    features = object.__new__(SourceFeatures)
    for name, part in zip(("data", "mask"), parts, strict=True):
        object.__setattr__(features, name, part)
    return features


def _flatten_with_keys(features: SourceFeatures) -> tuple[list[tuple[Any, Tensor | None]], None]:
    return [(pytree.GetAttrKey("data"), features.data), (pytree.GetAttrKey("mask"), features.mask)], None


# torch.export, torch.compile and data parallelism take features apart and put them together again
pytree.register_pytree_node(
    SourceFeatures,
    _flatten,
    _unflatten,
    serialized_type_name="mi2p_inject.SourceFeatures",
    flatten_with_keys_fn=_flatten_with_keys,
)
# so that torch 2.6 runs what it exported
fx_pytree.register_pytree_flatten_spec(SourceFeatures, lambda features, spec: [features.data, features.mask])


def _check_truth(mask: Tensor) -> None:
    """Refuse a mask of other numbers than 0 and 1: one to add to scores would be read the wrong way round."""
    if mask.dtype == torch.bool or hides_values(mask) or bool(((mask == 0) | (mask == 1)).all()):
        return
    raise SourceError(
        "the mask holds other numbers than 0 and 1",
        expected="True (or 1) where a token is real, False (or 0) where it is padding",
        given=f"{mask.dtype} from {mask.min():g} to {mask.max():g}",
        fix="pass the tokenizer's attention mask; of a mask that is added to scores: mask == 0",
    )


def prepare(
    features: SourceFeatures,
    built: ViewSpec,
    dtype: torch.dtype,
    source_mask: Tensor | None = None,
    strict: bool = False,
    trim: bool = True,
) -> PreparedSource:
    """Check features against what the units were built for and bring them into the form units read.

    Args:
        features: what the source encoder gave, or the user.
        built: the spec the units were built for.
        dtype: the units' dtype.
        source_mask: (B,) bool, False for rows whose source is missing.
        strict: raise where a map would have to be pooled to the built grid.
        trim: leave out tokens that are padding in every row.

    Raises:
        SourceError: another kind or width; a source_mask of the wrong shape or dtype; another grid under strict; a NaN
            or infinity that is neither padding nor in a missing row.
    """
    data, mask, rows = features.data, features.mask, source_mask
    kind, width = ("map", data.shape[1]) if data.dim() == 4 else ("tokens", data.shape[2])
    if (kind, width) != (built.kind, built.width):
        raise SourceError(
            f"source features of the wrong {'kind' if kind != built.kind else 'width'}",
            expected=str(built),
            given=str(features.spec),
            fix="use the source encoder (or source_spec) this model was injected with, or inject again",
        )
    if source_mask is not None and (
        not isinstance(source_mask, Tensor) or source_mask.shape != data.shape[:1] or source_mask.dtype != torch.bool
    ):
        raise SourceError(
            "source_mask must say for each row whether its source is there",
            expected=f"a bool tensor of shape ({len(features)},)",
            given=f"{getattr(source_mask, 'dtype', '')} {describe(source_mask)}".strip(),
            fix="pass has_source.bool() with one entry per sample",
        )
    if source_mask is not None and source_mask.device != data.device:
        raise SourceError(
            "source_mask is on another device than the source features",
            expected=str(data.device),
            given=str(source_mask.device),
            fix="move it: source_mask.to(features.data.device)",
        )
    _check_finite(data, mask, source_mask, dtype)
    data = data.to(dtype)
    if not is_recording() and data.is_inference() and torch.is_grad_enabled():
        data = data.clone()  # autograd does not save tensors made in inference mode
    if built.kind == "map":
        if data.shape[2:] != built.grid:
            if strict:
                raise SourceError(
                    "source map of another grid than at injection (strict)",
                    expected=str(built),
                    given=str(features.spec),
                    fix="resize the source's input, inject with source_example_inputs= of this size, or strict=False",
                )
            data = F.adaptive_avg_pool2d(data, built.grid)
        data = data.flatten(2)
    elif mask is None and data.shape[1] == 0:  # no tokens: as if all were padding
        mask = data.new_ones(data.shape[:2], dtype=torch.bool)
    if mask is not None:
        if trim:
            data, mask = _trimmed(data, mask)
        data = data.masked_fill(~mask.unsqueeze(-1), 0)
        real = mask.any(1)
        rows = real if rows is None else rows & real
        mask = mask | ~real.unsqueeze(1)
    if rows is not None:
        data = data.masked_fill(~rows[:, None, None], 0)
    return PreparedSource(data, mask, rows, built.grid)


def _trimmed(data: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Without the columns that are padding in every row: they cost as much as words, and add exactly nothing."""
    if hides_values(data):
        # shapes must not depend on values there
        return data, mask
    used = mask.any(0)
    if bool(used.all()):
        return data, mask
    used[0] |= ~used.any()  # something has to be attended to
    return data[:, used], mask[:, used]


LARGEST = 1e30
"""Products of larger numbers leave the range of float32."""


def _check_finite(data: Tensor, mask: Tensor | None, rows: Tensor | None, dtype: torch.dtype) -> None:
    """Raise about NaN, infinity, and what `dtype` cannot hold, where they would count."""
    if hides_values(data):
        return
    largest = min(LARGEST, torch.finfo(dtype).max)
    finite = data.abs() <= largest
    if bool(finite.all()):
        return
    if mask is not None:
        finite = finite | ~mask.unsqueeze(-1)
    good = finite.flatten(1).all(1)
    if rows is not None:
        good = good | ~rows
    bad = (~good).nonzero().flatten().tolist()
    if bad:
        raise SourceError(
            "source features hold NaN, infinity or numbers too large to compute with",
            expected=f"finite numbers of at most {largest:g} in every real token (the units are {dtype})",
            given=f"bad rows {bad[:8]}{'…' if len(bad) > 8 else ''} of {len(data)}",
            fix="look at these samples and at the source encoder's precision (float16 overflows first)",
        )
