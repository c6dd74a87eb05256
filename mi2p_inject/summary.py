"""The summary: where the units are, how large, and what they cost beside the backbone."""

from __future__ import annotations

from mi2p_inject.cost import DEFAULT_TOKENS, UnitCost, backbone_flops, count, human, text_length, unit_cost
from mi2p_inject.expanded import ExpandedModel
from mi2p_inject.sites import Site


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
    cost = _cost(model, site)
    asked = getattr(model.blueprint.unit, "heads", None) or model.blueprint.heads
    heads = str(cost.heads) if cost.heads == asked else f"{cost.heads} (asked {asked}, {site.spec.vector} numbers)"
    return site.path, str(site.layout), str(site.spec), heads, cost.parameters, cost.flops


def _totals(model: ExpandedModel, flops: int) -> list[str]:
    backbone, units = count(model.backbone), count(model.units)
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
        left_out = ", ".join(model.blueprint.left_out)
        lines.append(f"left out, as they are not heard, do not run once or cannot be read: {left_out}")
    whole = backbone_flops(model.backbone, model.example)
    cost = f"cost of a forward of one sample, {_tokens(model)} source tokens: units {human(flops)}"
    if whole:
        cost += f", backbone {human(whole)} ({flops / whole:.1%} on top)"
    return [*lines, cost]


def _cost(model: ExpandedModel, site: Site) -> UnitCost:
    blueprint = model.blueprint
    length = text_length(model.example)
    return unit_cost(blueprint.unit, site.spec, blueprint.source, blueprint.heads, length, _tokens(model))


def _tokens(model: ExpandedModel) -> int:
    if model.blueprint.source.kind == "map":
        return model.blueprint.source.width
    return model.source.tokens if model.source else DEFAULT_TOKENS
