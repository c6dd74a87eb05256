"""Blocks with a source and without, nested calls, units that somebody replaces, and steps without any source."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import timm
import torch
import torch.distributed as dist
import transformers as hf
from helpers import PICTURES, complains, differs, expanded, map_features, net, same, token_features
from models import BERT, HF, TINY, hugging
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mi2p_inject import ExpandedModel, ViewSpec, inject
from mi2p_inject.core.errors import SiteError, SourceError
from mi2p_inject.core.layout import Axes, Layout

SOURCE, OTHER = token_features(2), token_features(2, seed=1)


def change(unit: nn.Module) -> None:
    with torch.no_grad():
        for parameter in unit.parameters():
            parameter.add_(0.5)


class TestBlocks:
    def test_a_block_is_a_call(self) -> None:
        me = expanded()
        with me.source(SOURCE):
            same(me.backbone(PICTURES), me(PICTURES, source=SOURCE))
            with complains(SourceError, "different batches"):
                me.backbone(torch.cat([PICTURES, PICTURES.flip(-1)]))
        assert not differs(me.backbone(PICTURES), me(PICTURES))
        with me.source(SOURCE, torch.tensor([True, False])):
            same(me.backbone(PICTURES), me(PICTURES, source=SOURCE, source_mask=torch.tensor([True, False])))

    def test_a_block_encodes_once_and_repeats_rows_for_beams(self) -> None:
        picture = TINY["resnet"].build()
        runs: list[int] = []
        picture.conv1.register_forward_hook(lambda *_: runs.append(1))
        fields = {**BERT, "n_embd": 24, "n_layer": 2, "n_head": 4}
        me = inject(hugging("GPT2LMHeadModel", fields)(), source_encoder=picture, zero_init=None)
        change(me.unit(me.sites[-1].path))
        batch, ids = TINY["resnet"].inputs(2, 0)[0], torch.full((2, 3), 7)
        options = {"num_beams": 2, "do_sample": False, "max_new_tokens": 3, "pad_token_id": 1}
        runs.clear()
        with me.source(batch):
            out = me.backbone.generate(ids, **options)  # type: ignore[operator]
        assert len(runs) == 1
        assert torch.equal(out, me.call("generate", ids, source=batch, **options))

    def test_the_patch_grid_follows_the_image(self) -> None:
        model = timm.models.VisionTransformer(
            img_size=48, dynamic_img_size=True, patch_size=8, embed_dim=24, depth=2, num_heads=4, num_classes=3
        )
        me, wide = (
            inject(model, layers="paper", source_spec=ViewSpec.tokens(12), zero_init=None),
            torch.randn(2, 3, 32, 72),
        )
        with me.source(SOURCE):  # 4x9 patches are as many as 6x6
            same(me.backbone(wide), me(wide, source=SOURCE))
        assert not model._forward_pre_hooks

    def test_after_an_error_nothing_lingers(self) -> None:
        me = expanded()
        with pytest.raises(ZeroDivisionError), me.source(SOURCE):
            raise ZeroDivisionError
        assert not me.backbone._forward_pre_hooks
        assert me.calls.now.call is None
        with pytest.raises(ZeroDivisionError), me.disabled():
            raise ZeroDivisionError
        assert me.active

    def test_a_block_that_runs_nothing_is_refused(self) -> None:
        with complains(SiteError, "did not fire"), expanded().source(SOURCE):
            pass

    def test_disabled(self) -> None:
        me = expanded()
        alone = me(PICTURES)
        assert me.active
        with me.disabled():
            assert not me.active
            same(me(PICTURES, source=SOURCE), alone)
            same(me.call("forward", PICTURES, source=SOURCE), alone)
            with me.source(SOURCE):
                same(me.backbone(PICTURES), alone)
            with me.disabled():
                pass
            assert not me.active
        assert differs(me(PICTURES, source=SOURCE), alone)
        me.eject()
        assert not me.active

    def test_blocks_are_of_one_thread(self) -> None:
        me = expanded().requires_grad_(False)
        alone, full = me(PICTURES), me(PICTURES, source=SOURCE)
        with me.disabled(), ThreadPoolExecutor(1) as pool:
            same(pool.submit(me, PICTURES, source=SOURCE).result(), full)
        with me.source(SOURCE), ThreadPoolExecutor(1) as pool:
            same(pool.submit(me.backbone, PICTURES).result(), alone)
            same(me.backbone(PICTURES), full)

    def test_the_image_of_another_thread_is_not_taken_for_the_blocks(self) -> None:
        """In the midst of a forward another thread runs the same backbone on an image of another shape."""
        model: Any = timm.models.VisionTransformer(
            img_size=48, dynamic_img_size=True, patch_size=8, embed_dim=24, depth=2, num_heads=4, num_classes=3
        )
        me = inject(model, layers="paper", source_spec=ViewSpec.tokens(12), zero_init=None).eval()
        change(me.units)
        wide, square = torch.randn(2, 3, 32, 72), torch.randn(2, 3, 48, 48)  # 4x9 and 6x6 patches
        wanted, alone, seen = me(wide, source=SOURCE), me(square), []
        with ThreadPoolExecutor(1) as pool:

            def meanwhile(*_: Any) -> None:
                if not seen:
                    seen.append(None)
                    seen.append(pool.submit(model, square).result())

            model.patch_embed.register_forward_hook(meanwhile)
            with me.source(SOURCE):
                same(me.backbone(wide), wanted)
        same(seen[1], alone)


class Asks(nn.Module):
    """Runs somebody's function in the midst of its forward, as callbacks of generation do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.ask = nn.Conv2d(3, 3, 1), net(), None

    def forward(self, x: Tensor) -> Any:
        out = self.body(self.stem(x))
        if self.ask is None:
            return out
        ask, self.ask = self.ask, None
        return out, ask(), self.body(x)


class TestNesting:
    @pytest.fixture
    def me(self) -> ExpandedModel:
        return inject(Asks(), layers="stem", source_spec=ViewSpec.tokens(12), example_inputs=PICTURES, zero_init=None)

    @pytest.mark.fault("S9", "me(x) inside me.call(..., source=s)", "the inner call has its own source or none")
    def test_a_forward_inside_a_call_has_its_own_source_or_none(self, me: ExpandedModel) -> None:
        alone, full, other = me(PICTURES), me(PICTURES, source=SOURCE), me(PICTURES, source=OTHER)
        for nested, wanted in ((lambda: me(PICTURES), alone), (lambda: me(PICTURES, source=OTHER), other)):
            me.backbone.ask = nested  # type: ignore[assignment]
            out, inner, _ = me.call("forward", PICTURES, source=SOURCE)
            same(inner, wanted)
            same(out, full)
            me.backbone.ask = nested  # type: ignore[assignment]
            same(me(PICTURES, source=SOURCE)[1], wanted)

    @pytest.mark.fault("S9", "me(x) without a source inside `with me.source(s)`", "SourceError; blocks nest")
    def test_in_a_block(self, me: ExpandedModel) -> None:
        alone, other = me(PICTURES), me(PICTURES, source=OTHER)
        with me.source(SOURCE):
            with complains(SourceError, "inside `with me.source"):
                me(PICTURES)
            with complains(SourceError, "inside `with me.source"):
                me.call("forward", PICTURES)
            same(me(PICTURES, source=OTHER), other)
            with me.disabled():
                same(me(PICTURES), alone)
                same(me.backbone(PICTURES), alone)
            with me.source(OTHER):
                same(me.backbone(PICTURES), other)
            same(me.backbone(PICTURES), me(PICTURES, source=SOURCE))


@pytest.fixture
def group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("trainable", ["all", "units"])
@pytest.mark.fault(
    "sources",
    "DistributedDataParallel with no source, or an all-False source_mask, in some steps",
    "the backbone's output; units get gradients of zero, nothing waits",
)
def test_distributed_steps_without_a_source(trainable: str, group: None) -> None:
    """As in a step with an all-False mask: the units get a gradient of zero, and nobody waits for it."""
    me = expanded(trainable=trainable).train()
    alone = me.backbone(PICTURES)
    parallel = DistributedDataParallel(me)
    there = torch.tensor([False, False])
    for given in ({"source": SOURCE}, {}, {"source": SOURCE, "source_mask": there}, {}, {"source": SOURCE}):
        me.zero_grad()
        out = parallel(PICTURES, **given)
        out.sum().backward()
        sourced = len(given) == 1
        assert sourced or torch.equal(out, alone)
        for one in me.units.parameters():
            assert one.grad is not None
            assert sourced or not one.grad.any()
    with torch.no_grad():
        same(parallel(PICTURES), alone)
    me.eval()  # no step: nobody waits for gradients
    assert me(PICTURES).requires_grad is me.backbone(PICTURES).requires_grad is (trainable == "all")


def test_alone_a_step_without_a_source_leaves_the_units_alone() -> None:
    me = expanded().train()
    me(PICTURES).sum().backward()
    assert all(one.grad is None for one in me.units.parameters())


@pytest.mark.parametrize("name", ["BertForMultipleChoice", "RobertaForMultipleChoice", "DistilBertForMultipleChoice"])
@pytest.mark.fault(
    "calls",
    "models for multiple choice, which flatten their choices into the batch",
    "each choice reads its sample's source",
)
def test_multiple_choice_repeats_the_source_for_each_choice(name: str) -> None:
    fields = HF["distilbert"][1] if name.startswith("Distil") else BERT
    me = inject(hugging(name, fields)(), source_spec=map_features(2).spec, zero_init=None)
    ids = torch.randint(3, 50, (2, 4, 7), generator=torch.Generator().manual_seed(0))
    mask, pictures = torch.ones_like(ids), map_features(2)
    out = me(input_ids=ids, attention_mask=mask, source=pictures).logits
    assert out.shape == (2, 4)
    for row in (0, 1):
        for choice in range(4):
            one = me(
                input_ids=ids[row : row + 1, choice : choice + 1], attention_mask=mask[:1, :1], source=pictures[[row]]
            )
            torch.testing.assert_close(one.logits[0, 0], out[row, choice], atol=1e-5, rtol=1e-4)
    there = torch.tensor([True, False])
    mixed = me(input_ids=ids, attention_mask=mask, source=pictures, source_mask=there).logits
    alone = me(input_ids=ids, attention_mask=mask).logits
    assert torch.equal(mixed[1], alone[1])
    assert differs(mixed[0], alone[0])
    with complains(SourceError, "different batches"):
        me(input_ids=ids, attention_mask=mask, source=map_features(3))


@pytest.mark.fault(
    "calls",
    "generate with cached encoder outputs, sites in the encoder",
    "SiteError names the cause; sites in the decoder work",
)
def test_cached_encoder_outputs_are_named_as_the_cause() -> None:
    fields = {"d_model": 24, "d_kv": 6, "d_ff": 32, "num_layers": 2, "num_heads": 4, "vocab_size": 60}
    model = hugging("T5ForConditionalGeneration", {**fields, "decoder_start_token_id": 0})()
    me, ids = inject(model, layers="paper", source_spec=ViewSpec.tokens(12)), torch.full((2, 5), 7)
    outputs = model.get_encoder()(ids)  # type: ignore[operator]
    with complains(SiteError, "encoder_outputs came ready-made"):
        me.call("generate", ids, encoder_outputs=outputs, source=SOURCE, max_new_tokens=2)
    assert me.call("generate", ids, source=SOURCE, max_new_tokens=2).shape[0] == 2
    decoder = inject(model.__class__(model.config).eval(), layers="decoder.block.*", source_spec=ViewSpec.tokens(12))
    assert decoder.call("generate", ids, encoder_outputs=outputs, source=SOURCE, max_new_tokens=2).shape[0] == 2


def test_rows_that_change_within_a_call_are_refused() -> None:
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "d_model": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "suppress_tokens": [], "pad_token_id": 0}
    special = {"bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3, "begin_suppress_tokens": []}
    frames = {"vocab_size": 100, "num_mel_bins": 8, "max_source_positions": 50, "max_target_positions": 40}
    model = hf.WhisperForConditionalGeneration(hf.WhisperConfig(**sizes, **heads, **special, **frames)).eval()
    told = {"no_timestamps_token_id": 60, "is_multilingual": False, "suppress_tokens": None, "max_length": None}
    for name, value in {**told, "begin_suppress_tokens": None}.items():
        setattr(model.generation_config, name, value)
    me = inject(model, "model.decoder.layers.0", source_spec=SOURCE.spec).eval()
    mask = torch.ones(2, 260).long()
    mask[0, 100:] = 0  # 100 frames at a time: the first sample ends first
    sound = {"input_features": torch.randn(2, 8, 260), "attention_mask": mask, "return_timestamps": True}
    for beams in (1, 2):
        with complains(SourceError, "change within the call"):
            me.call("generate", **sound, num_beams=beams, max_new_tokens=4, source=token_features(2))


def test_guidance_doubles_rows_by_another_order_than_beams() -> None:
    text = hf.T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    sound = hf.EncodecConfig(num_filters=4, hidden_size=16, codebook_size=64, sampling_rate=1000, upsampling_ratios=[4])
    sizes = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1, "ffn_dim": 16, "num_attention_heads": 2}
    decoder = hf.MusicgenDecoderConfig(**sizes, num_codebooks=2, pad_token_id=64, bos_token_id=64)
    parts = {"text_encoder": text.to_dict(), "audio_encoder": sound.to_dict(), "decoder": decoder.to_dict()}
    model = hf.MusicgenForConditionalGeneration(hf.MusicgenConfig(**parts)).eval()
    model.generation_config.update(do_sample=False, pad_token_id=64, bos_token_id=64, decoder_start_token_id=64)
    ids, source = torch.randint(1, 50, (2, 6)), token_features(2)
    example = {"input_ids": ids, "decoder_input_ids": torch.full((4, 1), 64)}
    site = {"layers": "decoder.model.decoder.layers.0", "layout": Layout(Axes.NLC)}
    me = inject(model, **site, source_spec=SOURCE.spec, example_inputs=example).eval()
    with complains(SourceError, "guidance runs the samples and then"):
        me.call("generate", ids, max_new_tokens=2, guidance_scale=3.0, source=source)
    me.call("generate", ids, max_new_tokens=8, guidance_scale=3.0, source=source[[0, 1, 0, 1]])
    me.call("generate", ids, max_new_tokens=8, guidance_scale=1.0, source=source)
