"""What a GPU is asked: bfloat16, batches that fill it; on a machine without one these stay unmeasured.

Every function also runs on a CPU, and on the small models of `TINY`: that is how the tests run them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from benchmarks.measure import Comparison, side_by_side

__all__ = ["FULL", "TINY", "Scale", "bert_units", "densenet_units", "with_source"]


@dataclass(frozen=True)
class Scale:
    """Sizes of what is measured.

    Attributes:
        batch, tokens, pixels: of a step.
        rounds, warmup_rounds: of the measurement.
        bert, densenet: options of the models; {}: BERT-base and DenseNet-121.
        layers: of BERT.
    """

    batch: int = 64
    tokens: int = 128
    pixels: int = 224
    rounds: int = 30
    warmup_rounds: int = 5
    layers: int = 12
    bert: dict[str, Any] = field(default_factory=dict)
    densenet: dict[str, Any] = field(default_factory=dict)


FULL = Scale()
TINY = Scale(
    batch=2,
    tokens=8,
    pixels=64,
    rounds=1,
    warmup_rounds=0,
    layers=2,
    bert={"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    densenet={"growth_rate": 8, "block_config": (2, 2, 2, 2)},
)


def bert_units(*, all_sites: bool, compiled: bool = False, scale: Scale = FULL) -> Comparison:
    """ME BERT ÷ BERT; the maps are given.

    Args:
        all_sites: a unit after every layer; else at the recommended sites.
        compiled: both by `torch.compile(fullgraph=True)`.
        scale: sizes.
    """
    from benchmarks import models as m
    from mi2p_inject import SourceFeatures, ViewSpec, inject

    layers = [f"encoder.layer.{number}" for number in range(scale.layers)] if all_sites else None
    me = inject(m.bert(**scale.bert), layers, source_spec=ViewSpec.map(1024, 7, 7))
    source = SourceFeatures(torch.randn(scale.batch, 1024, 7, 7, device=m.DEVICE))
    return _compared(m.bert(**scale.bert), me, _ids(scale), source, compiled, scale)


def densenet_units(*, compiled: bool = False, scale: Scale = FULL) -> Comparison:
    """ME DenseNet ÷ DenseNet at the recommended site; the tokens are given. Arguments as those of `bert_units`."""
    from benchmarks import models as m
    from mi2p_inject import SourceFeatures, ViewSpec, inject

    me = inject(m.densenet(**scale.densenet), source_spec=ViewSpec.tokens(768))
    source = SourceFeatures(torch.randn(scale.batch, scale.tokens, 768, device=m.DEVICE))
    return _compared(m.densenet(**scale.densenet), me, _pixels(scale), source, compiled, scale)


def with_source(*, text: bool, scale: Scale = FULL) -> Comparison:
    """A step with the frozen source encoder inside ÷ the backbone's step and the source encoder's forward.

    Args:
        text: ME BERT with DenseNet as the source; else ME DenseNet with BERT.
        scale: sizes.
    """
    from benchmarks import models as m
    from mi2p_inject import inject

    def pair() -> tuple[nn.Module, nn.Module]:
        both = m.bert(**scale.bert), m.densenet(**scale.densenet)
        return both if text else both[::-1]

    x, other = (_ids(scale), _pixels(scale))[:: 1 if text else -1]
    backbone, encoder = pair()
    encoder.eval()
    alone = _step(backbone, x)
    read = functools.partial(m.features_of, encoder, other)

    def base() -> None:
        with torch.no_grad(), _autocast():
            read()
        alone()

    expanded, source = pair()
    given: Any = other if text else {"input_ids": other}
    return _measured(base, _step(inject(expanded, source_encoder=source), x, source=given), scale)


def _compared(
    base: nn.Module, ours: nn.Module, x: torch.Tensor, source: Any, compiled: bool, scale: Scale
) -> Comparison:
    if compiled:
        base, ours = (torch.compile(one, fullgraph=True) for one in (base, ours))  # type: ignore[assignment]
    return _measured(_step(base, x), _step(ours, x, source=source), scale)


def _measured(base: Callable[[], object], ours: Callable[[], object], scale: Scale) -> Comparison:
    return side_by_side(base, ours, rounds=scale.rounds, warmup_rounds=scale.warmup_rounds)


def _step(model: nn.Module, *args: Any, **kwargs: Any) -> Callable[[], object]:
    """Forward and backward; the forward under autocast to bfloat16."""
    from benchmarks import models as m

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with _autocast():
            loss = m.hidden(model(*args, **kwargs)).float().square().mean()
        loss.backward()

    return step


def _autocast() -> torch.autocast:
    from benchmarks import models as m

    return torch.autocast(m.DEVICE, torch.bfloat16)


def _ids(scale: Scale) -> torch.Tensor:
    from benchmarks import models as m

    return torch.randint(0, 30_000, (scale.batch, scale.tokens), device=m.DEVICE)


def _pixels(scale: Scale) -> torch.Tensor:
    from benchmarks import models as m

    return torch.randn(scale.batch, 3, scale.pixels, scale.pixels, device=m.DEVICE)
