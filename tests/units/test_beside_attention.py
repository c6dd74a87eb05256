"""What mi2p adds beside attention: the channel readout of map units, and the pooled shift."""

from __future__ import annotations

import pytest
import timm
import torch
from helpers import same
from oracle import literal
from random_units import random_unit, run
from torch import Tensor

from mi2p_inject import MI2P, SourceFeatures, ViewSpec, inject
from mi2p_inject.units import UNITS
from mi2p_inject.units.base import ZeroInit
from mi2p_inject.units.product_order import Sizes, cheapest

SITE, WORDS, PICTURE = ViewSpec.map(6, 4, 4), ViewSpec.tokens(24), ViewSpec.map(5, 3, 3)
SOURCES = pytest.mark.parametrize("source", [WORDS, PICTURE], ids=str)


def features(spec: ViewSpec, batch: int = 2, length: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(batch, spec.width, *spec.grid, dtype=dtype) if spec.grid else torch.randn(
        batch, length, spec.width, dtype=dtype
    )  # fmt: skip


@pytest.mark.parametrize(("readout", "rank"), [(0, 1), (1, 2 + 1), (3, 2 * 3 + 1), (16, 2 * 16 + 1)])
def test_rank_of_what_reaches_the_pooled_map(readout: int, rank: int) -> None:
    """Sources of one token: one number for all channels, and with the readout r numbers a head beside it."""
    site, source = ViewSpec.map(48, 2, 2), ViewSpec.tokens(40)
    unit = random_unit(site, source, num_heads=2, head_dim=4, readout=readout, pooled_shift=False)
    assert unit.num_heads == 2
    view = torch.randn(1, 48, 2, 2, dtype=torch.float64).expand(64, -1, -1, -1)
    pooled = run(unit, view, features(source, 64, 1, torch.float64)).mean((2, 3))
    assert int(torch.linalg.matrix_rank(pooled.detach())) == rank


@SOURCES
@pytest.mark.parametrize("zero_init", ["value_proj", "scalar", "channel"])
@pytest.mark.parametrize("output_projection", [False, True])
def test_starts_at_zero(source: ViewSpec, zero_init: ZeroInit, output_projection: bool) -> None:
    unit = MI2P(zero_init=zero_init, output_projection=output_projection).build(SITE, source)
    assert not run(unit, features(SITE), features(source)).any()


@SOURCES
def test_without_a_zero_start_it_reads_from_the_start(source: ViewSpec) -> None:
    unit = MI2P(zero_init=None).build(SITE, source)
    view, data = features(SITE), features(source)
    before = run(unit, view, data)
    unit.channel_readout.data.zero_()
    assert not torch.allclose(before, run(unit, view, data))


@SOURCES
@pytest.mark.parametrize("output_projection", [False, True])
def test_its_weights_have_a_gradient_at_step_one(source: ViewSpec, output_projection: bool) -> None:
    unit = MI2P(output_projection=output_projection).build(SITE, source)
    run(unit, features(SITE), features(source)).backward(torch.randn(2, *(6, 4, 4)))
    for parameter in (unit.source_value_embedding.weight, unit.source_value_embedding.bias):
        of_readout = parameter.grad.unflatten(0, (unit.num_heads, -1))[:, unit.d_v :]
        assert of_readout.shape[1] == 16
        assert bool(of_readout.flatten(1).any(1).all())  # of every head
    if output_projection:
        assert unit.output_projection is not None
        assert bool(unit.output_projection.weight.grad.any())


@pytest.mark.parametrize("mode", [False, True], ids=["eval", "train"])
@SOURCES
def test_the_expanded_model_starts_as_the_backbone(source: ViewSpec, mode: bool) -> None:
    backbone = timm.create_model("resnet10t", num_classes=3, drop_rate=0.5).train(mode)
    images, data = torch.randn(2, 3, 64, 64), SourceFeatures(features(source))
    state = {name: value.clone() for name, value in backbone.state_dict().items()}
    torch.manual_seed(1)
    alone = backbone(images)
    backbone.load_state_dict(state)  # its statistics moved
    me = inject(backbone, layers="paper", source_spec=source)
    torch.manual_seed(1)
    same(me(images, source=data), alone)


@SOURCES
@pytest.mark.parametrize("grid", [(4, 4), (3, 7), (1, 1)])
@pytest.mark.parametrize("output_projection", [False, True])
def test_another_grid_gets_the_numbers_at_every_pixel(
    source: ViewSpec, grid: tuple[int, int], output_projection: bool
) -> None:
    unit = random_unit(SITE, source, num_heads=3, head_dim=4, output_projection=output_projection, readout=2)
    view, data = torch.randn(2, 6, *grid, dtype=torch.float64), features(source, dtype=torch.float64)
    torch.testing.assert_close(run(unit, view, data), literal(unit, view, data), atol=1e-10, rtol=1e-10)


def test_one_head_and_the_same_numbers_twice() -> None:
    """Of one head nothing has to be put side by side: what autograd keeps must not be written over."""
    unit = random_unit(ViewSpec.map(3, 1, 1), WORDS, num_heads=1, readout=4)
    view = torch.randn(1, 3, 1, 1, dtype=torch.float64, requires_grad=True)
    data = features(WORDS, 1, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda one: run(unit, one, data), (view,))


def test_parameters_at_a_site_of_efficientnet_lite0() -> None:
    """`blocks.6` at 96 pixels, MiniLM as its source: 3 heads, as 9 pixels have no divisor 8."""
    counts = {}
    for readout in (0, 16):
        unit = MI2P(readout=readout, pooled_shift=False).build(ViewSpec.map(320, 3, 3), ViewSpec.tokens(384))
        counts[readout] = unit.num_heads, sum(parameter.numel() for parameter in unit.parameters())
    assert counts == {0: (3, 90_889), 16: (3, 124_729)}


def test_embeddings_start_at_one_unit_of_variance() -> None:
    """e ~ N(0, 1/(heads·r)): what a channel gets has the variance of u."""
    torch.manual_seed(0)
    unit = MI2P(num_heads=8).build(ViewSpec.map(512, 8, 8), WORDS)
    assert unit.channel_readout is not None
    assert unit.channel_readout.shape == (512, 8 * 16)
    assert float(unit.channel_readout.std()) == pytest.approx((8 * 16) ** -0.5, rel=0.02)


def test_tokens_have_none_and_neither_has_the_papers_unit() -> None:
    with_readout, without = (MI2P(readout=r).build(ViewSpec.tokens(12), PICTURE) for r in (16, 0))
    assert {name: one.shape for name, one in with_readout.named_parameters()} == {
        name: one.shape for name, one in without.named_parameters()
    }
    assert UNITS["mi2p-paper"].build(SITE, WORDS).channel_readout is None
    assert UNITS["mi2p"].build(SITE, WORDS).channel_readout is not None


def test_the_order_of_products_counts_it() -> None:
    narrow = Sizes(8, 320, 64, 33, 384, 384, num_heads=3, head_dim=64, value_dim=3)
    unit = MI2P().build(ViewSpec.map(320, 3, 3), ViewSpec.tokens(384))
    assert unit.order.operations > cheapest(narrow).operations
    assert unit.order.operations == cheapest(Sizes(**{**vars(narrow), "value_dim": 3 + 16})).operations


EITHER_SITE = pytest.mark.parametrize("site", [SITE, WORDS], ids=str)


@EITHER_SITE
@SOURCES
@pytest.mark.parametrize("readout", [0, 3])
def test_the_pooled_shift_is_the_same_at_every_position(site: ViewSpec, source: ViewSpec, readout: int) -> None:
    """Attention's own part is the residual of the same unit without it."""
    unit, view, given = (
        random_unit(site, source, readout=readout),
        features(site, 3, 7, torch.float64),
        features(source, 3, 7, torch.float64),
    )
    expected = run(unit, view, given)
    unit.source_to_shift = None
    shift = (expected - run(unit, view, given)).flatten(2) if site.grid else (expected - run(unit, view, given)).mT
    torch.testing.assert_close(shift, shift[..., :1].expand_as(shift))
    assert float(shift.std(1).min()) > 0.1


@EITHER_SITE
@SOURCES
def test_the_pooled_shift_starts_at_zero_and_learns_from_the_first_step(site: ViewSpec, source: ViewSpec) -> None:
    unit = MI2P().build(site, source).double()
    residual = run(unit, features(site, 3, 7, torch.float64), features(source, 3, 7, torch.float64))
    assert not residual.any()
    (residual * torch.randn_like(residual)).sum().backward()
    assert unit.source_to_shift is not None
    assert float(unit.source_to_shift.weight.grad.abs().sum()) > 0


@EITHER_SITE
def test_padding_does_not_count_and_rows_without_a_token_get_nothing(site: ViewSpec) -> None:
    unit, view, words = (
        random_unit(site, WORDS),
        features(site, 3, 7, torch.float64),
        features(WORDS, 3, 7, torch.float64),
    )
    mask = torch.arange(7) < torch.tensor([7, 3, 0]).unsqueeze(1)
    found = run(unit, view, words, mask)
    torch.testing.assert_close(found[1:2], run(unit, view[1:2], words[1:2, :3]))
    assert not found[2].any()


@EITHER_SITE
def test_one_head_leaves_what_attention_saved_for_its_gradient_alone(site: ViewSpec) -> None:
    """With one head the residual is a view of what attention gave: nothing may be added there in place."""
    unit = random_unit(site, WORDS, num_heads=1, readout=0)
    assert torch.autograd.gradcheck(lambda view, words: run(unit, view, words), [
        features(one, 1, 7, torch.float64).requires_grad_() for one in (site, WORDS)
    ], fast_mode=True)  # fmt: skip


def test_the_papers_unit_has_no_pooled_shift() -> None:
    assert UNITS["mi2p-paper"].build(SITE, WORDS).source_to_shift is None
    assert UNITS["mi2p"].build(SITE, WORDS).source_to_shift is not None
