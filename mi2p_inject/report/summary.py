"""The summary: where the units are, how large, and what they cost beside the backbone."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from mi2p_inject.core.expansion_config import ExpansionConfig
from mi2p_inject.core.human import human
from mi2p_inject.core.inputs import Inputs
from mi2p_inject.core.site import Site
from mi2p_inject.report.cost import DEFAULT_TOKENS, UnitCost, backbone_flops, count, text_length, unit_cost
from mi2p_inject.sources.encoder import Source

__all__ = ["Summary"]


@dataclass(frozen=True)
class Summary:
    """The parts of an expanded model that its summary reads; `str()` of it is the table.

    Costs are the operations of matrix products, convolutions and attention in one forward of one sample, counted by
    `torch.utils.flop_counter` on fake tensors: nothing is computed.
    """

    backbone: nn.Module
    units: nn.Module
    config: ExpansionConfig
    source: Source | None
    example: Inputs

    def __str__(self) -> str:
        costs = [(site, self._cost(site)) for site in self.config.sites]
        own = list(dict.fromkeys(column for _, cost in costs for column in cost.described))
        total = sum(cost.flops for _, cost in costs) or 1
        header = ("site", "layout", "view", *own, "parameters", "share of cost")
        cells = [
            (
                site.path,
                str(site.layout),
                str(site.spec),
                *(cost.described.get(column, "") for column in own),
                f"{cost.parameters:,}",
                f"{cost.flops / total:.1%}",
            )
            for site, cost in costs
        ]
        widths = [max(len(line[column]) for line in (header, *cells)) for column in range(len(header))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in (header, *cells)
        ]
        lines.insert(1, "-" * sum(widths, 2 * (len(widths) - 1)))
        return "\n".join([*lines, *self._totals(total)])

    @property
    def tokens(self) -> int:
        """Source tokens that the costs are counted for."""
        if self.config.source.kind == "map":
            return self.config.source.width
        return self.source.tokens if self.source else DEFAULT_TOKENS

    def _totals(self, flops: int) -> list[str]:
        backbone, units, config = count(self.backbone), count(self.units), self.config
        modules = (self.backbone, self.units)
        trains = sum(one.numel() for module in modules for one in module.parameters() if one.requires_grad)
        encoder = f" of a frozen {type(self.source.encoder).__name__}" if self.source else ", given as features"
        lines = [
            f"{type(self.backbone).__name__} + {len(config.sites)} units ({config.unit.kind}), "
            f"source: {config.source}{encoder}",
            f"parameters: backbone {backbone:,}, units {units:,} ({units / max(backbone, 1):.1%}); "
            f"trainable={config.trainable!r}: {trains:,} trainable",
        ]
        if config.left_out:
            lines.append(
                "left out, as the output ignores them, they do not run once, or their layout is unknown: "
                + ", ".join(config.left_out)
            )
        whole = backbone_flops(self.backbone, self.example)
        cost = f"cost of a forward of one sample, {self.tokens} source tokens: units {human(flops)}"
        if whole:
            cost += f", backbone {human(whole)} ({flops / whole:.1%} on top)"
        return [*lines, cost]

    def _cost(self, site: Site) -> UnitCost:
        config, length = self.config, text_length(self.example)
        return unit_cost(config.unit, site.spec, config.source, config.num_heads, length, self.tokens)
