"""`record_attention`: the attention weights of an expanded model's units, forward by forward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from mi2p_inject.core.errors import ExplainError
from mi2p_inject.core.expansion_config import UnitPlace
from mi2p_inject.core.numerics.weights_taken import Axis
from mi2p_inject.expansion.call import Call, Recorder, UnitForward
from mi2p_inject.expansion.expanded_model import ExpandedModel
from mi2p_inject.units.base import Unit

__all__ = ["AttentionRecord", "SiteAttention", "record_attention", "recording"]


@final
@dataclass(frozen=True, eq=False)
class SiteAttention:
    """What one site's unit attended to in one forward.

    Attributes:
        path: the site's.
        weights: (B, heads, queries, keys), detached. A row sums to 1; padding has 0. In rows without a source all are
            0: nothing was attended to.
        queries, keys: what they are: "channels" or "pixels" of a map (row by row), or "tokens".
        query_grid, key_grid: (H, W) of the map that pixels are of, or channels have; None for tokens.
        rows: (B,) False where the source was missing.
        view: the hidden state that attended, (B, C, H, W) or (B, L, D), before anything was added; None unless asked.
    """

    path: str
    weights: Tensor
    queries: Axis
    keys: Axis
    query_grid: tuple[int, int] | None
    key_grid: tuple[int, int] | None
    rows: Tensor
    view: Tensor | None = None
    _in_graph: Tensor | None = field(default=None, repr=False)


@final
class AttentionRecord(Mapping[str, SiteAttention]):
    """Site path -> its attention in the last forward that was recorded; `forwards` has all of them, in order.

    Where sources have names, one of a site is under ``name:path``.

    A method that runs the backbone often, as `me.call("generate", ...)` does, gives one entry for each time.

    Args:
        silent: path -> kind of the units that have no attention.
        gradients: keep the weights in the graph, for `gradients`.
        views: keep each site's hidden state.
    """

    def __init__(self, silent: Mapping[str, str], gradients: bool = False, views: bool = False) -> None:
        self.silent, self._gradients, self._views = dict(silent), gradients, views
        self._forwards: list[dict[str, SiteAttention]] = []
        self._calls: list[Call] | None = []  # whose each is, while the block lasts

    @property
    def forwards(self) -> tuple[Mapping[str, SiteAttention], ...]:
        """Each forward's attention by site."""
        return tuple(self._forwards)

    def __getitem__(self, path: str) -> SiteAttention:
        last = self._forwards[-1] if self._forwards else {}
        if path in last:
            return last[path]
        why, fix = "no site of this forward has this path", "use one of the sites' paths, as me.summary() shows them"
        if path in self.silent:
            why = f"the unit there, of the kind {self.silent[path]!r}, has no attention"
            fix = "use a unit that attends: mi2p, mi2p-paper, cross-attention"
        elif not last:
            why = "no forward with a source ran in the block, in its thread"
            fix = "run me(x, source=s) in the block; a compiled model records nothing"
        raise ExplainError(
            f"no attention was recorded: {why}",
            path=path,
            expected=f"one of {', '.join(last)}" if last else "a forward with a source",
            given=path,
            fix=fix,
        )

    def __contains__(self, path: object) -> bool:
        return bool(self._forwards) and path in self._forwards[-1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._forwards[-1] if self._forwards else ())

    def __len__(self) -> int:
        return len(self._forwards[-1]) if self._forwards else 0

    def gradients(self, score: Tensor) -> dict[str, Tensor]:
        """The gradient of a number by each site's weights in the last forward, (B, heads, queries, keys).

        Args:
            score: a scalar computed from the last forward's output.

        Raises:
            ExplainError: the weights are not in its graph.
        """
        graphs = {path: one._in_graph for path, one in self.items() if one._in_graph is not None}
        if not graphs or not score.requires_grad:
            raise ExplainError(
                "the weights are not in the graph of this number",
                expected="record_attention(me, gradients=True), and a forward with gradients enabled",
                given=f"{len(graphs)} sites in a graph, score.requires_grad={score.requires_grad}",
                fix="record with gradients=True, outside torch.no_grad()",
            )
        found = torch.autograd.grad(score, list(graphs.values()), retain_graph=True, allow_unused=True)
        return {
            path: torch.zeros_like(self[path].weights) if one is None else _only(one.detach(), self[path].rows)
            for path, one in zip(graphs, found, strict=True)
        }

    def take(self, call: Call, place: UnitPlace, unit: Unit, did: UnitForward) -> None:
        """As `mi2p_inject.expansion.call.Recorder` says."""
        axes, weights = unit.attention_axes(), did.weights
        if self._calls is None or (axes is None and not weights):
            return
        if axes is None or len(weights) != 1:
            raise ExplainError(
                f"the unit {type(unit).__name__} handed over {len(weights)} attentions",
                path=place.site.path,
                expected="one, and attention_axes() that says what its queries and keys are",
                given=f"attention_axes() = {axes}",
                fix="a compiled unit hands over none: record with the unit as it was built",
            )
        mine = [number for number, one in enumerate(self._calls) if one is call]
        if not mine or place.label in self._forwards[mine[-1]]:
            self._calls.append(call)
            self._forwards.append({})
            mine = [len(self._calls) - 1]
        (raw,), rows, view = weights, did.source.rows, did.view
        rows = raw.new_ones(raw.shape[0], dtype=torch.bool) if rows is None else rows
        self._forwards[mine[-1]][place.label] = SiteAttention(
            path=place.site.path,
            weights=_only(raw.detach(), rows),
            queries=axes[0],
            keys=axes[1],
            query_grid=(view.shape[2], view.shape[3]) if view.dim() == 4 else None,
            key_grid=did.source.grid,
            rows=rows,
            view=view.detach().clone() if self._views else None,
            _in_graph=raw if self._gradients and raw.requires_grad else None,
        )

    def close(self) -> None:
        """Nothing is taken any more."""
        self._calls = None


@contextmanager
def record_attention(me: ExpandedModel, *, gradients: bool = False, views: bool = False) -> Iterator[AttentionRecord]:
    """A block in which the units of an expanded model hand over their attention weights, in this thread.

    Units then form their weights as a whole, which they do not do otherwise; their output is the same within rounding.
    Nothing else changes, no hook is added, and other expanded models and threads run as ever. Forwards without a source
    record nothing, nor do compiled, exported or traced models, nor units without attention (film, mmtm), which
    `silent` of the record names.

    Args:
        me: the expanded model.
        gradients: keep the weights in the graph, so that `AttentionRecord.gradients` can follow a number back to them.
        views: keep the hidden state at each site, too.

    Raises:
        ExplainError: it is no expanded model, or none of its units attends.

    Examples:
        >>> import torch
        >>> from mi2p_inject import SourceFeatures, ViewSpec, inject
        >>> from mi2p_inject.explain import record_attention
        >>> net, x = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3)), torch.randn(2, 3, 8, 8)
        >>> me = inject(net, layers="0", source_spec=ViewSpec.tokens(4), example_inputs=x, num_heads=4)
        >>> with record_attention(me) as seen:
        ...     y = me(x, source=SourceFeatures(torch.randn(2, 5, 4)))
        >>> seen["0"].weights.shape, seen["0"].queries, seen["0"].keys
        (torch.Size([2, 4, 8, 5]), 'channels', 'tokens')
    """
    if not isinstance(me, ExpandedModel):
        raise ExplainError(
            "only an expanded model has units",
            expected="what inject or load returned",
            given=type(me).__name__,
            fix="pass the expanded model itself, not what wraps it",
        )
    config = me.expansion_config
    units = {place: me.unit(place.site.path, place.source) for place in config.places}
    silent = {
        place.label: config.sources[place.source].unit.kind
        for place, unit in units.items()
        if unit.attention_axes() is None
    }
    if len(silent) == len(units):
        raise ExplainError(
            f"no unit of this model attends: their kind is {_kind(me)!r}",
            expected="units that attend: mi2p, mi2p-paper, cross-attention",
            given=_kind(me),
            fix="inject such a unit",
        )
    seen = AttentionRecord(silent, gradients, views)
    try:
        with recording(me, seen):
            yield seen
    finally:
        seen.close()


@contextmanager
def recording(me: ExpandedModel, recorder: Recorder) -> Iterator[None]:
    """A block in which what the model's units do, in this thread, is given to a recorder too."""
    outer = me.calls.now.recorders
    me.calls.now.recorders = (*outer, recorder)
    try:
        yield
    finally:
        me.calls.now.recorders = outer


def _kind(me: ExpandedModel) -> str:
    return ", ".join(me.expansion_config.kinds)


def _only(weights: Tensor, rows: Tensor) -> Tensor:
    """Zero in rows without a source."""
    return weights.masked_fill(~rows[:, None, None, None], 0)
