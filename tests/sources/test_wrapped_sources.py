"""A source encoder inside a wrapper: what the wrapper's own forward does to pixels, tokens or features counts."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, TaskType, get_peft_model
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, BertModel, Siglip2VisionConfig, Siglip2VisionModel

from mi2p_inject import ExpandedModel, SourceFeatures, ViewSpec, inject
from mi2p_inject.core.errors import LayoutError, SourceError

PIXELS = torch.zeros(2, 3, 16, 16)
IDS = torch.arange(10).view(2, 5)
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def expanded(encoder: nn.Module, **options: Any) -> ExpandedModel:
    return inject(nn.Sequential(nn.Conv2d(3, 8, 3)), ["0"], source_encoder=encoder, example_inputs=PIXELS, **options)


def bert() -> BertModel:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return BertModel(BertConfig(vocab_size=20, **sizes)).eval()


class Normalised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = timm.create_model("resnet10t", num_classes=0)

    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.net.forward_features((image - 128) / 58)
        return features


class Projected(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bert, self.projection = bert(), nn.Linear(16, 12)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        hidden = self.bert(input_ids, attention_mask=attention_mask).last_hidden_state
        projected: Tensor = self.projection(hidden)
        return projected


class Classifier(Projected):
    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return super().forward(input_ids, attention_mask)[:, 0]


def test_a_wrapper_that_normalises() -> None:
    encoder, images = Normalised().eval(), 255 * torch.rand(2, 3, 32, 32)
    assert torch.equal(expanded(encoder).encode(images).data, encoder(images))


def test_a_wrapper_that_projects() -> None:
    encoder = Projected().eval()
    me = expanded(encoder)
    features = me.encode({"input_ids": IDS, "attention_mask": MASK})
    assert torch.equal(features.data, encoder(IDS, MASK))
    assert features.mask is not None
    assert features.mask.tolist() == MASK.bool().tolist()
    by_position = me.encode((IDS, MASK))
    assert by_position.mask is not None
    assert by_position.mask.tolist() == MASK.bool().tolist()
    assert me.encode(IDS).mask is None


def test_a_sequential_with_layers_behind_the_encoder() -> None:
    net = timm.create_model("resnet10t", num_classes=0, global_pool="")
    encoder, images = nn.Sequential(net, nn.Conv2d(512, 8, 1)).eval(), torch.rand(2, 3, 32, 32)
    assert torch.equal(expanded(encoder).encode(images).data, encoder(images))


def test_a_wrapper_that_gives_no_tokens_names_the_encoder_inside() -> None:
    with pytest.raises(LayoutError, match=r"pass the encoder inside it, encoder\.bert"):
        expanded(Classifier().eval())


@pytest.mark.parametrize("kind", [PromptTuningConfig, PrefixTuningConfig])
def test_prompts_that_peft_learned_are_read(kind: Any) -> None:
    encoder = get_peft_model(bert(), kind(task_type=TaskType.FEATURE_EXTRACTION, num_virtual_tokens=3)).eval()
    batch = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
    assert torch.equal(expanded(encoder).encode(batch).data, encoder(**batch).last_hidden_state)


@pytest.mark.parametrize("wrap", [
    lambda encoder: encoder,
    nn.DataParallel,
    torch.compile,
    torch.optim.swa_utils.AveragedModel,
    lambda encoder: get_peft_model(encoder, LoraConfig(target_modules=["query"], init_lora_weights=False)),
])  # fmt: skip
def test_what_only_carries_an_encoder_is_read_as_that_encoder(wrap: Any) -> None:
    encoder = bert()
    features = expanded(wrap(encoder)).encode({"input_ids": IDS, "attention_mask": MASK})
    assert features.mask is not None
    assert torch.equal(features.data, encoder(IDS, attention_mask=MASK).last_hidden_state)


def test_a_headed_model_is_read_without_its_head() -> None:
    encoder = BertForSequenceClassification(bert().config).eval()
    found = expanded(encoder).encode({"input_ids": IDS, "attention_mask": MASK}).data
    assert torch.equal(found, encoder.bert(IDS, attention_mask=MASK).last_hidden_state)


def siglip2() -> tuple[Siglip2VisionModel, dict[str, Tensor]]:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    encoder = Siglip2VisionModel(Siglip2VisionConfig(num_patches=16, patch_size=2, **sizes)).eval()
    shapes = torch.tensor([[4, 4], [2, 4]])
    batch = {
        "pixel_values": torch.randn(2, 16, 12),
        "pixel_attention_mask": torch.arange(16).expand(2, -1).lt(shapes.prod(1, keepdim=True)).long(),
        "spatial_shapes": shapes,
    }
    return encoder, batch


def test_patches_that_are_padding_are_masked() -> None:
    encoder, batch = siglip2()
    features = expanded(encoder).encode(batch)
    assert features.mask is not None
    assert features.mask.tolist() == batch["pixel_attention_mask"].bool().tolist()


class Halved(Projected):
    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return super().forward(input_ids, attention_mask)[:, ::2]


def test_a_mask_of_another_length_is_refused_where_it_hides_something() -> None:
    me = expanded(Halved().eval())
    assert me.encode({"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}).mask is None
    with pytest.raises(SourceError, match="changes the length"):
        me.encode({"input_ids": IDS, "attention_mask": MASK})


class Fused(nn.Module):
    """Somebody's encoder, with torch's own masks: true where a token is padding."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 16, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, ids: Tensor, src_key_padding_mask: Tensor | None = None) -> Tensor:
        hidden: Tensor = self.layers(self.words(ids), src_key_padding_mask=src_key_padding_mask)
        return hidden


class Untold(Fused):
    def forward(self, ids: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        return super().forward(ids, padding_mask)


@pytest.mark.parametrize("mask", [MASK == 0, torch.zeros(MASK.shape).masked_fill(MASK == 0, float("-inf"))])
def test_torchs_padding_mask_hides_where_it_is_true(mask: Tensor) -> None:
    me = expanded(Fused().eval(), source_example_inputs=IDS)
    for batch in ({"ids": IDS, "src_key_padding_mask": mask}, (IDS, mask)):
        features = me.encode(batch)
        assert features.mask is not None
        assert features.mask.tolist() == MASK.bool().tolist()


def test_a_padding_mask_that_may_mean_either_is_refused() -> None:
    """True is padding to some, a real token to others."""
    me = expanded(Untold().eval(), source_example_inputs=IDS)
    with pytest.raises(SourceError, match=r"padding_mask.*\n.*\n.*\n.*SourceFeatures\(features, mask\)"):
        me.encode({"ids": IDS, "padding_mask": MASK == 0})
    assert me.encode({"ids": IDS, "padding_mask": MASK < 0}).mask is None  # it hides nothing


def test_transformers_padding_mask_of_sound_is_heeded() -> None:
    codec = {"encoder_hidden_size": 8, "downsampling_ratios": [2, 4], "codebook_dim": 4, "hidden_size": 32}
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    pe = pytest.importorskip("transformers.models.pe_audio", reason="an older release of transformers")
    config = pe.PeAudioEncoderConfig(**sizes, head_dim=16, intermediate_size=32, dac_config=codec)
    encoder = pe.PeAudioEncoder(config).eval()
    sound, real = torch.randn(2, 1, 160), torch.ones(2, 160, dtype=torch.bool)
    me = expanded(encoder, source_example_inputs={"input_values": sound})
    assert me.encode({"input_values": sound, "padding_mask": real}).mask is None
    real[1, 80:] = False
    with pytest.raises(SourceError, match="changes the length"):
        me.encode({"input_values": sound, "padding_mask": real})


class Filter(nn.Module):
    """A convolution over time, with a mask as wide as its channels need it."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Conv1d(3, 8, 3, padding=1)

    def forward(self, sound: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        hidden: Tensor = self.filter(sound)
        return hidden if attention_mask is None else hidden * attention_mask


def test_a_mask_of_one_channel_is_one_of_the_tokens() -> None:
    me = expanded(Filter().eval(), source_example_inputs=torch.randn(2, 3, 5))
    features = me.encode({"sound": torch.randn(2, 3, 5), "attention_mask": MASK[:, None]})
    assert features.data.shape == (2, 5, 8)
    assert features.mask is not None
    assert features.mask.tolist() == MASK.bool().tolist()


class Named(nn.Module):
    """Features under a name of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Conv1d(3, 8, 3, padding=1)

    def forward(self, sound: Tensor) -> dict[str, Tensor]:
        latents = self.filter(sound)
        return {"latents": latents, "loud": latents.abs()}


class OneSize(nn.Sequential):
    def forward(self, sound: Tensor) -> Tensor:
        if sound.shape[2] != 5:
            raise ValueError("one size")
        return super().forward(sound)  # type: ignore[no-any-return]


@pytest.mark.parametrize("encoder", [Named(), OneSize(nn.Conv1d(3, 8, 3, padding=1))])
def test_the_fix_of_features_that_are_not_found_is_one_for_sources(encoder: nn.Module) -> None:
    """`layout=` is for sites, and `inject` has none for a source."""
    sound = torch.randn(2, 3, 5)
    with pytest.raises(LayoutError) as found:
        expanded(encoder, source_example_inputs=sound)
    assert type(encoder).__name__ in str(found.value)
    assert "layout=" not in str(found.value)
    assert "source_spec=ViewSpec.tokens(D)" in str(found.value)
    me = inject(nn.Sequential(nn.Conv2d(3, 8, 3)), ["0"], source_spec=ViewSpec.tokens(8), example_inputs=PIXELS)
    assert torch.equal(me(PIXELS, source=SourceFeatures(torch.randn(2, 5, 8))), me(PIXELS))  # as it says
