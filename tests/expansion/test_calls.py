"""All ways to run a backbone work after injection, and read the source: other outputs, other methods, generation."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import timm
import torch
import transformers as hf
from helpers import PICTURES, complains, differs, expanded, floats, same, token_features
from models import BERT, HF, SPECIAL, TINY, TRANSFORMER
from torch import Tensor, nn

from mi2p_inject import ExpandedModel, SourceFeatures, ViewSpec, inject
from mi2p_inject.core.errors import InjectionError, LayoutError, SiteError, SourceError
from mi2p_inject.core.layout import Axes, Layout
from mi2p_inject.testing.randomize import randomize_zero_parameters

WORDS = ViewSpec.tokens(12)
DECODER = {**TRANSFORMER, **SPECIAL, "max_position_embeddings": 40}
DECODERS = {
    "GPT2LMHeadModel": {**SPECIAL, "n_embd": 24, "n_layer": 3, "n_head": 4, "n_positions": 40},
    "LlamaForCausalLM": {**DECODER, "num_key_value_heads": 2},
    "MistralForCausalLM": {**DECODER, "num_key_value_heads": 2, "sliding_window": 6},
    "OPTForCausalLM": {**DECODER, "ffn_dim": 32, "word_embed_proj_dim": 24},
    "GPTNeoXForCausalLM": DECODER,
    "BertLMHeadModel": {**BERT, "is_decoder": True},
}
NORMED = {"hf_pvt_v2"}  # every state is listed behind its stage's norm: none is what a site gives
ATTENTIONS = [name for name, (_, fields, _) in HF.items() if "depths" not in fields]


def active(model: nn.Module, **options: Any) -> ExpandedModel:
    me = inject(model, source_spec=WORDS, **{"layers": "paper", **options})
    randomize_zero_parameters(me.units, strength=1.0)
    return me


class Record:
    """Keeps what a site gives after injection."""

    def __init__(self, me: ExpandedModel) -> None:
        self.seen: list[Tensor] = []
        for site in me.sites:
            me.backbone.get_submodule(site.path).register_forward_hook(self.hook)

    def hook(self, module: nn.Module, args: Any, output: Any) -> None:
        self.seen.append(output if isinstance(output, Tensor) else output[0])


@pytest.mark.parametrize("name", HF)
def test_other_outputs(name: str) -> None:
    """Hidden states are the injected ones, attentions come, tuples stay tuples: all attend to the source."""
    tiny = TINY[name]
    model = tiny.build()
    options: list[dict[str, bool]] = [{"output_hidden_states": True}, {"return_dict": False}]
    if name in ATTENTIONS:
        model.set_attn_implementation("eager")
        options.append({"output_attentions": True})
    args, kwargs = tiny.inputs(2, 0)
    plain = [model(*args, **kwargs, **option) for option in options]
    me = active(model)
    record = Record(me)
    for option, expected in zip(options, plain, strict=True):
        assert not differs(me(*args, **kwargs, **option), expected)
        record.seen.clear()
        out = me(*args, source=token_features(2), **kwargs, **option)
        assert type(out) is type(expected)
        assert len(floats(out)) == len(floats(expected))
        assert differs(floats(out)[0], floats(expected)[0])
        if "output_hidden_states" in option:
            found = sum(any(shown(one, state) for state in out.hidden_states) for one in record.seen)
            # The last layer's state is listed behind the final norm, and a stage's before its downsampling.
            assert found >= len(me.sites) - 1 or name in NORMED
            assert all(differs(*pair) for pair in zip(out.hidden_states[1:], expected.hidden_states[1:], strict=True))
        if "output_attentions" in option:
            assert len(out.attentions) == len(expected.attentions) > 0


def shown(one: Tensor, state: Tensor) -> bool:
    """XLNet computes length first and lists batch first."""
    return any(turned.shape == state.shape and torch.equal(turned, state) for turned in (one, one.transpose(0, 1)))


@pytest.mark.parametrize("name", ["densenet", "resnet", "convnext", "efficientnet", "vit", "eva", "swin"])
@pytest.mark.parametrize("method", ["forward_features", "forward_intermediates", "forward"])
def test_methods_of_timm(name: str, method: str) -> None:
    tiny = TINY[name]
    me = active(tiny.build())
    args, _ = tiny.inputs(2, 0)
    plain = getattr(me.backbone, method)(*args)
    assert not differs(me.call(method, *args), plain)
    assert differs(me.call(method, *args, source=token_features(2)), plain)
    assert not differs(getattr(me.backbone, method)(*args), plain)  # the source is gone with the call


@pytest.mark.parametrize(
    ("name", "layers", "options"),
    [("resnet10t", "layer*", {}), ("regnetx_002", "s*", {}), ("densenet121", "features_denseblock*", {}),
     ("efficientnet_lite0", "blocks.*", {}), ("vit_tiny_patch16_224", "model.blocks.*", {"img_size": 32}),
     ("mobilenetv3_small_050", "body.blocks.*", {"feature_cls": "hook"})],
)  # fmt: skip
@pytest.mark.fault("calls", "timm's features_only models, each wrapper", "the sites fire")
def test_features_only(name: str, layers: str, options: dict[str, Any]) -> None:
    model = timm.create_model(name, features_only=True, **options).eval()
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain = model(pixels)
    me = active(model, layers=layers, example_inputs=pixels)
    out = me(pixels, source=token_features(2))
    assert [one.shape for one in out] == [one.shape for one in plain]
    assert differs(out[-1], plain[-1])
    assert not differs(me.eject()(pixels), plain)


@pytest.mark.parametrize(
    ("name", "options"),
    [("densenet121", {}), ("densenet121", {"feature_cls": "hook"}), ("nfnet_l0", {}), ("resnet51q", {}),
     ("mobilevit_xxs", {}), ("resnet10t", {"feature_cls": "getter"}), ("convnext_atto", {"feature_cls": "getter"}),
     ("pit_ti_224", {"img_size": 64, "layout": Layout(Axes.NCHW, element=0)}),
     ("resnet10t", {"feature_cls": "hook"})],
    ids=str,
)  # fmt: skip
@pytest.mark.fault("calls", "features_only models of timm with no layers named", "the default sites, and they fire")
def test_default_sites_of_features_only(name: str, options: dict[str, Any]) -> None:
    options = dict(options)
    layout = options.pop("layout", None)
    model = timm.create_model(name, features_only=True, **options).eval()
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    plain = model(pixels)
    if layout:
        with pytest.raises(LayoutError, match="layout=Layout"):
            active(model, example_inputs=pixels)
    me = active(model, example_inputs=pixels, layout=layout)
    assert differs(me(pixels, source=token_features(2))[-1], plain[-1])
    assert not differs(me(pixels)[-1], plain[-1])


def decoder(name: str) -> nn.Module:
    cls = getattr(hf, name)
    torch.manual_seed(1)
    model: nn.Module = cls(cls.config_class(**DECODERS[name])).eval()
    for parameter in model.parameters():  # untrained decoders repeat one token whatever they attend to
        parameter.data.normal_(0, 0.3)
    return model


def prompts(rows: int = 2) -> dict[str, Tensor]:
    ids = torch.randint(3, 50, (rows, 5), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def stepwise(me: ExpandedModel, source: SourceFeatures, steps: int) -> Tensor:
    """Greedy generation by whole forwards, without a cache."""
    ids = prompts()["input_ids"]
    for _ in range(steps):
        logits = me(input_ids=ids, attention_mask=torch.ones_like(ids), source=source, use_cache=False).logits
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
    return ids


GREEDY = {"do_sample": False, "max_new_tokens": 6, "min_new_tokens": 6, "eos_token_id": None, "pad_token_id": 1}


@pytest.mark.parametrize("name", DECODERS)
def test_generation_with_a_cache_is_generation_without(name: str) -> None:
    me = active(decoder(name))
    words = token_features(2)
    with torch.no_grad():
        out = me.call("generate", **prompts(), source=words, **GREEDY)
        assert torch.equal(out, stepwise(me, words, 6))
        plain = me.backbone.generate(**prompts(), **GREEDY)
        assert torch.equal(me.call("generate", **prompts(), **GREEDY), plain)
        assert not torch.equal(out, plain)


def test_beams_repeat_the_source() -> None:
    me = active(decoder("LlamaForCausalLM"))
    words = token_features(2)
    beams = {**GREEDY, "num_beams": 3, "num_return_sequences": 2}
    both = me.call("generate", **prompts(), source=words, **beams)
    for row in (0, 1):
        one = {key: value[row : row + 1] for key, value in prompts().items()}
        alone = me.call("generate", **one, source=words[[row]], **beams)
        assert torch.equal(both[2 * row : 2 * row + 2], alone)


@pytest.mark.parametrize("sites", ["encoder.block.*", "decoder.block.*"])
def test_generation_of_an_encoder_decoder(sites: str) -> None:
    """The encoder runs once on each prompt, the decoder once a token on each beam: both attend to their sample."""
    fields = {"d_model": 24, "d_kv": 6, "d_ff": 32, "num_layers": 2, "num_heads": 4, "vocab_size": 60}
    torch.manual_seed(0)
    model = hf.T5ForConditionalGeneration(hf.T5Config(**fields, decoder_start_token_id=0)).eval()
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)
    me, words, beams = active(model, layers=sites), token_features(2), {**GREEDY, "num_beams": 3}
    both = me.call("generate", **prompts(), source=words, **beams)
    assert not torch.equal(both, model.generate(**prompts(), **beams))
    for row in (0, 1):
        one = {key: value[row : row + 1] for key, value in prompts().items()}
        assert torch.equal(both[row : row + 1], me.call("generate", **one, source=words[[row]], **beams))


def test_generation_encodes_once() -> None:
    text, runs = TINY["bert"].build(), []
    text.register_forward_hook(lambda *_: runs.append(1))
    me = inject(decoder("LlamaForCausalLM"), layers="paper", source_encoder=text, zero_init=None)
    runs.clear()
    me.call("generate", **prompts(), source=TINY["bert"].inputs(2, 0)[1], **GREEDY)
    assert len(runs) == 1


@pytest.mark.parametrize("method", ["generate", "forward"])
@pytest.mark.fault("calls", "a method's inputs of twice as many samples as the source has", "SourceError, as for me(x)")
def test_a_source_is_repeated_inside_a_method_alone(method: str) -> None:
    me = active(decoder("LlamaForCausalLM"))
    twice = {key: torch.cat([value, value]) for key, value in prompts().items()}
    options = GREEDY if method == "generate" else {}
    with complains(SourceError, "different batches", "4 rows"):
        me.call(method, **twice, source=token_features(2), **options)
    with complains(SourceError, "different batches", "4 rows"):
        me(**twice, source=token_features(2))


def test_bad_calls() -> None:
    tiny = TINY["resnet"]
    me = active(tiny.build())
    args, _ = tiny.inputs(2, 0)
    with complains(InjectionError, "forward_featurs", "forward_features"):
        me.call("forward_featurs", *args)
    with complains(SiteError, "did not fire"):
        me.call("get_classifier", source=token_features(2))
    with complains(SourceError, "3 rows|2 rows"):
        me.call("forward_features", *args, source=token_features(3))


@pytest.mark.fault(
    "S9", "two tasks of an event loop in blocks of one model", "SourceError; what ends without an await is right"
)
def test_blocks_are_of_one_task() -> None:
    me = expanded().requires_grad_(False)
    full, other = me(PICTURES, source=token_features(2)), me(PICTURES, source=token_features(2, seed=1))

    async def in_block(block: Any, entered: asyncio.Event, done: asyncio.Event) -> None:
        with block:
            entered.set()
            await done.wait()
            me.backbone(PICTURES)

    async def later(run: Any, entered: asyncio.Event, done: asyncio.Event) -> Any:
        await entered.wait()
        try:
            return run()
        finally:
            done.set()

    async def both(run: Any, block: Any) -> list[Any]:
        when = asyncio.Event(), asyncio.Event()
        return await asyncio.gather(in_block(block, *when), later(run, *when), return_exceptions=True)

    def meanwhile(run: Any, block: Any) -> Any:
        return asyncio.run(both(run, block))[1]

    def enter() -> None:
        with me.source(token_features(2, seed=1)):
            me.backbone(PICTURES)

    for run, block in (
        (lambda: me.backbone(PICTURES), me.source(token_features(2))),
        (enter, me.source(token_features(2))),
        (enter, me.disabled()),
        (lambda: me(PICTURES, source=token_features(2, seed=1)), me.disabled()),
    ):
        found = meanwhile(run, block)
        assert isinstance(found, SourceError), found
        assert "another task" in str(found)
    same(meanwhile(lambda: me(PICTURES, source=token_features(2, seed=1)), me.source(token_features(2))), other)
    assert me.active

    async def part() -> Any:
        return me.backbone(PICTURES)

    async def alone() -> Any:
        with me.source(token_features(2)):
            return await asyncio.create_task(part())

    same(asyncio.run(alone()), full)
