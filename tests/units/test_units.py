"""The fast form against the literal oracle: shapes, heads, kernels, masks, strides, gradients, four combinations."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import literal
from random_units import run
from torch import Tensor
from torch._dynamo.backends.debugging import aot_eager

from mi2p_inject import MI2P, SourceFeatures, ViewSpec
from mi2p_inject.core.errors import UnitError
from mi2p_inject.core.numerics import windows
from mi2p_inject.core.numerics.windows import window_means
from mi2p_inject.sources.features import prepare
from mi2p_inject.units import UNITS, attention, unit_config
from mi2p_inject.units.base import largest_divisor
from mi2p_inject.units.cpu_kernel import block_parts
from mi2p_inject.units.product_order import Kernel, Order, ScoreOrder, ValueOrder

sizes = st.integers(1, 6)
maps = st.builds(ViewSpec.map, st.integers(1, 7), sizes, sizes)
tokens = st.builds(ViewSpec.tokens, st.integers(1, 12))
options = st.builds(
    MI2P,
    num_heads=st.integers(1, 5),
    head_dim=st.integers(1, 6),
    kernel_size=st.sampled_from([1, 3, 5]),
    zero_init=st.sampled_from(["value_proj", "scalar", "channel", None]),
    channel_embedding_dim=st.integers(0, 3),
    readout=st.integers(0, 3),
    output_projection=st.booleans(),
    source_norm=st.booleans(),
    pooled_shift=st.booleans(),
)


def example(spec: ViewSpec, batch: int, length: int, dtype: torch.dtype, stride: int) -> Tensor:
    """A random view, its last axis strided: what a slice or a permuted map hands a unit."""
    shape = (batch, spec.width, *spec.grid) if spec.grid else (batch, length, spec.width)
    return torch.randn(*shape[:-1], shape[-1] * stride, dtype=dtype)[..., ::stride]


@settings(max_examples=250, deadline=None)
@given(
    config=options,
    site=st.one_of(maps, tokens),
    source=st.one_of(maps, tokens),
    batch=st.integers(1, 3),
    lengths=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.integers(1, 2),
    masked=st.booleans(),
    order=st.builds(
        Order,
        scores=st.sampled_from(get_args(ScoreOrder)),
        values=st.sampled_from(get_args(ValueOrder)),
        fused=st.booleans(),
        operations=st.just(0),
        width=st.just(0),
    ),
    kernel=st.sampled_from(get_args(Kernel)),
    block=st.sampled_from([0, 7, 60, 2**20]),
    least_rows=st.sampled_from([1, 64]),
    many=st.sampled_from([0, 2**18]),
    trained=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_equals_the_literal_form(
    config: MI2P,
    site: ViewSpec,
    source: ViewSpec,
    batch: int,
    lengths: tuple[int, int],
    stride: int,
    masked: bool,
    order: Order,
    kernel: Kernel,
    block: int,
    least_rows: int,
    many: int,
    trained: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        unit = config.build(site, source).to(dtype)
        for parameter in unit.parameters():
            parameter.data.normal_()
        unit.order = order
        view = example(site, batch, lengths[0], dtype, stride).requires_grad_()
        features = example(source, batch, lengths[1], dtype, stride)
        mask = torch.rand(batch, lengths[1]) < 0.6 if masked and source.kind == "tokens" else None
        wanted = [view, *unit.parameters()]
        if trained:
            wanted.append(features.requires_grad_())
        weight = torch.randn_like(view)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(attention, "kernel_for", lambda *_: kernel)
            patch.setattr(block_parts, "BLOCK", block)
            patch.setattr(block_parts, "LEAST_ROWS", least_rows)
            patch.setattr(block_parts, "MANY", many)
            fast = run(unit, view, features, mask)
            ours = gradients(fast, weight, wanted)
        slow = literal(unit, view, features, mask)
        assert fast.shape == view.shape
        torch.testing.assert_close(fast, slow, atol=tolerance * (1 + float(slow.detach().abs().max())), rtol=tolerance)
        theirs = gradients(slow, weight, wanted)
        scale = 1 + max(float(other.abs().max()) for other in theirs if other.numel())
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, atol=10 * tolerance * scale, rtol=10 * tolerance)


def gradients(output: Tensor, weight: Tensor, wanted: list[Tensor]) -> list[Tensor]:
    """Of the weighted sum; zeros where the output depends on nothing, as with every row padding."""
    if not output.requires_grad:
        return [torch.zeros_like(one) for one in wanted]
    return list(torch.autograd.grad((output * weight).sum(), wanted, allow_unused=True, materialize_grads=True))


@pytest.mark.parametrize("site", [ViewSpec.map(3, 2, 3), ViewSpec.tokens(4)], ids=str)
@pytest.mark.parametrize("source", [ViewSpec.map(3, 2, 2), ViewSpec.tokens(3)], ids=str)
def test_gradcheck(site: ViewSpec, source: ViewSpec) -> None:
    torch.manual_seed(0)
    unit = MI2P(num_heads=2, head_dim=3, zero_init="channel").build(site, source).double()
    unit.zero_gate.weight.data.normal_()
    view = example(site, 2, 3, torch.float64, 1).requires_grad_()
    features = example(source, 2, 3, torch.float64, 1)
    assert torch.autograd.gradcheck(lambda v: run(unit, v, features, None), (view,))


@pytest.mark.parametrize("site", [ViewSpec.map(3, 2, 3), ViewSpec.tokens(4)], ids=str)
@pytest.mark.parametrize("source", [ViewSpec.map(3, 2, 2), ViewSpec.tokens(3)], ids=str)
@pytest.mark.parametrize("source_norm", [True, False])
def test_gradients_can_be_differentiated(
    site: ViewSpec, source: ViewSpec, source_norm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gradient penalty trains the same weights, in blocks or not; keys and values may come of one source."""
    torch.manual_seed(0)
    unit = MI2P(num_heads=2, head_dim=3, zero_init=None, source_norm=source_norm).build(site, source).double()
    view = example(site, 2, 3, torch.float64, 1).requires_grad_()
    features = example(source, 2, 3, torch.float64, 1).requires_grad_()
    mask = torch.tensor([[True, False, True], [True] * 3]) if source.kind == "tokens" else None
    wanted, found = [view, features, *unit.parameters()], []
    for kernel in ("plain", "blocks"):
        monkeypatch.setattr(attention, "kernel_for", lambda *_, kernel=kernel: kernel)
        slopes = torch.autograd.grad(run(unit, view, features, mask).square().sum(), wanted, create_graph=True)
        found.append([*slopes, *gradients(sum(one.square().sum() for one in slopes), torch.ones(()), wanted)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("site", [ViewSpec.map(3, 2, 3), ViewSpec.tokens(4)], ids=str)
@pytest.mark.parametrize("source", [ViewSpec.map(3, 2, 2), ViewSpec.tokens(3)], ids=str)
@pytest.mark.parametrize("order", [("keys", "shared"), ("queries", "projected")], ids=" ".join)
def test_blocks_compile_as_one_operator_for_all_batches(
    site: ViewSpec, source: ViewSpec, order: tuple[ScoreOrder, ValueOrder]
) -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()
    unit = MI2P(num_heads=2, head_dim=3, zero_init=None).build(site, source)
    unit.order = Order(*order, fused=False, operations=0, width=0, large=True)
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        graphs.append(graph)
        return aot_eager(graph, inputs)

    compiled = torch.compile(unit, fullgraph=True, dynamic=True, backend=backend)
    for batch in (5, 7, 11):  # sizes that nothing else has: equal ones share a symbol
        view = example(site, batch, 3, torch.float32, 1).requires_grad_()
        features = example(source, batch, 4, torch.float32, 1)
        mask = torch.rand(batch, 4) < 0.7 if source.kind == "tokens" else None
        wanted = [view, *unit.parameters()]
        prepared = prepare(SourceFeatures(features, mask), unit.source, view.dtype)
        found, expected = compiled(view, prepared), unit(view, prepared)
        torch.testing.assert_close(found, expected)
        weight = torch.randn_like(view)
        for one, other in zip(gradients(found, weight, wanted), gradients(expected, weight, wanted), strict=True):
            torch.testing.assert_close(one, other)
    assert len(graphs) == 1
    assert any("attend_in_blocks" in str(node.target) for node in graphs[0].graph.nodes)


@pytest.mark.parametrize("site", [ViewSpec.map(3, 2, 3), ViewSpec.tokens(4)], ids=str)
@pytest.mark.parametrize("source", [ViewSpec.map(3, 2, 2), ViewSpec.tokens(3)], ids=str)
def test_an_empty_batch_stays_empty(site: ViewSpec, source: ViewSpec) -> None:
    unit = MI2P(zero_init=None).build(site, source)
    view = example(site, 0, 3, torch.float32, 1)
    assert run(unit, view, example(source, 0, 3, torch.float32, 1), None).shape == view.shape


@pytest.mark.parametrize("site", [ViewSpec.map(3, 2, 3), ViewSpec.tokens(4)], ids=str)
def test_no_source_tokens_at_all_say_nothing(site: ViewSpec) -> None:
    """With a mask or without, whatever the order of the products."""
    unit = MI2P(zero_init=None).build(site, ViewSpec.tokens(5))
    view, nothing = example(site, 2, 3, torch.float32, 1), torch.zeros(2, 0, 5)
    for order in ("projected", "shared"):
        unit.order = Order("projected", order, False, 0, 0)  # type: ignore[arg-type]
        for mask in (None, torch.ones(2, 0, dtype=torch.bool)):
            assert torch.equal(run(unit, view, nothing, mask), torch.zeros_like(view))


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 5, 7]), st.integers(0, 999))
@settings(deadline=None)
def test_window_means_are_convolution_then_average(height: int, width: int, k: int, seed: int) -> None:
    torch.manual_seed(seed)
    z = torch.randn(2, 1, height, width, dtype=torch.float64)
    kernels = torch.randn(4, 1, k, k, dtype=torch.float64)
    slow = torch.nn.functional.conv2d(z, kernels, padding=k // 2).mean((2, 3))
    torch.testing.assert_close(window_means(z, k)[:, 0] @ kernels.flatten(1).T, slow, atol=1e-12, rtol=1e-12)
    at_once = windows._all_taps(height, width, k, z.device, z.dtype)  # what a GPU multiplies with
    torch.testing.assert_close(z.flatten(2) @ at_once, window_means(z, k), atol=1e-12, rtol=1e-12)


def test_a_row_of_padding_gets_exactly_nothing_and_no_nan_reaches_a_gradient() -> None:
    unit = MI2P(zero_init=None).build(ViewSpec.tokens(8), ViewSpec.tokens(4))
    view = torch.randn(2, 3, 8, requires_grad=True)
    features = torch.randn(2, 5, 4)
    features[1] = float("nan")  # nothing real there, so nothing may look at it
    mask = torch.tensor([[True] * 5, [False] * 5])
    out = run(unit, view, features, mask)
    assert torch.equal(out[1], torch.zeros(3, 8))
    out.sum().backward()
    assert all(bool(torch.isfinite(parameter.grad).all()) for parameter in unit.parameters())
    assert bool(torch.isfinite(view.grad).all())


def test_padding_does_not_count() -> None:
    torch.manual_seed(0)
    unit = MI2P(zero_init=None).build(ViewSpec.map(4, 5, 5), ViewSpec.tokens(6))
    view, words = torch.randn(2, 4, 5, 5), torch.randn(2, 3, 6)
    short = run(unit, view, words, torch.ones(2, 3, dtype=torch.bool))
    padded = torch.cat([words, torch.full((2, 4, 6), 1e4)], 1)
    mask = torch.tensor([[True] * 3 + [False] * 4] * 2)
    torch.testing.assert_close(run(unit, view, padded, mask), short)


def test_embeddings_tell_channels_apart_and_the_literal_form_cannot() -> None:
    """Permuting a map's channels permutes what the literal form writes; with channel embeddings it changes it."""
    torch.manual_seed(0)
    view, words = torch.randn(1, 6, 4, 4), torch.randn(1, 3, 5)
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    for width in (0, 5):
        config = MI2P(zero_init=None, channel_embedding_dim=width, readout=0, pooled_shift=False)
        unit = config.build(ViewSpec.map(6, 4, 4), ViewSpec.tokens(5))
        for parameter in unit.parameters():
            parameter.data.normal_()
        permuted = run(unit, view[:, order], words, None)
        assert torch.allclose(permuted, run(unit, view, words, None)[:, order], atol=1e-5) is (width == 0)


@pytest.mark.parametrize(
    ("spec", "asked", "used"),
    [(ViewSpec.map(8, 56, 56), 8, 8), (ViewSpec.map(8, 14, 14), 8, 7), (ViewSpec.map(8, 7, 7), 8, 7),
     (ViewSpec.map(8, 1, 1), 8, 1), (ViewSpec.tokens(512), 12, 8), (ViewSpec.tokens(768), 12, 12)],
)  # fmt: skip
def test_heads_divide_the_vector(spec: ViewSpec, asked: int, used: int) -> None:
    assert MI2P(num_heads=asked).build(spec, ViewSpec.tokens(4)).num_heads == used
    assert MI2P(num_heads=asked, output_projection=True).build(spec, ViewSpec.tokens(4)).num_heads == asked


@given(st.integers(1, 400), st.integers(1, 20))
def test_largest_divisor(number: int, at_most: int) -> None:
    found = largest_divisor(number, at_most)
    assert number % found == 0
    assert found == max(d for d in range(1, at_most + 1) if number % d == 0)


@pytest.mark.parametrize("name", UNITS)
def test_every_row_of_the_table_builds_a_unit(name: str) -> None:
    unit = UNITS[name].build(ViewSpec.map(4, 3, 3), ViewSpec.tokens(5))
    source = prepare(SourceFeatures(torch.randn(2, 3, 5)), ViewSpec.tokens(5), torch.float32)
    assert unit(torch.randn(2, 4, 3, 3), source).shape == (2, 4, 3, 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"num_heads": 0}, "num_heads"), ({"num_heads": True}, "num_heads"), ({"head_dim": -1}, "head_dim"),
     ({"kernel_size": 2}, "odd"),
     ({"zero_init": "zero"}, "zero_init"), ({"num_haeds": 8}, "did you mean 'num_heads'")],
)  # fmt: skip
def test_bad_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UnitError, match=words):
        unit_config("mi2p", options)


def test_unknown_unit_names_the_closest() -> None:
    with pytest.raises(UnitError, match="did you mean 'mi2p'"):
        unit_config("mip2", {})


def test_a_map_of_another_size_gets_the_residual_resized() -> None:
    unit = MI2P(zero_init=None).build(ViewSpec.map(4, 8, 8), ViewSpec.tokens(5))
    source = prepare(SourceFeatures(torch.randn(2, 3, 5)), ViewSpec.tokens(5), torch.float32)
    assert unit(torch.randn(2, 4, 6, 9), source).shape == (2, 4, 6, 9)
