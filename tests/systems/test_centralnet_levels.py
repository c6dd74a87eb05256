"""What CentralNet reads of a level: each encoder's tokens pooled as that encoder pools its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from open_clip import CustomTextCLIP
from open_clip.hf_model import HFTextEncoder
from torch import Tensor, nn

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.encoders.load import finished, load_encoder
from mi2p_inject.recipes.encoders.preprocess import ImageSpec, TextSpec
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.systems.compared.centralnet import Levels

PADDED = 12


class Words:
    """A tokenizer as open_clip has them: ids of one length."""

    def __call__(self, texts: list[str], context_length: int = PADDED) -> Tensor:
        return torch.ones(len(texts), context_length, dtype=torch.long)


def encoder_of(model: nn.Module, modality: Modality, spec: ImageSpec | TextSpec, library: str) -> Encoder:
    return finished(Encoder(model, modality, spec, {"library": library, "name": "small"}, random=True), "small")


def last_level(encoder: Encoder, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What the last site gives as it stands, and what is read of it."""
    levels = Levels(encoder, 2)
    seen: list[Any] = []
    levels.network.get_submodule(levels._sites[-1].path).register_forward_hook(lambda *call: seen.append(call[-1]))
    with torch.no_grad():
        read = levels(batch)[1][-1]
    return seen[0][0] if isinstance(seen[0], tuple) else seen[0], read


@pytest.mark.parametrize("library", ["timm", "transformers", "open_clip"])
def test_a_class_token_where_the_encoder_reads_it(library: str) -> None:
    spec = ImageSpec((64, 64), (0.5,) * 3, (0.5,) * 3)
    if library == "transformers":
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        config = transformers.ViTConfig(image_size=64, patch_size=16, **sizes)
        encoder = encoder_of(transformers.ViTModel(config), "image", spec, library)
    else:
        encoder = load_encoder("tiny:vit" if library == "timm" else "tiny:clip", "image")
    tokens, read = last_level(encoder, {"pixel_values": torch.randn(2, 3, 64, 64)})
    assert torch.equal(read, tokens[:, 0])


@pytest.mark.parametrize(
    ("options", "prefix"),
    [
        ({"class_token": False, "global_pool": "avg"}, 0),
        ({"class_token": False, "global_pool": "map"}, 0),
        ({"class_token": False, "global_pool": "avg", "reg_tokens": 1}, 1),
        ({"global_pool": "avg"}, 1),
    ],
)
def test_all_patches_where_the_encoder_reads_them(options: dict[str, Any], prefix: int) -> None:
    size = (64, 96)
    model = timm.create_model("test_vit", img_size=size, num_classes=0, **options)
    encoder = encoder_of(model, "image", ImageSpec(size, (0.5,) * 3, (0.5,) * 3), "timm")
    tokens, read = last_level(encoder, {"pixel_values": torch.randn(2, 3, *size)})
    assert torch.allclose(read, tokens[:, prefix:].mean(1), atol=1e-6)


WORD, END = 90, 5  # the word has a larger id than the end of the text

TOWERS = [
    ({}, [1, WORD, 99], 2),
    ({"pool_type": "eos", "eos_id": END}, [1, WORD, END], 2),
    ({"pool_type": "last", "no_causal_mask": True}, [3, WORD, 4], 2),
    ({"embed_cls": True}, [1, WORD, END], PADDED),
]


@pytest.mark.parametrize(("options", "ids", "place"), TOWERS)
def test_the_token_that_a_tower_of_open_clip_ends_with(options: dict[str, Any], ids: list[int], place: int) -> None:
    text = {"context_length": PADDED, "vocab_size": 100, "width": 64, "heads": 2, "layers": 2, "pad_id": 0, **options}
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    model = CustomTextCLIP(embed_dim=32, vision_cfg=vision, text_cfg=text).text
    encoder = encoder_of(model, "text", TextSpec(Words(), PADDED, fixed=True), "open_clip")
    given = torch.tensor([ids + [0] * (PADDED - len(ids))])
    tokens, read = last_level(encoder, {"input_ids": given, "attention_mask": torch.ones_like(given)})
    assert torch.equal(read, tokens[:, place])


def test_padding_does_not_count_in_a_transformers_model_within_open_clip(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    transformers.XLMRobertaConfig(vocab_size=100, **sizes).save_pretrained(tmp_path)
    model = HFTextEncoder(str(tmp_path), output_dim=16, pooler_type="mean_pooler", proj_type="linear", pretrained=False)
    encoder = encoder_of(model, "text", TextSpec(Words(), PADDED, fixed=True), "open_clip")
    given = torch.tensor([[0, 7, 8, 2, *[1] * (PADDED - 4)]])
    tokens, read = last_level(encoder, {"input_ids": given, "attention_mask": torch.ones_like(given)})
    assert torch.allclose(read, tokens[:, :4].mean(1), atol=1e-6)


def test_a_text_encoder_that_changes_the_length_is_refused_at_once() -> None:
    tokenizer = load_encoder("tiny", "text").spec.tokenizer  # type: ignore[union-attr]
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.LongformerConfig(vocab_size=len(tokenizer), attention_window=8, **sizes)
    encoder = encoder_of(transformers.LongformerModel(config), "text", TextSpec(tokenizer, 20), "transformers")
    with pytest.raises(RecipeError, match="changes the length of a text"):
        Levels(encoder, 2)
