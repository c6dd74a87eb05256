"""`explain`: what the attention of an expanded model says of one number, and what its source's features say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from mi2p_inject.core.errors import ExplainError
from mi2p_inject.core.expansion_config import UnitPlace
from mi2p_inject.expansion.call import Call, UnitForward
from mi2p_inject.expansion.expanded_model import ExpandedModel
from mi2p_inject.explain.record import SiteAttention, record_attention, recording
from mi2p_inject.sources.features import SourceFeatures
from mi2p_inject.units.base import Unit

__all__ = ["Evidence", "attends", "evidence", "explain"]


@final
@dataclass(frozen=True, eq=False)
class Evidence:
    """Attention, and the evidence for a number, of a batch.

    Attributes:
        score: (B,) the numbers that are explained, such as one class's logits.
        attention: site path -> what its unit attended to; empty for units without attention.
        by_attention: site path -> gradient × attention (B, heads, queries, keys): to first order, what each weight adds
            to the number.
        by_source: gradient × features, summed over what is no place: (B, L) of tokens, (B, H, W) of a map. To first
            order, what each place of the source adds to the number, for any kind of unit.
        by_residual: site path -> gradient × residual, summed over channels or features: (B, H, W) of a map, (B, L) of
            tokens. To first order, what the unit adds to the number at each place of the backbone, for any kind of
            unit (of a map as in Grad-CAM, https://arxiv.org/abs/1610.02391, with every place's own gradient).
    """

    score: Tensor
    attention: Mapping[str, SiteAttention]
    by_attention: Mapping[str, Tensor]
    by_source: Tensor
    by_residual: Mapping[str, Tensor]


class _Residuals:
    """Each site's residual in the last forward, in the graph."""

    def __init__(self) -> None:
        self.of: dict[str, Tensor] = {}

    def take(self, call: Call, place: UnitPlace, unit: Unit, did: UnitForward) -> None:
        """As `mi2p_inject.expansion.call.Recorder` says."""
        self.of[place.label] = did.residual


def attends(me: ExpandedModel) -> bool:
    """Whether some unit of the model has attention."""
    return any(me.unit(one.site.path, one.source).attention_axes() is not None for one in me.expansion_config.places)


def explain(me: ExpandedModel, *args: Any, source: Any, score: Callable[[Any], Tensor], **kwargs: Any) -> Evidence:
    """The evidence for a number that is computed from the expanded model's output.

    Args:
        me: the expanded model, as it is: in eval mode, as a rule.
        *args: the backbone's own arguments, as are `**kwargs`.
        source: as for the model's forward; encoded once.
        score: of the output: (B,) numbers, such as ``lambda output: output[:, 3]``.

    Raises:
        ExplainError: the score is no number a sample, or does not depend on the source.
        SourceError: as for the model's forward.

    Source: gradient × attention as in Chefer et al. 2021 (https://arxiv.org/abs/2103.15679), with its sign and without
    its propagation through layers: units stand beside the backbone, not in a row.

    Example:
        >>> import torch
        >>> from mi2p_inject import SourceFeatures, ViewSpec, inject
        >>> from mi2p_inject.explain import explain
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8 * 36, 2))
        >>> x, words = torch.randn(2, 3, 8, 8), SourceFeatures(torch.randn(2, 5, 4))
        >>> me = inject(net, layers="0", source_spec=ViewSpec.tokens(4), example_inputs=x, zero_init=None, num_heads=2)
        >>> found = explain(me, x, source=words, score=lambda logits: logits[:, 1])
        >>> found.by_source.shape, found.by_attention["0"].shape  # five words; two heads, eight channels
        (torch.Size([2, 5]), torch.Size([2, 2, 8, 5]))
        >>> found.by_residual["0"].shape  # the backbone's map
        torch.Size([2, 6, 6])
    """
    if me.expansion_config.named:
        raise ExplainError(
            "evidence is that of one source, and this model's sources have names",
            expected="a model injected with one source",
            given=f"sources {', '.join(me.expansion_config.sources)}",
            fix="record_attention(me) has the attention of each; or inject the source to explain alone",
        )
    features = source if isinstance(source, SourceFeatures) else me.encode(source)
    return evidence(me, features, lambda given: score(me(*args, source=given, **kwargs)))


def evidence(me: ExpandedModel, features: SourceFeatures, run: Callable[[SourceFeatures], Tensor]) -> Evidence:
    """As `explain`, for a number that a larger model computes with an expanded one inside it.

    Args:
        me: the expanded model inside.
        features: its source's.
        run: of the features that `me` is to be given: (B,) numbers.

    Raises:
        ExplainError: as `explain`.
    """
    leaf = SourceFeatures(features.data.detach().clone().requires_grad_(), features.mask)
    recorded = record_attention(me, gradients=True, views=True) if attends(me) else nullcontext()
    residuals = _Residuals()
    with torch.enable_grad(), recorded as seen, recording(me, residuals):
        score = run(leaf)
        if not isinstance(score, Tensor) or score.shape != leaf.data.shape[:1]:
            raise ExplainError(
                "the score is no number a sample",
                expected=f"a tensor of shape ({len(leaf)},)",
                given=str(tuple(score.shape)) if isinstance(score, Tensor) else type(score).__name__,
                fix="choose one class: score=lambda output: output[:, 3]",
            )
        total = score.sum()
        of_data = None
        if total.requires_grad:
            of_data = torch.autograd.grad(total, leaf.data, retain_graph=True, allow_unused=True)[0]
        if of_data is None:
            raise ExplainError(
                "the score does not depend on the source",
                expected="a number computed from the output, with its graph",
                given="one without a gradient by the source's features",
                fix="compute it from the output without detach(), item() or no_grad()",
            )
        gradients = {} if seen is None else seen.gradients(total)
        added = residuals.of
        of_residuals = torch.autograd.grad(total, list(added.values()), retain_graph=True, allow_unused=True)
    by_source = _by_place(of_data * leaf.data)
    if leaf.mask is not None:
        by_source = by_source.masked_fill(~leaf.mask, 0)
    attention = {} if seen is None else dict(seen)
    by_attention = {path: attention[path].weights * gradient for path, gradient in gradients.items()}
    by_residual = {
        path: torch.zeros_like(_by_place(one)) if gradient is None else _by_place(one * gradient)
        for (path, one), gradient in zip(added.items(), of_residuals, strict=True)
    }
    return Evidence(score.detach(), attention, by_attention, by_source, by_residual)


def _by_place(numbers: Tensor) -> Tensor:
    """(B, C, H, W) summed over channels, (B, L, D) over features."""
    found: Tensor = numbers.detach().sum(1 if numbers.dim() == 4 else 2)
    return found
