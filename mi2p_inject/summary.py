"""The summary: where the units are, how large, and what they cost beside the backbone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from mi2p_inject.dry_run import on_fake_tensors
from mi2p_inject.expanded import ExpandedModel
from mi2p_inject.features import SourceFeatures, prepare
from mi2p_inject.sites import Site
from mi2p_inject.views import ViewSpec

DEFAULT_TOKENS = 64


def summarise(model: ExpandedModel) -> str:
    """The table that `ExpandedModel.summary` returns.

    Costs are the operations of matrix products, convolutions and attention in one forward of one sample, counted by
    `torch.utils.flop_counter` on fake tensors: nothing is computed.
    """
    rows = [_row(model, site) for site in model.sites]
    total = sum(flops for *_, flops in rows) or 1
    header = ("site", "layout", "view", "heads", "parameters", "share of cost")
    cells = [
        (path, layout, view, heads, f"{parameters:,}", f"{flops / total:.1%}")
        for path, layout, view, heads, parameters, flops in rows
    ]
    widths = [max(len(line[column]) for line in (header, *cells)) for column in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (header, *cells)
    ]
    lines.insert(1, "-" * sum(widths, 2 * (len(widths) - 1)))
    return "\n".join([*lines, *_totals(model, total)])


def _row(model: ExpandedModel, site: Site) -> tuple[str, str, str, str, int, int]:
    unit = model.unit(site.path)
    asked = getattr(model.blueprint.unit, "heads", None) or model.blueprint.heads
    heads = str(unit.heads) if unit.heads == asked else f"{unit.heads} (asked {asked}, {site.spec.vector} numbers)"
    return site.path, str(site.layout), str(site.spec), heads, _count(unit), _unit_flops(model, site)


def _totals(model: ExpandedModel, flops: int) -> list[str]:
    backbone, units = _count(model.backbone), _count(model.units)
    trains = sum(parameter.numel() for parameter in model.trainable_parameters())
    lines = [
        f"{type(model.backbone).__name__} + {len(model.sites)} units ({model.blueprint.unit.kind}), "
        f"source: {model.blueprint.source}"
        + (
            f" of a frozen {type(model.source_encoder).__name__}"
            if model.source_encoder is not None
            else ", given as features"
        ),
        f"parameters: backbone {backbone:,}, units {units:,} ({units / max(backbone, 1):.1%}); "
        f"train={model.blueprint.train!r}: {trains:,} trainable",
    ]
    if model.blueprint.left_out:
        lines.append(f"left out, as the model ignores their patch tokens: {', '.join(model.blueprint.left_out)}")
    whole = _backbone_flops(model)
    cost = f"cost of a forward of one sample, {_tokens(model)} source tokens: units {_human(flops)}"
    if whole:
        cost += f", backbone {_human(whole)} ({flops / whole:.1%} on top)"
    return [*lines, cost]


def _unit_flops(model: ExpandedModel, site: Site) -> int:
    blueprint = model.blueprint
    with torch.device("meta"), torch.no_grad():
        unit = blueprint.unit.build(site.spec, blueprint.source, blueprint.heads)
        view = _empty_view(site.spec, _site_tokens(model))
        source = prepare(SourceFeatures(_empty_view(blueprint.source, _tokens(model))), blueprint.source, torch.float32)
        with FlopCounterMode(display=False) as counter:
            unit(view, source)
    return int(counter.get_total_flops())


def _backbone_flops(model: ExpandedModel) -> int:
    """0 where the backbone does not run on fake tensors."""
    try:
        with on_fake_tensors(model.backbone) as (copy, convert), torch.no_grad():
            args, kwargs = convert(pytree.tree_map_only(Tensor, lambda tensor: tensor[:1], model.example))
            with FlopCounterMode(display=False) as counter:
                copy(*args, **kwargs)
    except Exception:
        return 0
    return int(counter.get_total_flops())


def _empty_view(spec: ViewSpec, tokens: int) -> Tensor:
    return torch.empty(1, spec.width, *spec.grid) if spec.grid else torch.empty(1, tokens, spec.width)


def _tokens(model: ExpandedModel) -> int:
    if model.blueprint.source.kind == "map":
        return model.blueprint.source.width
    return model.source.tokens if model.source else DEFAULT_TOKENS


def _site_tokens(model: ExpandedModel) -> int:
    shapes: list[Any] = [leaf.shape for leaf in pytree.tree_leaves(model.example) if isinstance(leaf, Tensor)]
    return int(shapes[0][1]) if shapes and len(shapes[0]) == 2 else DEFAULT_TOKENS


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _human(flops: float) -> str:
    for unit in ("", "k", "M", "G"):
        if flops < 1000:
            return f"{flops:.3g} {unit}FLOP"
        flops /= 1000
    return f"{flops:.3g} TFLOP"
