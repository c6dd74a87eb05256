"""Which forward a recomputed region belongs to: backward passes in blocks, several forwards in a region or a step."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import pytest
import timm
import torch
from helpers import complains, mixture, token_features
from models import TINY, seeded
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mi2p_inject import ExpandedModel, SourceFeatures, inject
from mi2p_inject.core.errors import RecomputeError
from mi2p_inject.expansion.call import Call
from mi2p_inject.sources.features import prepare
from mi2p_inject.units.unit_dict import UnitDict

ONE, OTHER = token_features(2, seed=1), token_features(2, seed=2)
PICTURES = TINY["vit"].inputs(2, 0)[0][0]
SPEC = ONE.spec, torch.float32
Gradients = dict[str, Tensor | None]


@pytest.fixture(params=[False, True], ids=["plain", "reentrant"])
def reentrant(request: pytest.FixtureRequest) -> Iterator[bool]:
    timm.layers.set_reentrant_ckpt(request.param)
    yield bool(request.param)
    timm.layers.set_reentrant_ckpt(False)


def vit(checkpointed: bool = False) -> ExpandedModel:
    """The same each time, but for the switch."""
    model = TINY["vit"].build()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        me = inject(model, layers="paper", source_spec=ONE.spec, example_inputs=PICTURES, zero_init=None).train()
    me.backbone.set_grad_checkpointing(checkpointed)
    return me


def gradients(me: ExpandedModel, step: Callable[[ExpandedModel], Tensor | None]) -> Gradients:
    loss = step(me)
    if loss is not None:
        loss.backward()
    return {name: one.grad for name, one in me.named_parameters()}


def equal(got: Gradients, wanted: Gradients) -> None:
    assert {name for name, one in got.items() if one is None} == {name for name, one in wanted.items() if one is None}
    for name, one in got.items():
        torch.testing.assert_close(one, wanted[name], msg=name)


def before_the_block(me: ExpandedModel) -> None:
    loss = mixture(me(PICTURES, source=ONE))
    with me.source(OTHER):
        me.backbone(PICTURES)
        loss.backward()


def inside_the_block(me: ExpandedModel) -> None:
    with me.source(OTHER):
        me.backbone(PICTURES)
        mixture(me(PICTURES, source=ONE)).backward()


def the_backbone_alone(me: ExpandedModel) -> None:
    with me.source(OTHER):
        me.backbone(PICTURES)
        with me.disabled():
            loss = mixture(me(PICTURES))
        loss.backward()


@pytest.mark.parametrize("step", [before_the_block, inside_the_block, the_backbone_alone])
@pytest.mark.fault(
    "S1",
    "a backward pass inside a `with me.source(...)` block, of a checkpointed forward with another source",
    "it is recomputed with its own source, not with the block's",
)
def test_a_backward_pass_in_a_block(step: Callable[[ExpandedModel], None], reentrant: bool) -> None:
    source = None if step is the_backbone_alone else ONE
    wanted = gradients(vit(), lambda me: mixture(me(PICTURES, source=source)))
    equal(gradients(vit(checkpointed=True), step), wanted)


def of_any_size(checkpointed: bool) -> ExpandedModel:
    options = {"depth": 2, "embed_dim": 24, "num_heads": 2, "img_size": 64, "dynamic_img_size": True, "num_classes": 3}
    model = seeded(timm.create_model, "vit_tiny_patch16_224", **options)()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        example = torch.zeros(2, 3, 64, 64)
        me = inject(model, layers="paper", source_spec=ONE.spec, example_inputs=example, zero_init=None).train()
    me.backbone.set_grad_checkpointing(checkpointed)
    return me


@pytest.mark.fault(
    "S1",
    "checkpointed forwards of images of two sizes, as many patches each, in a block",
    "each is recomputed with the grid of its own image",
)
def test_images_of_two_sizes_in_a_block(reentrant: bool) -> None:
    wide, square = torch.randn(2, 3, 64, 144), torch.randn(2, 3, 96, 96)

    def step(me: ExpandedModel) -> Tensor:
        with me.source(ONE):
            return mixture(me.backbone(wide)) + mixture(me.backbone(square))

    equal(gradients(of_any_size(True), step), gradients(of_any_size(False), step))


@pytest.mark.fault(
    "S1", "a first training step with a forward without a source before one with it", "the gradients of both"
)
def test_the_first_step_has_a_forward_without_a_source(reentrant: bool) -> None:
    def step(me: ExpandedModel) -> Tensor:
        return mixture(me(PICTURES)) + mixture(me(PICTURES, source=ONE))

    equal(gradients(vit(checkpointed=True), step), gradients(vit(), step))


def with_and_without(me: ExpandedModel, x: Tensor) -> Tensor:
    return me(x) * me(x, source=ONE)


def of_two_sources(me: ExpandedModel, x: Tensor) -> Tensor:
    with me.source(OTHER):
        once = me.backbone(x)
    return once * me(x, source=ONE) * me(x)


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("function", [with_and_without, of_two_sources])
@pytest.mark.fault(
    "S1",
    "several forwards, with other sources and without one, in one checkpointed region",
    "each is recomputed with its own; RecomputeError where they are calls of the backbone itself",
)
def test_several_forwards_in_a_region(
    function: Callable[[ExpandedModel, Tensor], Tensor], inner: bool, reentrant: bool
) -> None:
    x = PICTURES.clone().requires_grad_()
    wanted = gradients(vit(), lambda me: mixture(function(me, x)))
    around = lambda me: mixture(checkpoint(lambda y: function(me, y), x, use_reentrant=reentrant))  # noqa: E731
    equal(gradients(vit(checkpointed=inner), around), wanted)


def test_forwards_of_the_backbone_itself_in_a_region_are_not_told_apart() -> None:
    me = vit()
    out = checkpoint(lambda x: me.backbone(x) * me(x, source=ONE), PICTURES, use_reentrant=False)
    with complains(RecomputeError, "several forwards", "a checkpoint of its own"):
        mixture(out).backward()


@pytest.mark.parametrize("unit", ["mi2p", "cross-attention", "film"])
@pytest.mark.fault(
    "S1", "checkpointed regions that share a source whose features are trained", "the gradients of an ordinary step"
)
def test_a_source_that_is_trained(unit: str) -> None:
    found = []
    for checkpointed in (False, True):
        model = TINY["vit"].build()
        me = inject(model, layers="paper", source_spec=ONE.spec, example_inputs=PICTURES, unit=unit).train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for parameter in me.units.parameters():
                torch.nn.init.normal_(parameter, std=0.2)
        me.backbone.set_grad_checkpointing(checkpointed)
        words = ONE.data.clone().requires_grad_()
        mixture(me(PICTURES, source=SourceFeatures(words.tanh(), ONE.mask))).backward()
        found.append(words.grad)
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("trained", [False, True])
def test_a_source_that_is_trained_is_repeated_anew_in_each_region(trained: bool) -> None:
    """As the rows of beams and choices are: what one region has made, it must make again when it is recomputed."""
    features = SourceFeatures(ONE.data.clone().requires_grad_(trained))
    prepared = [prepare(features[which], *SPEC) for which in ([0, 1], [0, 0, 1, 1])]
    call = Call({"": prepared[0]}, UnitDict(), once=False, repeat=lambda name, which: prepare(features[which], *SPEC))
    found = [call.source_for("", "site", 4, torch.device("cpu")) for _ in range(2)]
    assert (found[0] is found[1]) is not trained
    assert all(torch.equal(one.tokens, prepared[1].tokens) for one in found)


def in_a_region(me: ExpandedModel, block: bool, reentrant: bool) -> Tensor:
    """A forward of the whole model, or a block, in one region."""

    def forward(pictures: Tensor) -> Tensor:
        if not block:
            return mixture(me(pictures, source=ONE))
        with me.source(ONE):
            return mixture(me.backbone(pictures))

    pictures = PICTURES.clone().requires_grad_()  # else a reentrant region gives no gradients
    found: Tensor = checkpoint(forward, pictures, use_reentrant=reentrant)
    return found


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("block", [False, True])
@pytest.mark.parametrize("forward", [False, True])
@pytest.mark.parametrize("backward", [False, True])
def test_disabled_counts_where_the_forward_began(forward: bool, backward: bool, block: bool, reentrant: bool) -> None:
    def plain(me: ExpandedModel) -> Tensor:
        with me.disabled() if forward else nullcontext():
            return mixture(me(PICTURES, source=ONE))

    def checkpointed(me: ExpandedModel) -> None:
        with me.disabled() if forward else nullcontext():
            loss = in_a_region(me, block, reentrant)
        with me.disabled() if backward else nullcontext():
            loss.backward()

    equal(gradients(vit(), checkpointed), gradients(vit(), plain))


def test_a_backward_pass_in_another_thread_knows_what_was_disabled() -> None:
    """As the devices' threads of autograd are."""

    def elsewhere(me: ExpandedModel) -> None:
        with me.disabled():
            loss = in_a_region(me, False, False)
            thread = threading.Thread(target=loss.backward)
            thread.start()
            thread.join()

    def plain(me: ExpandedModel) -> Tensor:
        with me.disabled():
            return mixture(me(PICTURES, source=ONE))

    equal(gradients(vit(), elsewhere), gradients(vit(), plain))
