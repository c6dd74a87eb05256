"""Gradient checkpointing, with every library's own switch: the gradients of an ordinary forward, or an error.

A region that holds a site is recomputed in the backward pass, where no forward of the expanded model is running.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import timm
import torch
import transformers as hf
from helpers import PICTURES, complains, map_features, mixture, net, same, token_features
from model_inputs import image, small_image, text
from models import HF, TINY, TinyModel, hugging
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from mi2p_inject import ExpandedModel, SourceFeatures, ViewSpec, inject
from mi2p_inject.adapters import find
from mi2p_inject.core.errors import RecomputeError, SiteError
from mi2p_inject.expansion.hook import hook_path

DECODER = {**HF["bert"][1], "n_embd": 24, "n_layer": 3, "n_head": 4, "use_cache": False}

KINDS = (False, True)


def zoo(name: str, **options: Any) -> Callable[[], nn.Module]:
    """A small timm model whose sites run many children."""
    return lambda: timm.create_model(name, num_classes=5, **options)


MODELS = {
    name: TINY[name]
    for name in ("densenet", "resnet", "convnext", "efficientnet", "vit", "hiera", "swin", "bert", "modernbert")
}
MODELS |= {name: TINY[name] for name in ("hf_vit", "hf_swin", "wav2vec2", "clip_resnet", "clip_vit", "clip_text")}
MODELS |= {
    "mobilenetv3": TinyModel("mobilenetv3", zoo("mobilenetv3_small_050"), image),
    "lcnet": TinyModel("lcnet", zoo("lcnet_035"), image),
    "ghostnet": TinyModel("ghostnet", zoo("ghostnet_050"), image),
    "repvgg": TinyModel("repvgg", zoo("repvgg_a0", width_factor=0.1), small_image),
    "gpt2": TinyModel("gpt2", hugging("GPT2LMHeadModel", DECODER), text),
}


@pytest.fixture(params=KINDS, ids=["plain", "reentrant"])
def reentrant(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(autouse=True)
def timm_as_it_was() -> Iterator[None]:
    yield
    timm.layers.set_reentrant_ckpt(False)


def switch_on(model: nn.Module, reentrant: bool) -> None:
    """The library's own switch; timm reads TIMM_REENTRANT_CKPT=1 once, at import, and `set_reentrant_ckpt` is that."""
    if isinstance(model, hf.PreTrainedModel):
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    else:
        timm.layers.set_reentrant_ckpt(reentrant)
        model.set_grad_checkpointing(True)


def expand(tiny: TinyModel, **options: Any) -> tuple[ExpandedModel, SourceFeatures, Any]:
    model = tiny.build()
    match, inputs = find(model), tiny.inputs(2, 0)
    source = token_features(2) if match is None or match.adapter.modality == "image" else map_features(2)
    example = inputs[1] or inputs[0]
    me = inject(
        model, source_spec=source.spec, example_inputs=example, **{"layers": "paper", "zero_init": None, **options}
    )
    return me.train(), source, inputs


def gradients(me: nn.Module, source: Any, inputs: Any) -> dict[str, Tensor | None]:
    me.zero_grad()
    torch.manual_seed(0)  # the same dropout
    mixture(me(*inputs[0], source=source, **inputs[1])).backward()
    return {name: None if p.grad is None else p.grad.clone() for name, p in me.named_parameters()}


def equal(got: dict[str, Tensor | None], wanted: dict[str, Tensor | None]) -> None:
    assert {name for name, one in got.items() if one is None} == {name for name, one in wanted.items() if one is None}
    largest = max(float(one.abs().max()) for one in wanted.values() if one is not None)
    for name, one in got.items():
        if one is not None:
            torch.testing.assert_close(one, wanted[name], atol=1e-5 * largest, rtol=1e-3, msg=name)


CASES = [(name, "all") for name in MODELS] + [(name, "units") for name in ("resnet", "vit", "hf_swin", "clip_vit")]


@pytest.mark.parametrize(("name", "trainable"), CASES)
@pytest.mark.fault(
    "S1",
    "each library's own switch of gradient checkpointing, reentrant or not, stages of timm included",
    "the gradients of an ordinary step, from the first step on",
)
def test_every_switch_gives_the_gradients_of_an_ordinary_forward(name: str, trainable: str) -> None:
    me, source, inputs = expand(MODELS[name], trainable=trainable)
    others = [copy.deepcopy(me) for _ in KINDS]  # the first training step of each is the checkpointed one
    wanted = gradients(me, source, inputs)
    for reentrant, other in zip(KINDS, others, strict=True):
        switch_on(other.backbone, reentrant)
        if reentrant and (name, trainable) in {("resnet", "units"), ("vit", "units")}:  # torch's own limit
            with complains(RecomputeError, "none of its inputs requires gradients"):
                gradients(other, source, inputs)
        else:
            equal(gradients(other, source, inputs), wanted)


@pytest.mark.parametrize("name", ["vit", "clip_text"])
@pytest.mark.fault(
    "S1", "two checkpointed forwards with two sources before a backward", "each is recomputed with its own source"
)
def test_two_forwards_before_their_backward_keep_their_sources(name: str, reentrant: bool) -> None:
    me, source, inputs = expand(MODELS[name])
    other = source[[1, 0]]
    wanted = [gradients(me, source, inputs), gradients(me, other, inputs)]
    switch_on(me.backbone, reentrant)
    gradients(me, source, inputs)  # a step before
    losses = []
    for one in (source, other):
        torch.manual_seed(0)
        losses.append(mixture(me(*inputs[0], source=one, **inputs[1])))
    losses.append(mixture(me(*inputs[0], **inputs[1])))  # and one without a source
    for loss, gradient in zip(losses[:2], wanted, strict=True):
        me.zero_grad()
        loss.backward()
        equal({key: p.grad for key, p in me.named_parameters()}, gradient)
    me.zero_grad()
    losses[2].backward()
    assert all(parameter.grad is None for parameter in me.units.parameters())
    assert any(parameter.grad is not None for parameter in me.backbone.parameters())


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.fault(
    "S1", "torch.utils.checkpoint around the model, inside it, nested", "the gradients of an ordinary step"
)
def test_torchs_own_checkpoint_around_and_inside(nested: bool, reentrant: bool) -> None:
    class Inside(nn.Module):
        def __init__(self, checkpointed: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.stem = nn.Conv2d(3, 6, 1)
            self.body = nn.Sequential(
                nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), nn.Sequential(nn.ReLU(), nn.Conv2d(6, 4, 1))
            )
            self.checkpointed = checkpointed

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            if not self.checkpointed:
                return self.body(x)
            if not nested:
                return checkpoint_sequential(self.body, 2, x, use_reentrant=reentrant)
            inner = lambda y: checkpoint(self.body[1:], y, use_reentrant=reentrant)  # noqa: E731
            return checkpoint(lambda y: inner(self.body[0](y)), x, use_reentrant=reentrant)

    options = {"layers": ["stem", "body.0", "body.2"], "example_inputs": PICTURES, "source_spec": ViewSpec.tokens(12)}
    plain, me = (inject(Inside(flag), zero_init=None, **options).train() for flag in (False, True))
    me.load_state_dict(plain.state_dict())
    wanted = gradients(plain, token_features(2), ((PICTURES,), {}))
    equal(gradients(me, token_features(2), ((PICTURES,), {})), wanted)
    around = lambda x, source: checkpoint(lambda y: plain(y, source=source), x, use_reentrant=reentrant)  # noqa: E731
    plain.zero_grad()
    mixture(around(PICTURES.clone().requires_grad_(), token_features(2))).backward()
    equal({key: p.grad for key, p in plain.named_parameters()}, wanted)


@pytest.mark.parametrize("name", ["resnet", "efficientnet", "vit"])
def test_a_model_that_checkpoints_already_can_be_injected(name: str, reentrant: bool) -> None:
    me, source, inputs = expand(MODELS[name])
    model = MODELS[name].build()
    switch_on(model, reentrant)
    other = inject(model, layers="paper", source_spec=source.spec, example_inputs=inputs[0], zero_init=None).train()
    assert other.sites == me.sites
    assert model.grad_checkpointing
    other.load_state_dict(me.state_dict())
    equal(gradients(other, source, inputs), gradients(me, source, inputs))


class Skips(nn.Module):
    """Runs other modules in place of `stage` while it checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        self.stage, self.grad_checkpointing = net()[:2].append(nn.Identity()), False

    def forward(self, x: Tensor) -> Tensor:
        if not self.grad_checkpointing:
            return self.stage(x)
        for module in self.stage[:-1]:
            x = checkpoint(module, x, use_reentrant=False)
        return x


@pytest.mark.fault(
    "S1", "a switch that runs other modules instead of the site", "SiteError names gradient checkpointing"
)
def test_a_switch_that_silences_a_site_is_found_out() -> None:
    me = inject(Skips(), layers="stage", source_spec=ViewSpec.tokens(12), example_inputs=PICTURES)
    me(PICTURES, source=token_features(2))
    me.backbone.grad_checkpointing = True
    with complains(SiteError, "did not fire", "gradient checkpointing"):
        me(PICTURES, source=token_features(2))


class Recompute(torch.autograd.Function):
    """A checkpoint of somebody's own, whose forward has nothing to note a call on."""

    @staticmethod
    def forward(function: Any, x: Tensor) -> Any:
        return function(x)

    @staticmethod
    def setup_context(state: Any, inputs: Any, output: Any) -> None:
        state.function, state.x = inputs[0], inputs[1].detach().requires_grad_()

    @staticmethod
    def backward(state: Any, grad: Any) -> Any:
        with torch.enable_grad():
            state.function(state.x).backward(grad)
        return None, state.x.grad


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.own, self.frozen = nn.Conv2d(3, 3, 1), net(), False, False

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.own:
            return Recompute.apply(self.body, x)
        with torch.set_grad_enabled(not self.frozen and torch.is_grad_enabled()):
            return self.body(x)


def own() -> ExpandedModel:
    return inject(Own(), layers="body.0", source_spec=ViewSpec.tokens(12), example_inputs=PICTURES, zero_init=None)


@pytest.mark.fault(
    "S1",
    "a checkpoint of one's own that recomputes a site in the backward",
    "SiteError in training, RecomputeError else",
)
def test_a_recompute_without_its_source_is_refused() -> None:
    me = own().train()
    me.backbone.own = True
    mixture(me(PICTURES)).backward()  # without a source it is the backbone's own business
    assert all(parameter.grad is not None for parameter in me.backbone.parameters())
    with complains(SiteError, "runs without gradients"):
        gradients(me, token_features(2), ((PICTURES,), {}))
    with complains(RecomputeError, "inside a backward pass", "gradient checkpointing"):
        gradients(me.eval(), token_features(2), ((PICTURES,), {}))


@pytest.mark.fault(
    "S1", "a site that runs under no_grad while its unit should train", "SiteError: it would never learn"
)
def test_a_site_without_gradients_in_training_is_refused() -> None:
    me, source = own(), token_features(2)
    me.backbone.frozen = True
    out = me.eval()(PICTURES, source=source)
    with complains(SiteError, "would never learn"):
        me.train()(PICTURES, source=source)
    with torch.no_grad():
        same(me(PICTURES, source=source), out)
    me.units.requires_grad_(False)
    same(me(PICTURES, source=source), out)


def test_where_the_hook_of_a_sequence_is() -> None:
    shared = nn.ReLU()

    class Odd(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[0](x)

    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Sequential(nn.ReLU(), net()[0]), Odd(nn.ReLU(), nn.ReLU()))
    model.append(nn.Sequential(nn.ReLU(), shared)).append(nn.Sequential(nn.ReLU(), shared)).append(nn.Sequential())
    compiled = nn.Sequential(nn.ReLU())
    compiled[0].compile()
    model.append(compiled)
    expected = ["0", "1.1", "2", "3", "4", "5", "6"]
    assert [hook_path(model, str(index)) for index in range(7)] == expected
