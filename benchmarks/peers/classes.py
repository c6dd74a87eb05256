"""The ten classes under test: the smallest models of four of timm's, small configurations of six of transformers'."""

from __future__ import annotations

from typing import Any

__all__ = ["TIMM", "TRANSFORMERS"]

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
WORDS = {"vocab_size": 99, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 64}
SMALL = {"d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "BertForSequenceClassification": {**SIZES, **WORDS},
    "DistilBertForSequenceClassification": {**WORDS, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 37},
    "GPT2LMHeadModel": {
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "vocab_size": 99,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "T5ForConditionalGeneration": {**SMALL, "vocab_size": 99, "pad_token_id": 0, "eos_token_id": 2},
    "ViTForImageClassification": {**SIZES, "image_size": 30, "patch_size": 2},
    "ConvNextForImageClassification": {"depths": [2, 2, 3, 2], "hidden_sizes": [10, 20, 30, 40], "num_stages": 4},
}
TIMM = {
    "timm.models.resnet:ResNet": ("test_resnet", "resnet10t"),
    "timm.models.vision_transformer:VisionTransformer": ("test_vit", "vit_tiny_patch16_224"),
    "timm.models.efficientnet:EfficientNet": ("test_efficientnet", "efficientnet_lite0"),
    "timm.models.convnext:ConvNeXt": ("test_convnext", "convnext_atto"),
}
