"""Evidence against loops and differences, maps against their formula."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import PICTURES, complains, expanded, map_features, token_features
from torch import nn

from mi2p_inject import SourceFeatures, ViewSpec, inject
from mi2p_inject.core.errors import ExplainError
from mi2p_inject.explain import effective_count, explain, record_attention, token_maps
from mi2p_inject.testing.randomize import randomize_zero_parameters

SOURCE = token_features(2)
TEXTS = torch.randn(2, 4, 12, generator=torch.Generator().manual_seed(3))


def test_evidence_of_the_source_is_the_change_that_the_gradient_foresees() -> None:
    """For a small step along a token's features: the score's change, scaled up."""
    me = expanded().double()
    source = SourceFeatures(SOURCE.data.double(), SOURCE.mask)
    found = explain(me, PICTURES.double(), source=source, score=lambda logits: logits[:, 1])
    with torch.no_grad():
        for token in range(5):
            step = source.data.clone()
            step[:, token] *= 1 + 1e-6
            change = me(PICTURES.double(), source=SourceFeatures(step, source.mask))[:, 1] - found.score
            torch.testing.assert_close(found.by_source[:, token], change / 1e-6, rtol=1e-3, atol=1e-4)
    assert (found.by_source[1, -2:] == 0).all()  # padding


def test_evidence_of_attention_is_weight_times_gradient() -> None:
    me = expanded()
    found = explain(me, PICTURES, source=SOURCE, score=lambda logits: logits[:, 1])
    with record_attention(me, gradients=True) as seen:
        score = me(PICTURES, source=SOURCE)[:, 1].sum()
    expected = seen["0"].weights * seen.gradients(score)["0"]
    torch.testing.assert_close(found.by_attention["0"], expected)
    assert found.by_attention["0"].abs().sum() > 0


def test_units_without_attention_have_evidence_of_the_source() -> None:
    me = inject(pictures_net(), "0", source_spec=ViewSpec.tokens(12), example_inputs=PICTURES, unit="film")
    nn.init.normal_(me.unit("0").source_to_shift.weight)
    found = explain(me, PICTURES, source=SOURCE, score=lambda logits: logits[:, 0])
    assert (dict(found.attention), dict(found.by_attention)) == ({}, {})
    assert found.by_source.abs().sum() > 0


@pytest.mark.parametrize("unit", ["mi2p", "film"])
def test_evidence_of_residuals_is_the_change_that_the_gradient_foresees(unit: str) -> None:
    """For a residual that is a little larger at one place: the number's change, scaled up."""
    me = inject(pictures_net(), "0", source_spec=ViewSpec.tokens(12), example_inputs=PICTURES, unit=unit)
    randomize_zero_parameters(me)
    me = me.double()
    pictures, source = PICTURES.double(), SourceFeatures(SOURCE.data.double(), SOURCE.mask)
    found = explain(me, pictures, source=source, score=lambda logits: logits[:, 1])
    assert found.by_residual["0"].shape == (2, 6, 6)
    for place in ((0, 0), (3, 5)):

        def larger(unit: nn.Module, args: object, residual: torch.Tensor, place: tuple[int, int] = place) -> object:
            more = residual.clone()
            more[:, :, place[0], place[1]] *= 1 + 1e-6
            return more

        handle = me.unit("0").register_forward_hook(larger)
        with torch.no_grad():
            change = me(pictures, source=source)[:, 1] - found.score
        handle.remove()
        torch.testing.assert_close(found.by_residual["0"][:, place[0], place[1]], change / 1e-6, rtol=1e-3, atol=1e-6)
    assert found.by_residual["0"].abs().sum() > 0
    assert me.calls.now.recorders == ()


def pictures_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (lambda logits: logits.sum(), "no number a sample"),
        (lambda logits: logits, "no number a sample"),
        (lambda logits: logits[:, 0].detach(), "does not depend on the source"),
        (lambda logits: torch.zeros(2, requires_grad=True), "does not depend on the source"),
        (lambda logits: 1.0, "no number a sample"),
    ],
    ids=["one number", "all logits", "detached", "another tensor", "a float"],
)
def test_bad_scores_say_so(score: object, words: str) -> None:
    with complains(ExplainError, words):
        explain(expanded(), PICTURES, source=SOURCE, score=score)  # type: ignore[arg-type]


def test_maps_of_words_that_attend_to_channels() -> None:
    source = map_features(2)
    me = inject(nn.Sequential(nn.Linear(12, 8), nn.Linear(8, 3)), "0", source_spec=source.spec, example_inputs=TEXTS)
    with record_attention(me) as seen:
        me(TEXTS, source=source)
    maps = token_maps(seen["0"], seen["0"].weights, source.data)
    expected = torch.zeros(2, 4, 3, 4)
    for row in range(2):
        for word in range(4):
            for channel in range(10):
                active = source.data[row, channel].clamp_min(0)
                weight = seen["0"].weights[row, :, word, channel].mean()
                expected[row, word] += weight * active / active.sum()
    torch.testing.assert_close(maps, expected)


def test_maps_of_words_that_channels_attend_to() -> None:
    me = expanded()
    with record_attention(me, views=True) as seen:
        me(PICTURES, source=SOURCE)
    maps = token_maps(seen["0"], seen["0"].weights, SOURCE.data)
    expected = torch.zeros(2, 5, 8, 8)
    hidden = me.backbone[0](PICTURES).detach()
    for row in range(2):
        for word in range(5):
            for channel in range(6):
                active = hidden[row, channel].clamp_min(0)
                expected[row, word] += seen["0"].weights[row, :, channel, word].mean() * active / active.sum()
    torch.testing.assert_close(maps, expected)
    assert token_maps_without_a_view(me) is None


def token_maps_without_a_view(me: nn.Module) -> object:
    with record_attention(me) as seen:  # type: ignore[arg-type]
        me(PICTURES, source=SOURCE)
    return token_maps(seen["0"], seen["0"].weights, SOURCE.data)


@pytest.mark.parametrize("side", ["pixels attend to words", "words attend to pixels"])
def test_maps_of_attention_over_pixels_are_the_weights(side: str) -> None:
    if side == "pixels attend to words":
        me, inputs, source = expanded_with_cross_attention(), PICTURES, SOURCE
    else:
        source, inputs = map_features(2), TEXTS
        net = nn.Sequential(nn.Linear(12, 8), nn.Linear(8, 3))
        me = inject(net, "0", source_spec=source.spec, example_inputs=TEXTS, unit="cross-attention")
    with record_attention(me) as seen:
        me(inputs, source=source)
    weights = seen["0"].weights.mean(1)
    maps = token_maps(seen["0"], seen["0"].weights, source.data)
    if side == "pixels attend to words":
        assert torch.equal(maps, weights.mT.reshape(2, 5, 6, 6))
    else:
        assert torch.equal(maps, weights.reshape(2, 4, 3, 4))


def expanded_with_cross_attention() -> nn.Module:
    spec = ViewSpec.tokens(12)
    return inject(pictures_net(), "0", source_spec=spec, example_inputs=PICTURES, unit="cross-attention")


def test_words_that_attend_to_words_have_no_map() -> None:
    source = token_features(2)
    me = inject(nn.Sequential(nn.Linear(12, 8), nn.Linear(8, 3)), "0", source_spec=source.spec, example_inputs=TEXTS)
    with record_attention(me) as seen:
        me(TEXTS, source=source)
    assert token_maps(seen["0"], seen["0"].weights, source.data) is None


def test_effective_count_is_e_to_the_entropy() -> None:
    weights = torch.tensor([0.5, 0.25, 0.25])
    expected = math.exp(0.5 * math.log(2) + 0.5 * math.log(4))
    assert effective_count(weights).item() == pytest.approx(expected)


@pytest.mark.parametrize("of_text", ["mi2p", "film"])
def test_each_of_several_sources_has_evidence_of_its_own(of_text: str) -> None:
    """At one site, of one forward: the change that a small step along one source's token makes, the other as it is."""
    sources = {"text": ViewSpec.tokens(12), "columns": ViewSpec.tokens(12)}
    units = {"text": of_text, "columns": "mi2p"}
    me = inject(pictures_net(), "0", source_spec=sources, example_inputs=PICTURES, unit=units)
    randomize_zero_parameters(me)
    me = me.double()
    other = torch.randn(2, 3, 12, dtype=torch.double, generator=torch.Generator().manual_seed(5))
    given = {"text": SourceFeatures(SOURCE.data.double(), SOURCE.mask), "columns": SourceFeatures(other)}
    found = explain(me, PICTURES.double(), source=given, score=lambda logits: logits[:, 1])
    assert list(found) == ["text", "columns"]
    for name, features in given.items():
        assert list(found[name].by_residual) == ["0"]
        assert list(found[name].by_attention) == (["0"] if units[name] == "mi2p" else [])
        for token in range(features.data.shape[1]):
            step = features.data.clone()
            step[:, token] *= 1 + 1e-6
            with torch.no_grad():
                changed = {**given, name: SourceFeatures(step, features.mask)}
                change = me(PICTURES.double(), source=changed)[:, 1] - found[name].score
            torch.testing.assert_close(found[name].by_source[:, token], change / 1e-6, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(found["text"].by_residual["0"], found["columns"].by_residual["0"])
    alone = explain(me, PICTURES.double(), source={"columns": given["columns"]}, score=lambda logits: logits[:, 1])
    assert list(alone) == ["columns"]
