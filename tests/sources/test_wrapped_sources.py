"""A source encoder inside a wrapper: what the wrapper's own forward does to pixels, tokens or features counts."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, TaskType, get_peft_model
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, BertModel, Siglip2VisionConfig, Siglip2VisionModel

from mi2p_inject import ExpandedModel, inject
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
