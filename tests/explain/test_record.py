"""Recorded weights are those of the literal formula; recording changes nothing else and leaves nothing."""

from __future__ import annotations

import copy
import functools
import pickle
import threading
from typing import Any

import pytest
import torch
from helpers import PICTURES, WORDS, complains, expanded, map_features, net, same, token_features
from kinds_oracle import cross_attention_weights
from oracle import literal_weights
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mi2p_inject import ExpandedModel, SourceFeatures, ViewSpec, inject
from mi2p_inject.core.errors import ExplainError
from mi2p_inject.core.numerics.weights_taken import taken_weights
from mi2p_inject.explain import record_attention
from mi2p_inject.sources.features import prepare
from mi2p_inject.testing.randomize import randomize_zero_parameters
from mi2p_inject.units import UNITS, product_order, unit_config

ATTEND = {"mi2p": literal_weights, "mi2p-paper": literal_weights, "cross-attention": cross_attention_weights}
SITES = {"map": ViewSpec.map(6, 3, 4), "tokens": ViewSpec.tokens(6)}
SOURCES = {"map": ViewSpec.map(5, 2, 3), "tokens": ViewSpec.tokens(5)}
SOURCE = token_features(2)


def view_of(spec: ViewSpec, seed: int) -> Tensor:
    shape = (3, spec.width, *spec.grid) if spec.grid else (3, 4, spec.width)
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("name", ATTEND)
@pytest.mark.parametrize("many", [product_order.MANY, 0], ids=["plain", "blocks"])
def test_a_unit_hands_over_the_weights_of_the_literal_formula(
    name: str, site: str, source: str, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(product_order, "MANY", many)
    torch.manual_seed(0)
    unit = unit_config(name, {"num_heads": 3}).build(SITES[site], SOURCES[source])
    for parameter in unit.parameters():
        nn.init.normal_(parameter, std=0.5)
    view, read, mask = view_of(SITES[site], 1), view_of(SOURCES[source], 2), None
    if source == "tokens":
        mask = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]]).bool()
    prepared = prepare(SourceFeatures(read, mask), unit.source, torch.float32, trim=False)
    fast = unit(view, prepared)
    with taken_weights() as weights:
        recorded = unit(view, prepared)
    torch.testing.assert_close(recorded, fast, rtol=1e-4, atol=1e-4)
    expected = ATTEND[name](unit, view, read, mask)
    found = weights[0] if mask is None else weights[0] * mask.any(1)[:, None, None, None]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    axes = {"map": "pixels" if name == "cross-attention" else "channels", "tokens": "tokens"}
    assert unit.attention_axes() == (axes[site], axes[source])


def test_every_kind_of_the_table_attends_here_or_says_that_it_does_not() -> None:
    without = {name for name in UNITS if UNITS[name].build(SITES["map"], SOURCES["tokens"]).attention_axes() is None}
    assert without == set(UNITS) - set(ATTEND) == {"film", "mmtm"}


@pytest.mark.parametrize("name", ["film", "mmtm"])
def test_kinds_without_attention_say_so(name: str) -> None:
    me = inject(net(), layers="0", source_spec=WORDS, example_inputs=PICTURES, unit=name)
    with complains(ExplainError, "no unit of this model attends", name), record_attention(me):
        pass


def test_one_of_several_sites_without_attention_has_an_entry_that_says_so() -> None:
    me = expanded()
    me.units["/0"] = unit_config("film", {}).build(me.sites[0].spec, WORDS)
    two = inject(nn.Sequential(net()[0], nn.Conv2d(6, 6, 1)), ["0", "1"], source_spec=WORDS, example_inputs=PICTURES)
    two.units["/1"] = unit_config("film", {}).build(two.sites[1].spec, WORDS)
    with record_attention(two) as seen:
        two(PICTURES, source=SOURCE)
    assert list(seen) == ["0"]
    assert list(seen.silent) == ["1"]
    with complains(ExplainError, "site '1'", "has no attention"):
        seen["1"]


@pytest.mark.parametrize("method", [False, True], ids=["forward", "call"])
def test_weights_of_a_forward(method: bool) -> None:
    me = expanded()
    run = functools.partial(me.call, "forward", PICTURES) if method else functools.partial(me, PICTURES)
    plain = run(source=SOURCE)
    with record_attention(me, views=True) as seen:
        recorded = run(source=SOURCE)
    torch.testing.assert_close(recorded, plain)
    one = seen["0"]
    assert one.weights.shape == (2, 8, 6, 5)  # samples, heads, channels, words
    assert (one.queries, one.keys, one.query_grid, one.key_grid) == ("channels", "tokens", (8, 8), None)
    torch.testing.assert_close(one.weights.sum(-1), torch.ones(2, 8, 6))
    assert torch.equal(one.view, me.backbone[0](PICTURES))


def test_padding_has_weight_zero_and_a_place_even_where_all_rows_have_it() -> None:
    me, mask = expanded(), torch.tensor([[1, 1, 0, 0, 0], [1, 0, 1, 0, 0]]).bool()
    with record_attention(me) as seen:
        me(PICTURES, source=SourceFeatures(SOURCE.data, mask))
    weights = seen["0"].weights
    assert weights.shape[-1] == 5
    assert torch.equal(weights.sum((1, 2)) == 0, ~mask)


def test_missing_rows_attend_to_nothing() -> None:
    me = expanded()
    broken = SOURCE.data.clone()
    broken[0] = torch.nan
    with record_attention(me) as seen:
        output = me(PICTURES, source=SourceFeatures(broken), source_mask=torch.tensor([False, True]))
    assert output.isfinite().all()
    assert seen["0"].rows.tolist() == [False, True]
    assert torch.equal(seen["0"].weights[0], torch.zeros_like(seen["0"].weights[0]))
    torch.testing.assert_close(seen["0"].weights[1].sum(-1), torch.ones(8, 6))


def test_several_forwards_in_order_and_none_without_a_source() -> None:
    me = expanded()
    with record_attention(me) as seen:
        assert len(seen) == 0
        me(PICTURES, source=SOURCE)
        me(PICTURES)
        with me.disabled():
            me(PICTURES, source=SOURCE)
        me(PICTURES[:1], source=SOURCE[:1])
    assert [len(one["0"].weights) for one in seen.forwards] == [2, 1]
    torch.testing.assert_close(seen.forwards[0]["0"].weights[:1], seen["0"].weights)


def test_a_block_that_recorded_nothing_says_so() -> None:
    me = expanded()
    with record_attention(me) as seen:
        me(PICTURES)
    with complains(ExplainError, "no forward with a source"):
        seen["0"]
    with record_attention(me) as seen:
        me(PICTURES, source=SOURCE)
    with complains(ExplainError, "site '7'"):
        seen["7"]


def test_a_block_of_the_backbone_is_recorded_too() -> None:
    me = expanded()
    with record_attention(me) as seen, me.source(SOURCE):
        me.backbone(PICTURES)
        me.backbone(PICTURES)
    assert len(seen.forwards) == 2


def test_nested_blocks_both_record() -> None:
    me = expanded()
    with record_attention(me) as outer:
        me(PICTURES, source=SOURCE)
        with record_attention(me) as inner:
            me(PICTURES, source=SOURCE)
        me(PICTURES, source=SOURCE)
    assert (len(outer.forwards), len(inner.forwards)) == (3, 1)


class Inside(nn.Module):
    """Runs another expanded model in the middle of its own forward."""

    def __init__(self, inner: ExpandedModel) -> None:
        super().__init__()
        self.first, self.last, self.inner = net()[0], nn.Conv2d(6, 6, 1), [inner]

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        self.inner[0](x, source=token_features(len(x)))
        return self.last(hidden)


def test_a_nested_model_records_for_itself_alone() -> None:
    inner = expanded()
    outer = inject(Inside(inner), ["first", "last"], source_spec=WORDS, example_inputs=PICTURES)
    with record_attention(outer) as seen:
        outer(PICTURES, source=SOURCE)
    assert [list(one) for one in seen.forwards] == [["first", "last"]]
    with record_attention(inner) as seen:
        outer(PICTURES, source=SOURCE)
    assert [list(one) for one in seen.forwards] == [["0"]]


def test_nothing_lingers_after_an_exception() -> None:
    me = expanded()
    plain = me(PICTURES, source=SOURCE)
    seen = []

    def stopped() -> None:
        with record_attention(me) as record:
            seen.append(record)
            me(PICTURES, source=SOURCE)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stopped()
    with record_attention(me) as failed, pytest.raises(ValueError, match="different batches"):
        me(PICTURES, source=SOURCE[:1])
    same(me(PICTURES, source=SOURCE), plain)
    assert (len(seen[0].forwards), len(failed.forwards), me.calls.now.recorders) == (1, 0, ())


def test_other_threads_and_copies_record_nothing() -> None:
    me = expanded()
    alone, ready, done = me(PICTURES, source=SOURCE), threading.Event(), threading.Event()
    found: list[Tensor] = []

    def other() -> None:
        ready.wait()
        found.append(me(PICTURES, source=SOURCE))
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with record_attention(me) as seen:
        ready.set()
        done.wait()
        copy.deepcopy(me)(PICTURES, source=SOURCE)
        pickle.loads(pickle.dumps(me))(PICTURES, source=SOURCE)
    thread.join()
    assert len(seen.forwards) == 0
    same(found[0], alone)


def test_gradients_of_a_number_by_the_weights() -> None:
    """Changing a weight changes the number as the gradient says: the residual is linear in them."""
    me = expanded(readout=0)
    with record_attention(me, gradients=True) as seen:
        residual = me.unit("0")(me.backbone[0](PICTURES), prepare(SOURCE, WORDS, torch.float32))
        assert residual.requires_grad
        score = me(PICTURES, source=SOURCE)[0, 1]
    gradient = seen.gradients(score)["0"]
    assert gradient.shape == seen["0"].weights.shape
    assert gradient[0].abs().sum() > 0
    assert gradient[1].abs().sum() == 0  # another sample
    with record_attention(me) as seen:
        score = me(PICTURES, source=SOURCE)[0, 1]
    with complains(ExplainError, "not in the graph", "gradients=True"):
        seen.gradients(score)


@pytest.mark.parametrize("inside", [False, True], ids=["backward after the block", "backward in the block"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputed_forwards_are_recorded_once_and_their_gradients_are_right(
    reentrant: bool, inside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(product_order, "MANY", 0)  # blocks in the fast path: another graph than the plain one

    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net()

        def forward(self, x: Tensor) -> Any:
            return checkpoint(self.inner, x, use_reentrant=reentrant)

    torch.manual_seed(1)
    me = inject(Checkpointed(), "inner.0", source_spec=WORDS, example_inputs=PICTURES, zero_init=None)
    x = PICTURES.clone().requires_grad_()
    me(x, source=SOURCE).sum().backward()
    expected = [parameter.grad.clone() for parameter in me.units.parameters()]
    me.zero_grad()
    with record_attention(me) as seen:
        output = me(x, source=SOURCE)
        if inside:
            output.sum().backward()
    if not inside:
        output.sum().backward()
    assert len(seen.forwards) == 1
    for parameter, one in zip(me.units.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, one, rtol=1e-3, atol=1e-5)


def test_a_map_as_source_and_half_precision() -> None:
    texts = torch.randn(2, 4, 12)
    me = inject(
        nn.Sequential(nn.Linear(12, 8), nn.Linear(8, 3)), "0", source_spec=ViewSpec.map(10, 3, 4), example_inputs=texts
    ).half()
    randomize_zero_parameters(me)
    with record_attention(me) as seen:
        me(texts.half(), source=map_features(2).to(dtype=torch.float16))
    one = seen["0"]
    assert (one.queries, one.keys, one.key_grid) == ("tokens", "channels", (3, 4))
    assert one.weights.dtype == torch.float32
    assert one.weights.isfinite().all()


def test_only_expanded_models_are_recorded() -> None:
    with complains(ExplainError, "expanded model", "Sequential"), record_attention(net()):
        pass
