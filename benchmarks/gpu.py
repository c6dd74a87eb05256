"""What a GPU is asked: bfloat16, batches that fill it; on a machine without one these stay unmeasured.

Every function also runs on a CPU, and on the small models of `TINY`: that is how the tests run them.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from benchmarks.measure import Comparison, seconds_of, side_by_side

if TYPE_CHECKING:
    from mi2p_inject import ExpandedModel

__all__ = ["FULL", "TINY", "Pair", "Scale", "bert_units", "compared", "densenet_units", "profiled", "with_source"]


@dataclass(frozen=True)
class Scale:
    """Sizes of what is measured.

    Attributes:
        batch, tokens, pixels: of a step.
        rounds, warmup_rounds: of the measurement.
        bert, densenet: options of the models; {}: BERT-base and DenseNet-121.
        layers: of BERT.
    """

    batch: int = 256
    tokens: int = 128
    pixels: int = 224
    rounds: int = 30
    warmup_rounds: int = 5
    layers: int = 12
    bert: dict[str, Any] = field(default_factory=dict)
    densenet: dict[str, Any] = field(default_factory=dict)


FULL = Scale()
TINY = Scale(
    batch=4,
    tokens=8,
    pixels=64,
    rounds=1,
    warmup_rounds=0,
    layers=2,
    bert={"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    densenet={"growth_rate": 8, "block_config": (2, 2, 2, 2)},
)


@dataclass(frozen=True)
class Pair:
    """Two steps that are compared.

    Attributes:
        base: forward and backward of what ours is compared with.
        ours: of the expanded model.
        units: how many units it has.
    """

    base: Callable[[], object]
    ours: Callable[[], object]
    units: int


def compared(pair: Callable[..., Pair], *, scale: Scale = FULL, **options: Any) -> Comparison:
    """Seconds of a pair's two steps, in turn."""
    made = pair(scale=scale, **options)
    return side_by_side(made.base, made.ours, rounds=scale.rounds, warmup_rounds=scale.warmup_rounds)


def profiled(pair: Callable[..., Pair], *, scale: Scale = FULL, **options: Any) -> dict[str, Any]:
    """What a pair's steps ask of the device.

    Returns:
        "units": how many units ours has; for "base" and "ours" each: "kernels": how many it launches, "busy": seconds
        in which they run, "attention": seconds of these in fused attention, "launch": seconds until the step returns
        to Python, "wall": until the device is done.
    """
    made = pair(scale=scale, **options)
    steps = {"base": made.base, "ours": made.ours}
    for step in steps.values():
        for _ in range(scale.warmup_rounds):
            step()
    return {"units": made.units} | {name: _asked(step) for name, step in steps.items()}


def bert_units(*, all_sites: bool, quarter: bool = False, compiled: bool = False, scale: Scale = FULL) -> Pair:
    """ME BERT ÷ BERT; the maps are given.

    Args:
        all_sites: a unit after every layer; else at the recommended sites.
        quarter: of the batch: the card waits for Python then.
        compiled: both by `torch.compile(fullgraph=True)`.
        scale: sizes.
    """
    from benchmarks import models as m
    from mi2p_inject import SourceFeatures, ViewSpec, inject

    scale = replace(scale, batch=scale.batch // 4) if quarter else scale
    layers = [f"encoder.layer.{number}" for number in range(scale.layers)] if all_sites else None
    me = inject(m.bert(**scale.bert), layers, source_spec=ViewSpec.map(1024, 7, 7))
    source = SourceFeatures(torch.randn(scale.batch, 1024, 7, 7, device=m.DEVICE))
    return _pair(m.bert(**scale.bert), me, _ids(scale), source, compiled)


def densenet_units(*, compiled: bool = False, scale: Scale = FULL) -> Pair:
    """ME DenseNet ÷ DenseNet at the recommended site; the tokens are given. Arguments as those of `bert_units`."""
    from benchmarks import models as m
    from mi2p_inject import SourceFeatures, ViewSpec, inject

    me = inject(m.densenet(**scale.densenet), source_spec=ViewSpec.tokens(768))
    source = SourceFeatures(torch.randn(scale.batch, scale.tokens, 768, device=m.DEVICE))
    return _pair(m.densenet(**scale.densenet), me, _pixels(scale), source, compiled)


def with_source(*, text: bool, scale: Scale = FULL) -> Pair:
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
    me = inject(expanded, source_encoder=source)
    return Pair(base, _step(me, x, source=given), len(me.sites))


def _pair(base: nn.Module, ours: ExpandedModel, x: torch.Tensor, source: Any, compiled: bool) -> Pair:
    models: tuple[nn.Module, nn.Module] = (base, ours)
    if compiled:
        models = tuple(torch.compile(one, fullgraph=True) for one in models)  # type: ignore[assignment]
    return Pair(_step(models[0], x), _step(models[1], x, source=source), len(ours.sites))


def _asked(step: Callable[[], object]) -> dict[str, Any]:
    from torch.profiler import profile

    wall = statistics.median(seconds_of(step) for _ in range(5))
    started = time.perf_counter()
    step()
    launch = time.perf_counter() - started
    with profile() as recorded:
        seconds_of(step)
    events = recorded.events() or []
    kernels = [event for event in events if event.device_type.name == "CUDA"]
    attention = [event for event in events if event.device_type.name == "CPU" and _is_attention(event.name)]
    return {
        "kernels": len(kernels),
        "busy": sum(event.device_time_total for event in kernels) / 1e6,
        "attention": sum(event.device_time_total for event in attention) / 1e6,
        "launch": launch,
        "wall": wall,
    }


def _is_attention(operator: str) -> bool:
    """One of the operators that launch a fused kernel; those that call them (`_scaled_dot_product_…`) hold the same."""
    fused = operator.endswith(("attention_forward", "attention_backward"))
    return fused and operator.startswith("aten::_") and not operator.startswith("aten::_scaled_dot_product")


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
