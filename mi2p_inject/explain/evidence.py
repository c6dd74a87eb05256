"""`explain`: what the attention of an expanded model says of one number, and what its source's features say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from mi2p_inject.core.errors import ExplainError
from mi2p_inject.core.expansion_config import UNNAMED, UnitPlace
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
        self.of: dict[UnitPlace, Tensor] = {}

    def take(self, call: Call, place: UnitPlace, unit: Unit, did: UnitForward) -> None:
        """As `mi2p_inject.expansion.call.Recorder` says."""
        self.of[place] = did.residual


def attends(me: ExpandedModel) -> bool:
    """Whether some unit of the model has attention."""
    return any(me.unit(one.site.path, one.source).attention_axes() is not None for one in me.expansion_config.places)


def explain(me: ExpandedModel, *args: Any, source: Any, score: Callable[[Any], Tensor], **kwargs: Any) -> Any:
    """The evidence for a number that is computed from the expanded model's output.

    Args:
        me: the expanded model, as it is: in eval mode, as a rule.
        *args: the backbone's own arguments, as are `**kwargs`.
        source: as for the model's forward; encoded once.
        score: of the output: (B,) numbers, such as ``lambda output: output[:, 3]``.

    Returns:
        `Evidence`; by name where sources have names: that of each source which is given, all of one forward.

    Raises:
        ExplainError: the score is no number a sample, or does not depend on a source.
        SourceError: as for the model's forward.

    Source: gradient × attention as in Chefer et al. 2021 (https://arxiv.org/abs/2103.15679), with its sign and without
    its propagation through layers: units stand beside the backbone, not in a row.

    Examples:
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
    if not me.expansion_config.named:
        features = source if isinstance(source, SourceFeatures) else me.encode(source)
        return evidence(me, features, lambda given: score(me(*args, source=given, **kwargs)))
    encoded: Mapping[str, SourceFeatures] = me.encode(source)
    return _evidence(me, encoded, lambda given: score(me(*args, source=given, **kwargs)))


def evidence(
    me: ExpandedModel, features: SourceFeatures, run: Callable[[SourceFeatures], Tensor], name: str = UNNAMED
) -> Evidence:
    """As `explain`, for a number that a larger model computes with an expanded one inside it.

    Args:
        me: the expanded model inside.
        features: its source's.
        run: of the features that `me` is to be given: (B,) numbers.
        name: of the source, where sources have names; the others are what `run` gives.

    Raises:
        ExplainError: as `explain`.
    """
    return _evidence(me, {name: features}, lambda given: run(given[name]))[name]


def _evidence(
    me: ExpandedModel,
    features: Mapping[str, SourceFeatures],
    run: Callable[[Mapping[str, SourceFeatures]], Tensor],
) -> dict[str, Evidence]:
    leaves = {
        name: SourceFeatures(one.data.detach().clone().requires_grad_(), one.mask) for name, one in features.items()
    }
    recorded = record_attention(me, gradients=True, views=True) if attends(me) else nullcontext()
    residuals = _Residuals()
    with torch.enable_grad(), recorded as seen, recording(me, residuals):
        score = run(leaves)
        count = {len(one) for one in leaves.values()}
        if not isinstance(score, Tensor) or score.dim() != 1 or count != {len(score)}:
            raise ExplainError(
                "the score is no number a sample",
                expected=f"a tensor of shape ({', '.join(map(str, sorted(count)))},)",
                given=str(tuple(score.shape)) if isinstance(score, Tensor) else type(score).__name__,
                fix="choose one class: score=lambda output: output[:, 3]",
            )
        total = score.sum()
        of_data = _gradients(total, leaves)
        gradients = {} if seen is None else seen.gradients(total)
        added = residuals.of
        of_residuals = torch.autograd.grad(total, list(added.values()), retain_graph=True, allow_unused=True)
    by_residual = {
        place: torch.zeros_like(_by_place(one)) if gradient is None else _by_place(one * gradient)
        for (place, one), gradient in zip(added.items(), of_residuals, strict=True)
    }
    found = {}
    for name, leaf in leaves.items():
        by_source = _by_place(of_data[name] * leaf.data)
        if leaf.mask is not None:
            by_source = by_source.masked_fill(~leaf.mask, 0)
        mine = [place for place in added if place.source == name]
        attention = {place.site.path: seen[place.label] for place in mine if seen is not None and place.label in seen}
        by_attention = {
            place.site.path: seen[place.label].weights * gradients[place.label]
            for place in mine
            if seen is not None and place.label in gradients
        }
        of_source = {place.site.path: by_residual[place] for place in mine}
        found[name] = Evidence(score.detach(), attention, by_attention, by_source, of_source)
    return found


def _gradients(total: Tensor, leaves: Mapping[str, SourceFeatures]) -> dict[str, Tensor]:
    """By each source's features.

    Raises:
        ExplainError: there is none by one of them.
    """
    data = [leaf.data for leaf in leaves.values()]
    known = total.requires_grad
    gradients = torch.autograd.grad(total, data, retain_graph=True, allow_unused=True) if known else [None] * len(data)
    found = {}
    for name, gradient in zip(leaves, gradients, strict=True):
        if gradient is None:
            raise ExplainError(
                f"the score does not depend on the source{f' {name!r}' if name else ''}",
                expected="a number computed from the output, with its graph",
                given="one without a gradient by the source's features",
                fix="compute it from the output without detach(), item() or no_grad()",
            )
        found[name] = gradient
    return found


def _by_place(numbers: Tensor) -> Tensor:
    """(B, C, H, W) summed over channels, (B, L, D) over features."""
    found: Tensor = numbers.detach().sum(1 if numbers.dim() == 4 else 2)
    return found
