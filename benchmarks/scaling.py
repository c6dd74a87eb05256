"""How the cost of units grows: with source tokens, with channels, with the number of sites."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.measure import seconds_of
from mi2p_inject import MI2P, SourceFeatures, ViewSpec
from mi2p_inject.sources.features import prepare

__all__ = ["Curve", "all_curves", "curves", "unit_step"]


@dataclass(frozen=True)
class Curve:
    """Seconds of forward and backward of units, against one size; the other sizes stay.

    Attributes:
        name: of the size.
        sizes: its values.
        seconds: all samples at each value.
    """

    name: str
    sizes: list[int]
    seconds: list[list[float]]

    @property
    def slope(self) -> float:
        """Of log seconds against log size, over the larger half of the sizes: 1 is linear growth."""
        half = len(self.sizes) // 2
        x = [math.log(size) for size in self.sizes[half:]]
        y = [math.log(statistics.median(samples)) for samples in self.seconds[half:]]
        return statistics.linear_regression(x, y).slope


def curves() -> list[Curve]:
    """All of them."""
    from benchmarks import models as m

    m.quiet()
    return [
        _curve("source tokens (site 256×28×28)", [32, 64, 128, 256, 512, 1024], _tokens),
        _curve("channels of the source map (7×7; site of 64 tokens)", [64, 128, 256, 512, 1024, 2048], _channels),
        _curve("channels of the site map (28×28; 64 source tokens)", [64, 128, 256, 512, 1024, 2048], _site_channels),
        _curve("units (768 wide, source 1024×7×7)", [1, 2, 4, 8, 12], _sites),
    ]


def _curve(name: str, sizes: list[int], build: Callable[[int], Callable[[], object]], rounds: int = 4) -> Curve:
    steps = [build(size) for size in sizes]
    for step in steps:
        step()
    seconds: list[list[float]] = [[] for _ in sizes]
    for _ in range(rounds):
        for samples, step in zip(seconds, steps, strict=True):
            samples.append(seconds_of(step))
    return Curve(name, sizes, seconds)


def _tokens(length: int) -> Callable[[], object]:

    return unit_step(ViewSpec.map(256, 28, 28), ViewSpec.tokens(768), 64, length)


def _channels(channels: int) -> Callable[[], object]:

    return unit_step(ViewSpec.tokens(768), ViewSpec.map(channels, 7, 7), 64, 64)


def _site_channels(channels: int) -> Callable[[], object]:

    return unit_step(ViewSpec.map(channels, 28, 28), ViewSpec.tokens(768), 64, 64)


def unit_step(
    site: ViewSpec, source: ViewSpec, site_tokens: int, source_tokens: int, count: int = 1
) -> Callable[[], object]:
    """Forward and backward of some units of one kind; tokens count where a view has no grid."""
    from benchmarks.models import BATCH, DEVICE

    def example(spec: ViewSpec, tokens: int) -> torch.Tensor:
        shape = (BATCH, spec.width, *spec.grid) if spec.grid else (BATCH, tokens, spec.width)
        return torch.randn(*shape, device=DEVICE)

    units = [MI2P().build(site, source, 8).to(DEVICE) for _ in range(count)]
    view = example(site, site_tokens).requires_grad_()
    features, weight = SourceFeatures(example(source, source_tokens)), torch.randn_like(view)

    def step() -> None:
        view.grad = None
        prepared = prepare(features, source, torch.float32)
        for unit in units:
            unit.zero_grad(set_to_none=True)
            unit(view, prepared).backward(weight)

    return step


def _sites(count: int) -> Callable[[], object]:

    return unit_step(ViewSpec.tokens(768), ViewSpec.map(1024, 7, 7), 64, 64, count)


def all_curves() -> list[dict[str, Any]]:
    """The curves as JSON values; for a fresh process."""
    return [{"name": one.name, "sizes": one.sizes, "seconds": one.seconds, "slope": one.slope} for one in curves()]
