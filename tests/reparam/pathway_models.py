"""Tiny models of every adapter that describes its blocks, of equal widths."""

from __future__ import annotations

from typing import Any

import open_clip
import timm
import torch
import transformers as T
from torch import Tensor, nn

WIDTH, HEADS, MLP, DEPTH = 32, 4, 64, 2
HF = {
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "intermediate_size": MLP,
}
IDS = torch.randint(1, 40, (2, 7), generator=torch.Generator().manual_seed(0))
IMAGE = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def timm_vit(cls: str = "vit_tiny_patch16_224", **options: Any) -> nn.Module:
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS, "mlp_ratio": 2.0}
    return timm.create_model(cls, **{"num_classes": 3, **sizes, **options})


def wav2vec2() -> nn.Module:
    return T.Wav2Vec2Model(
        T.Wav2Vec2Config(
            **HF, conv_dim=(16,), conv_stride=(5,), conv_kernel=(10,), num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4, layerdrop=0.0,
        )
    )  # fmt: skip


#: adapter -> (a tiny model of its class, its inputs)
MODELS: dict[str, tuple[Any, Tensor]] = {
    "vit": (timm_vit, IMAGE),
    "eva": (
        lambda: timm.models.Eva(32, 8, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, qkv_fused=False, mlp_ratio=2.0),
        IMAGE,
    ),
    "bert": (lambda: T.BertModel(T.BertConfig(**HF, vocab_size=40)), IDS),
    "roberta": (lambda: T.RobertaModel(T.RobertaConfig(**HF, vocab_size=40, max_position_embeddings=40)), IDS),
    "distilbert": (
        lambda: T.DistilBertModel(
            T.DistilBertConfig(dim=WIDTH, n_layers=DEPTH, n_heads=HEADS, hidden_dim=MLP, vocab_size=40)
        ),
        IDS,
    ),
    "mpnet": (lambda: T.MPNetModel(T.MPNetConfig(**HF, vocab_size=40, max_position_embeddings=40)), IDS),
    "deberta_v2": (lambda: T.DebertaV2Model(T.DebertaV2Config(**HF, vocab_size=40)), IDS),
    "hf_vit": (lambda: T.ViTModel(T.ViTConfig(**HF, image_size=32, patch_size=8)), IMAGE),
    "hf_deit": (lambda: T.DeiTModel(T.DeiTConfig(**HF, image_size=32, patch_size=8)), IMAGE),
    "hf_dinov2": (lambda: T.Dinov2Model(T.Dinov2Config(**HF, mlp_ratio=2, image_size=32, patch_size=8)), IMAGE),
    "hf_dinov2_registers": (
        lambda: T.Dinov2WithRegistersModel(
            T.Dinov2WithRegistersConfig(**HF, mlp_ratio=2, image_size=32, patch_size=8, num_register_tokens=2)
        ),
        IMAGE,
    ),
    "wav2vec2": (wav2vec2, torch.randn(2, 400, generator=torch.Generator().manual_seed(0))),
    "ast": (
        lambda: T.ASTModel(T.ASTConfig(**HF, max_length=32, num_mel_bins=32)),
        torch.randn(2, 32, 32, generator=torch.Generator().manual_seed(0)),
    ),
    "clip_vit": (
        lambda: open_clip.transformer.VisionTransformer(
            image_size=32, patch_size=8, width=WIDTH, layers=DEPTH, heads=HEADS, mlp_ratio=2.0, output_dim=16
        ),
        IMAGE,
    ),
    "clip_text": (
        lambda: open_clip.transformer.TextTransformer(
            context_length=7, vocab_size=40, width=WIDTH, heads=HEADS, layers=DEPTH, mlp_ratio=2.0, output_dim=16
        ),
        IDS,
    ),
    "hf_clip_image": (lambda: T.CLIPVisionModel(T.CLIPVisionConfig(**HF, image_size=32, patch_size=8)), IMAGE),
    "hf_clip_text": (
        lambda: T.CLIPTextModel(T.CLIPTextConfig(**HF, vocab_size=40, max_position_embeddings=16, eos_token_id=39)),
        IDS,
    ),
}


def built(name: str, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = MODELS[name][0]().eval()
        return model
