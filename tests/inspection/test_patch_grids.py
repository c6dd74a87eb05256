"""Where patches stand: sides that are not square, images of other sizes, tokens that are no image's in order."""

from __future__ import annotations

import pytest
import timm
import torch
from helpers import complains
from torch import Tensor, nn
from transformers import ViTConfig, ViTMAEConfig, ViTMAEModel, ViTModel

from mi2p_inject import SourceFeatures, ViewSpec, inject
from mi2p_inject.core.errors import LayoutError

WORDS = ViewSpec.tokens(8)
SOURCE = SourceFeatures(torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0)))
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}


def vit(image: int | tuple[int, int], patch: int | tuple[int, int], **options: object) -> nn.Module:
    sizes = {"depth": 2, "embed_dim": 16, "num_heads": 2, "num_classes": 3}
    return timm.create_model("vit_tiny_patch16_224", img_size=image, patch_size=patch, **sizes, **options)


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 16, (4, 16), (4, 16)), nn.Linear(16, 3)
        self.block = nn.TransformerEncoderLayer(16, 2, 16, batch_first=True)

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.block(self.patches(image).flatten(2).transpose(1, 2))
        scores: Tensor = self.head(tokens.mean(1))
        return scores


@pytest.mark.parametrize("kind", ["timm", "timm wide", "transformers", "own"])
def test_patches_that_are_not_square(kind: str) -> None:
    example, layers = None, "paper"
    if kind == "timm":
        model, expected = vit(64, (4, 16)), (16, 4)
    elif kind == "timm wide":
        model, expected = vit((32, 128), (8, 16)), (4, 8)
    elif kind == "transformers":
        model, expected = ViTModel(ViTConfig(image_size=64, patch_size=(4, 16), **SIZES)), (16, 4)
    else:
        model, expected, example, layers = Own(), (16, 4), torch.zeros(2, 3, 64, 64), "block"
    me = inject(model, layers, source_spec=WORDS, example_inputs=example)
    assert {site.layout.grid for site in me.sites} == {expected}


def test_a_block_knows_the_image_of_every_method() -> None:
    me = inject(vit(64, 16, dynamic_img_size=True), -2, source_spec=WORDS, zero_init=None).eval()
    wide = torch.randn(2, 3, 32, 128)  # 2 x 8 patches, as many as the 4 x 4 at injection
    expected = me.call("forward_features", wide, source=SOURCE)
    with me.source(SOURCE):
        assert torch.equal(me.backbone.forward_features(wide), expected)
        me.backbone(torch.randn(2, 3, 64, 64))
        assert torch.equal(me.backbone.forward_features(wide), expected)
    assert torch.equal(me.backbone.forward_features(wide), vit_without_units(me.backbone, wide))


def vit_without_units(backbone: nn.Module, image: Tensor) -> Tensor:
    tokens: Tensor = backbone.norm(backbone.blocks(backbone.norm_pre(backbone._pos_embed(backbone.patch_embed(image)))))
    return tokens


def test_a_random_part_of_a_larger_image_is_not_the_grid_at_injection() -> None:
    model = vit(64, 16, dynamic_img_size=True, patch_drop_rate=0.75)
    me = inject(model, "paper", source_spec=WORDS, zero_init=None, example_inputs=torch.zeros(2, 3, 64, 64)).train()
    with complains(LayoutError, "do not form the grid of this image"):
        me(torch.randn(2, 3, 128, 128), source=SOURCE)


def test_shuffled_patches_are_tokens() -> None:
    model = ViTMAEModel(ViTMAEConfig(image_size=32, patch_size=8, **SIZES))
    me = inject(model, source_spec=WORDS)
    assert {site.layout.grid for site in me.sites} == {None}


def test_patches_of_images_of_several_shapes_are_tokens() -> None:
    model = timm.create_model("naflexvit_base_patch16_gap", num_classes=3, embed_dim=16, depth=2, num_heads=2)
    me = inject(model, source_spec=WORDS)
    assert {site.layout.grid for site in me.sites} == {None}
    valid = torch.arange(24).expand(2, -1) < torch.tensor([[24], [12]])
    batch = {
        "patches": torch.randn(2, 24, 768),
        "patch_coord": torch.stack([torch.arange(24) // 6, torch.arange(24) % 6], -1).expand(2, -1, -1),
        "patch_valid": valid,
    }
    assert me(batch, source=SOURCE).shape == (2, 3)
