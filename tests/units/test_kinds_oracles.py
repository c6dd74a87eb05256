"""The unit kinds beside MI2P against their literal forms (tests/support/kinds_oracle.py), in values and gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kinds_oracle import ORACLES
from torch.nn.attention import SDPBackend, sdpa_kernel

from mi2p_inject import SourceFeatures, ViewSpec
from mi2p_inject.sources.features import prepare
from mi2p_inject.units import UNITS, CrossAttention, FiLM, UnitConfig
from mi2p_inject.units.mmtm import MMTM

sizes = st.integers(1, 3)
maps = st.builds(ViewSpec.map, st.integers(2, 5), sizes, sizes)
tokens = st.builds(ViewSpec.tokens, st.integers(2, 6))
configs = st.one_of(
    st.builds(CrossAttention, num_heads=st.integers(1, 3), head_dim=st.integers(1, 4), source_norm=st.booleans()),
    st.builds(FiLM, scale=st.booleans(), source_norm=st.booleans()),
    st.builds(MMTM, reduction=st.integers(1, 30), source_norm=st.booleans()),
)


def test_no_kind_is_without_an_oracle() -> None:
    assert {UNITS[name].kind for name in UNITS} == {"mi2p", *ORACLES}


@settings(max_examples=120, deadline=None)
@given(
    config=configs,
    site=st.one_of(maps, tokens),
    source=st.one_of(maps, tokens),
    batch=st.integers(1, 2),
    lengths=st.tuples(sizes, sizes),
    stretched=st.booleans(),
    masked=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_equals_the_literal_form(
    config: UnitConfig,
    site: ViewSpec,
    source: ViewSpec,
    batch: int,
    lengths: tuple[int, int],
    stretched: bool,
    masked: bool,
    seed: int,
) -> None:
    if config.kind == "mmtm" and site.kind == "tokens":
        return
    torch.manual_seed(seed)
    unit = config.build(site, source).double()
    for parameter in unit.parameters():
        parameter.data.normal_()
    grid = (site.grid[0] + stretched, site.grid[1]) if site.grid else None
    view = torch.randn(*((batch, site.width, *grid) if grid else (batch, lengths[0], site.width))).double()
    shape = (batch, source.width, *source.grid) if source.grid else (batch, lengths[1], source.width)
    features = torch.randn(*shape).double().requires_grad_()
    mask = torch.rand(batch, lengths[1]) < 0.6 if masked and source.kind == "tokens" else None
    wanted = [view.requires_grad_(), features, *unit.parameters()]
    ours = unit(view, prepare(SourceFeatures(features, mask), source, view.dtype))
    literal = ORACLES[config.kind](unit, view, features, mask)
    torch.testing.assert_close(ours, literal, atol=1e-10, rtol=1e-10)
    if not literal.requires_grad:  # every row is padding
        return
    weight = torch.randn_like(view)
    both = [
        torch.autograd.grad((output * weight).sum(), wanted, allow_unused=True, materialize_grads=True)
        for output in (ours, literal)
    ]
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


def test_the_shift_is_the_measured_one() -> None:
    """W·LN(mean over pixels) + b at every token: what was measured into the last layer of a text model."""
    torch.manual_seed(0)
    unit = FiLM().build(ViewSpec.tokens(7), ViewSpec.map(5, 3, 3))
    torch.nn.init.normal_(unit.source_to_shift.weight)
    picture = torch.randn(2, 5, 3, 3)
    shift = unit.source_to_shift(torch.nn.LayerNorm(5, elementwise_affine=False)(picture.mean((2, 3))))
    found = unit(torch.randn(2, 4, 7), prepare(SourceFeatures(picture), unit.source, torch.float32))
    torch.testing.assert_close(found, shift.unsqueeze(1).expand(2, 4, 7))


@pytest.mark.parametrize("kind", ["map", "tokens"])
def test_pooling_is_the_mean_of_what_is_real(kind: str) -> None:
    features = torch.randn(2, 3, 4, 5) if kind == "map" else torch.randn(2, 4, 3)
    mask = None if kind == "map" else torch.tensor([[True, True, False, False], [True] * 4])
    prepared = prepare(SourceFeatures(features, mask), ViewSpec.of(features), torch.float32)
    expected = features.mean((2, 3)) if kind == "map" else torch.stack([features[0, :2].mean(0), features[1].mean(0)])
    torch.testing.assert_close(prepared.pooled(), expected)
    assert prepared.pooled() is prepared.pooled()


def test_second_derivatives_of_attention_where_torch_has_them() -> None:
    unit = CrossAttention(num_heads=2, head_dim=3).build(ViewSpec.tokens(6), ViewSpec.tokens(5)).double()
    for parameter in unit.parameters():
        parameter.data.normal_()
    source = prepare(SourceFeatures(torch.randn(2, 4, 5).double()), ViewSpec.tokens(5), torch.float64)
    view = torch.randn(2, 3, 6).double().requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):
        assert torch.autograd.gradgradcheck(lambda one: unit(one, source), (view,))
