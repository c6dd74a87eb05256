"""What a unit and a backbone cost: operations of one forward of one sample, counted, nothing computed.

Counted are matrix products, convolutions and attention, as `torch.utils.flop_counter` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mi2p_inject.core.inputs import Inputs
from mi2p_inject.core.views import ViewSpec
from mi2p_inject.inspection.dry_run import QuickNorm, on_fake_tensors
from mi2p_inject.sources.features import SourceFeatures, prepare
from mi2p_inject.units.base import UnitConfig, check_residual, check_unit

__all__ = ["DEFAULT_TOKENS", "UnitCost", "backbone_flops", "count", "empty_view", "text_length", "unit_cost"]

DEFAULT_TOKENS = 64
"""Tokens of a text of unknown length."""


@dataclass(frozen=True)
class UnitCost:
    """Of one unit: what it says of itself (`Unit.describe`), parameters, operations a sample."""

    described: Mapping[str, str]
    parameters: int
    flops: int


@cache
def unit_cost(
    config: UnitConfig, site: ViewSpec, source: ViewSpec, num_heads: int, site_tokens: int, source_tokens: int
) -> UnitCost:
    """The cost of a unit for one site and one source, from a unit on the meta device.

    Args:
        config: the unit's options.
        site: what it sees of the backbone.
        source: what it sees of the source.
        num_heads: attention heads by default, for kinds that have heads.
        site_tokens: tokens of the site, where it is seen as tokens.
        source_tokens: tokens of the source, where they are tokens.

    Raises:
        UnitError: the kind builds no unit, or one that gives no residual of the view's shape.
    """
    from torch.utils.flop_counter import FlopCounterMode  # takes most of a second to import

    with torch.device("meta"), torch.no_grad():
        unit = config.build(site, source, num_heads)
        check_unit(unit, config)
        view = empty_view(site, site_tokens)
        prepared = prepare(SourceFeatures(empty_view(source, source_tokens)), source, torch.float32)
        with FlopCounterMode(display=False) as counter:
            check_residual(unit(view, prepared), view, unit)
    return UnitCost(unit.describe(), count(unit), int(counter.get_total_flops()))


def backbone_flops(model: nn.Module, inputs: Inputs) -> int:
    """Operations of one sample, the first of `inputs`; 0 where the model does not run on fake tensors."""
    from torch.utils.flop_counter import FlopCounterMode

    try:
        with on_fake_tensors(model) as (copy, convert), torch.no_grad():
            args, kwargs = convert(pytree.tree_map_only(Tensor, lambda tensor: tensor[:1], inputs))
            with FlopCounterMode(display=False) as counter, QuickNorm():  # type: ignore[no-untyped-call]
                copy(*args, **kwargs)
    except Exception:
        return 0
    return int(counter.get_total_flops())


def text_length(inputs: Inputs) -> int:
    """Tokens of example inputs that are ids (B, L)."""
    shapes: list[Any] = [leaf.shape for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]
    return int(shapes[0][1]) if shapes and len(shapes[0]) == 2 else DEFAULT_TOKENS


def count(module: nn.Module) -> int:
    """Numbers in a module's parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def empty_view(spec: ViewSpec, tokens: int, batch: int = 1) -> Tensor:
    """A tensor as a unit sees it: a map, or so many tokens."""
    return torch.empty(batch, spec.width, *spec.grid) if spec.grid else torch.empty(batch, tokens, spec.width)
