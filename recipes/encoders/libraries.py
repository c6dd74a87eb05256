"""How each library builds an encoder from a name, and again from a run folder: a function each, gathered in tables."""

from __future__ import annotations

from typing import Any

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.encoders.open_clip_encoder import load_open_clip, rebuild_open_clip
from mi2p_inject.recipes.encoders.preprocess import ImageSpec, TextSpec
from mi2p_inject.recipes.encoders.timm_encoder import load_timm, rebuild_timm
from mi2p_inject.recipes.encoders.tokenizers import longest
from mi2p_inject.recipes.encoders.transformers_encoder import load_transformers, rebuild_transformers

__all__ = ["LOADERS", "REBUILDERS"]


def _demo(identifier: str, modality: Modality, pretrained: bool, image_size: int | None) -> Encoder:
    from mi2p_inject.recipes.encoders import demo_wheels as weights

    origin: dict[str, Any]
    if modality == "text":
        model, tokenizer = weights.minilm()
        origin = {
            "library": "transformers",
            "name": "all-MiniLM-L6-v2",
            "class": "BertModel",
            "kwargs": {"add_pooling_layer": False},
        }
        encoder = Encoder(model, modality, TextSpec(tokenizer, longest(tokenizer, model)), origin, pooling="mean")
    else:
        network: Any = weights.efficientnet_lite0()
        network.reset_classifier(0)
        size = (image_size or 224,) * 2
        spec = ImageSpec(size, (weights.MEAN / 255,) * 3, (weights.STD / 255,) * 3, "bicubic")
        origin = {"library": "timm", "name": "tf_efficientnet_lite0", "kwargs": {}}
        encoder = Encoder(network, modality, spec, origin)
    return encoder


def _tiny(identifier: str, modality: Modality, pretrained: bool, image_size: int | None) -> Encoder:
    from mi2p_inject.recipes.encoders.tiny import tiny_encoder

    return tiny_encoder(identifier, modality, image_size)


#: library -> (name, modality, pretrained, image size) -> encoder
LOADERS = {
    "timm": load_timm,
    "transformers": load_transformers,
    "open_clip": load_open_clip,
    "demo": _demo,
    "tiny": _tiny,
}

#: library -> (origin, checked folder, device) -> model with random weights
REBUILDERS = {"timm": rebuild_timm, "transformers": rebuild_transformers, "open_clip": rebuild_open_clip}
