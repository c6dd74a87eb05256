"""Half precision: numbers that leave the range of float16 give the float32 result or our error, never NaN."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers import complains
from random_units import run
from torch import Tensor, nn

from mi2p_inject import MI2P, SourceFeatures, ViewSpec, inject
from mi2p_inject.core.errors import SourceError
from mi2p_inject.core.layout import Axes, Layout
from mi2p_inject.sources.features import prepare
from mi2p_inject.units import attention
from mi2p_inject.units.mi2p import MI2PUnit

MAP, TOKENS = ViewSpec.map(24, 6, 6), ViewSpec.tokens(48)
VIEWS = pytest.mark.parametrize(
    ("site", "source"), [(a, b) for a in (MAP, TOKENS) for b in (MAP, TOKENS)], ids=lambda spec: spec.kind
)
SCALES = pytest.mark.parametrize("scale", [1.0, 300.0, 1e4])


def features(spec: ViewSpec, scale: float = 1.0) -> Tensor:
    return scale * (torch.randn(2, spec.width, *spec.grid) if spec.grid else torch.randn(2, 7, spec.width))


def unit_of(site: ViewSpec, source: ViewSpec) -> MI2PUnit:
    """Weights and biases that float16 holds exactly."""
    torch.manual_seed(0)
    return MI2P(zero_init=None).build(site, source).half().float()


@VIEWS
@SCALES
@pytest.mark.parametrize("kernel", ["plain", "blocks", "fused"])
@pytest.mark.fault("F10", "float16 units, features of scale 300 and 10,000", "the float32 result")
def test_float16_gives_the_float32_result(
    site: ViewSpec, source: ViewSpec, scale: float, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "kernel_for", lambda *_: kernel)
    unit = unit_of(site, source)
    view, data = features(site, scale**0.5).half(), features(source, scale).half()
    expected = run(unit, view.float(), data.float())
    half = copy.deepcopy(unit).half()
    found = run(half, view, data)
    torch.testing.assert_close(found.float(), expected, atol=1e-3 * scale, rtol=2e-3)
    weight = torch.randn_like(expected)
    ours = torch.autograd.grad((found.float() * weight / scale**0.5).sum(), list(half.parameters()))
    theirs = torch.autograd.grad((expected * weight / scale**0.5).sum(), list(unit.parameters()))
    assert all(bool(one.isfinite().all()) for one in ours)
    if scale < 1e4:  # there each query attends to one token, and what is left of these gradients is rounding
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one.float(), other, atol=1e-2 * (1 + float(other.abs().max())), rtol=1e-2)


@VIEWS
@SCALES
@pytest.mark.fault("F10", "autocast to float16, features of scale 300 and 10,000", "the float32 result")
def test_autocast_to_float16_gives_the_float32_result(site: ViewSpec, source: ViewSpec, scale: float) -> None:
    unit = unit_of(site, source)
    view, data = features(site).half(), features(source, scale)
    expected = run(unit, view.float(), data)
    with torch.autocast("cpu", torch.float16):
        found = run(unit, view, data)
    torch.testing.assert_close(found.float(), expected, atol=1e-3 * scale, rtol=2e-3)


@VIEWS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("scale", [1e4, 1e15, 1e29])
@pytest.mark.fault("F10", "bfloat16 and float32 units, features up to 1e29", "finite, and so are the gradients")
def test_a_wider_range_stays_finite(site: ViewSpec, source: ViewSpec, dtype: torch.dtype, scale: float) -> None:
    unit = unit_of(site, source).to(dtype)
    found = run(unit, features(site).to(dtype), features(source, scale).to(dtype))
    assert bool(found.isfinite().all())
    (found.float() / scale).sum().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in unit.parameters())


@VIEWS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_of_large_features_stays_finite(site: ViewSpec, source: ViewSpec, dtype: torch.dtype) -> None:
    unit = unit_of(site, source)
    with torch.autocast("cpu", dtype):
        assert bool(run(unit, features(site), features(source, 1e6)).isfinite().all())


@pytest.mark.parametrize("source", [MAP, TOKENS], ids=str)
@pytest.mark.fault("F10", "features beyond the numbers of the units' dtype", "SourceError names the rows")
def test_features_that_the_dtype_cannot_hold_are_refused(source: ViewSpec) -> None:
    data = features(source)
    data[1, 2] = 7e4
    with complains(SourceError, "too large", "65504", r"rows \[1\]"):
        prepare(SourceFeatures(data), source, torch.float16)
    prepare(SourceFeatures(data), source, torch.float32)
    data[1, 2] = 1e31
    with complains(SourceError, "too large", r"rows \[1\]"):
        prepare(SourceFeatures(data), source, torch.float32)
    prepare(SourceFeatures(data), source, torch.float32, source_mask=torch.tensor([True, False]))


@pytest.mark.parametrize("spread", [1.0, 1e4, 1e25])
def test_strengths_of_a_map_are_standardised_whatever_its_scale(spread: float) -> None:
    data = torch.randn(2, 24, 6, 6, generator=torch.Generator().manual_seed(0))
    small, large = (prepare(SourceFeatures(one), MAP, torch.float32).strengths() for one in (data, spread * data))
    torch.testing.assert_close(large, small, atol=1e-5, rtol=1e-4)


def test_a_sum_beyond_float16_stays_at_its_end() -> None:
    hidden = torch.tensor([[[65000.0, -65000.0, 7.0, torch.inf, -0.5]]], dtype=torch.float16)
    residual = torch.tensor([[[65000.0, -1e6, 1e9, 0.0, 0.0]]])
    found = Layout(Axes.NLC).add(hidden, residual)
    assert found.tolist() == [[[65504.0, -65504.0, 65504.0, torch.inf, -0.5]]]


@pytest.mark.fault("F10", "a whole expanded model in float16", "finite; starts as its backbone")
def test_an_expanded_model_in_float16_stays_finite_and_starts_as_its_backbone() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).half()
    images, words = torch.randn(2, 3, 9, 9).half(), SourceFeatures(1e3 * torch.randn(2, 5, 48))
    alone = net(images)
    me = inject(net, layers=["0", "2"], source_spec=TOKENS, example_inputs=images)
    assert torch.equal(me(images, source=words), alone)
    for parameter in me.units.parameters():
        parameter.data.normal_()
    found = me(images, source=words)
    assert found.dtype == torch.float16
    assert bool(found.isfinite().all())
