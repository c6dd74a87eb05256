"""Small random encoders: for tests and dry runs of a table. What they score says nothing about the pre-trained ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.core.registry import closest
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.encoders.preprocess import ImageSpec, TextSpec
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["TINY", "tiny_encoder"]

_SIDE = 64
_MEAN, _STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
_CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": _SIDE, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}


def tiny_encoder(kind: str, modality: Modality, image_size: int | None = None) -> Encoder:
    """A small random model of a kind, at 64 pixels unless another size is given.

    Args:
        kind: one of `TINY`; "": a DenseNet, a BERT.
        modality: "image" or "text".
        image_size: side in pixels.

    Raises:
        RecipeError: no such kind for this modality.
    """
    kind = kind or {"image": "densenet", "text": "bert", "audio": ""}[modality]
    if (kind, modality) not in TINY:
        known = ", ".join(f"tiny:{name}" for name, reads in TINY if reads == modality)
        raise RecipeError(
            f"no tiny {modality} encoder is called {kind!r}", expected=known, fix=closest(kind, known.split(", "))
        )
    return TINY[kind, modality](image_size or _SIDE)


def _timm(architecture: str, *, sized: bool = False, **options: Any) -> Callable[[int], Encoder]:
    def build(side: int) -> Encoder:
        import timm

        kwargs = {**options, "img_size": side} if sized else options
        model = timm.create_model(architecture, pretrained=False, num_classes=0, **kwargs)
        origin = {"library": "timm", "name": architecture, "kwargs": kwargs}
        return Encoder(model, "image", ImageSpec((side, side), _MEAN, _STD), origin, random=True)

    return build


def _transformers(cls: str, config: str, **options: Any) -> Callable[[int], Encoder]:
    def build(side: int) -> Encoder:
        import transformers

        from mi2p_inject.recipes.encoders.demo_wheels import minilm_tokenizer

        tokenizer = minilm_tokenizer()
        settings = getattr(transformers, config)(vocab_size=len(tokenizer), **options)
        origin = {"library": "transformers", "name": f"tiny {cls}", "class": cls}
        model = getattr(transformers, cls)(settings)
        return Encoder(model, "text", TextSpec(tokenizer, 64), origin, random=True)

    return build


def _shuffled_minilm(side: int) -> Encoder:
    """MiniLM with the entries of each weight in random order: its statistics, and nothing of what it has learned."""
    import torch

    from mi2p_inject.recipes.encoders.demo_wheels import minilm

    model, tokenizer = minilm()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.flatten()[torch.randperm(weight.numel(), generator=random)].view_as(weight))
    origin = {
        "library": "transformers",
        "name": "MiniLM, shuffled",
        "class": "BertModel",
        "kwargs": {"add_pooling_layer": False},
    }
    return Encoder(model, "text", TextSpec(tokenizer, 64), origin, pooling="mean", random=True)


def _open_clip(tower: str) -> Callable[[int], Encoder]:
    def build(side: int) -> Encoder:
        from open_clip import CustomTextCLIP
        from open_clip.tokenizer import SimpleTokenizer

        model_cfg = {**_CLIP, "vision_cfg": {**_CLIP["vision_cfg"], "image_size": side}}  # type: ignore[dict-item]
        clip: Any = CustomTextCLIP(**model_cfg)
        origin = {
            "library": "open_clip",
            "name": f"tiny CLIP/{tower}",
            "tower": tower,
            "model_cfg": model_cfg,
            "image_size": None,
        }
        if tower == "visual":
            return Encoder(clip.visual, "image", ImageSpec((side, side), _MEAN, _STD), origin, random=True)
        return Encoder(clip.text, "text", TextSpec(SimpleTokenizer(), 32, fixed=True), origin, random=True)

    return build


_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}

#: kind, modality -> builder (image side -> encoder)
TINY: dict[tuple[str, Modality], Callable[[int], Encoder]] = {
    ("densenet", "image"): _timm("densenet121", growth_rate=8, block_config=(2, 2, 2, 2)),
    ("resnet", "image"): _timm("test_resnet"),
    ("vit", "image"): _timm("test_vit", sized=True),
    ("vit-384", "image"): _timm("vit_small_patch16_224", sized=True, depth=6),
    ("clip", "image"): _open_clip("visual"),
    ("bert", "text"): _transformers(
        "BertModel",
        "BertConfig",
        hidden_size=48,
        num_hidden_layers=12,
        num_attention_heads=4,
        intermediate_size=96,
        **_NO_DROPOUT,
    ),
    ("xlnet", "text"): _transformers(
        "XLNetModel", "XLNetConfig", d_model=48, n_layer=4, n_head=4, d_inner=96, dropout=0.0
    ),
    ("clip", "text"): _open_clip("text"),
    ("minilm-shuffled", "text"): _shuffled_minilm,
}
