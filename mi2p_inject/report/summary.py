"""The summary: where the units are, how large, and what they cost beside the backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

from torch import nn

from mi2p_inject.core.expansion_config import ExpansionConfig, UnitPlace
from mi2p_inject.core.human import human
from mi2p_inject.core.inputs import Inputs
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
    sources: Mapping[str, Source]
    example: Inputs

    def __str__(self) -> str:
        cells, totals = self._lines()
        widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
        lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
        lines.insert(1, "-" * sum(widths, 2 * (len(widths) - 1)))
        return "\n".join([*lines, *totals])

    def to_html(self) -> str:
        """The table for a notebook."""
        cells, totals = self._lines()
        tags = ["th", *["td"] * (len(cells) - 1)]
        rows = [
            "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in line) for tag, line in zip(tags, cells, strict=True)
        ]
        return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>{'<br>'.join(map(escape, totals))}"

    def _lines(self) -> tuple[list[tuple[str, ...]], list[str]]:
        """The cells of each line, the header's first, and what stands below the table."""
        costs = [(place, self._cost(place)) for place in self.config.places]
        by_name = self.config.named
        own = list(dict.fromkeys(column for _, cost in costs for column in cost.described))
        total = sum(cost.flops for _, cost in costs) or 1
        header = ("site", *(["source"] if by_name else []), "layout", "view", *own, "parameters", "share of cost")
        cells = [
            (
                place.site.path,
                *([place.source] if by_name else []),
                str(place.site.layout),
                str(place.site.spec),
                *(cost.described.get(column, "") for column in own),
                f"{cost.parameters:,}",
                f"{cost.flops / total:.1%}",
            )
            for place, cost in costs
        ]
        return [header, *cells], self._totals(total)

    def tokens(self, name: str) -> int:
        """Tokens of a source that the costs are counted for."""
        spec = self.config.sources[name].spec
        if spec.kind == "map":
            return spec.width
        return self.sources[name].tokens if name in self.sources else DEFAULT_TOKENS

    def _totals(self, flops: int) -> list[str]:
        backbone, units, config = count(self.backbone), count(self.units), self.config
        modules = (self.backbone, self.units)
        trains = sum(one.numel() for module in modules for one in module.parameters() if one.requires_grad)
        read = [f"source{f' {name}' if name else ''}: {self._described(name)}" for name in config.sources]
        lines = [
            f"{type(self.backbone).__name__} + {len(config.places)} units ({', '.join(config.kinds)}), "
            + "; ".join(read),
            f"parameters: backbone {backbone:,}, units {units:,} ({units / max(backbone, 1):.1%}); "
            f"trainable={config.trainable!r}: {trains:,} trainable",
        ]
        if config.left_out:
            lines.append(
                "left out, as the output ignores them, they do not run once, or their layout is unknown: "
                + ", ".join(config.left_out)
            )
        whole = backbone_flops(self.backbone, self.example)
        tokens = " and ".join(
            f"{self.tokens(name)} {f'tokens of {name}' if name else 'source tokens'}" for name in config.sources
        )
        cost = f"cost of a forward of one sample, {tokens}: units {human(flops)}"
        if whole:
            cost += f", backbone {human(whole)} ({flops / whole:.1%} on top)"
        return [*lines, cost]

    def _described(self, name: str) -> str:
        """A source's features, and what gives them."""
        spec = self.config.sources[name].spec
        if name not in self.sources:
            return f"{spec}, given as features"
        return f"{spec} of a frozen {type(self.sources[name].encoder).__name__}"

    def _cost(self, place: UnitPlace) -> UnitCost:
        config, length = self.config, text_length(self.example)
        read = config.sources[place.source]
        return unit_cost(read.unit, place.site.spec, read.spec, config.num_heads, length, self.tokens(place.source))
