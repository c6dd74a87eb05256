"""The towers of CLIP, each a unimodal model: open_clip's and transformers'.

The dual model has no adapter: pass its tower (`clip.visual`; `clip.text` of a model built with
`force_custom_text=True`).
"""

from __future__ import annotations

from torch import nn

from mi2p_inject.adapters import blocks, inputs
from mi2p_inject.adapters.adapter import Adapter, Readout
from mi2p_inject.adapters.derive import layers_of
from mi2p_inject.core.layout import Axes, Layout

__all__ = [
    "ADAPTERS",
    "HF_IMAGE",
    "HF_TEXT",
    "HF_TOWER",
    "LAST_HIDDEN",
    "MAP",
    "RESNET",
    "TEXT",
    "TOKENS",
    "VIT",
    "layers_inside",
    "text_features",
]

MAP = Layout(Axes.NCHW)
TOKENS = Layout(Axes.NLC)
LAST_HIDDEN = Layout(Axes.NLC, element="last_hidden_state")

RESNET = Adapter(
    name="clip_resnet",
    library="open_clip",
    modality="image",
    classes=("open_clip.modified_resnet.ModifiedResNet",),
    sites=("layer1", "layer2", "layer3", "layer4"),
    layout=MAP,
    readout=Readout(MAP, path="layer4", pooled="mean"),
    inputs=inputs.clip_image,
    num_heads=8,
)

# The features are those before `ln_post`, as transformers' CLIPVisionModel gives them: behind it, towers that pool
# first (CLIPA, CoCa) have no patches left.
VIT = Adapter(
    name="clip_vit",
    library="open_clip",
    modality="image",
    classes=("open_clip.transformer.VisionTransformer",),
    sites=("transformer.resblocks.*",),
    layout=TOKENS,
    readout=Readout(TOKENS, path="transformer", pooled="cls"),
    inputs=inputs.clip_image,
    patches=1,
    num_heads=12,
    blocks=blocks.CLIP,
)


def text_features(model: nn.Module) -> str:
    """The normalised tokens; CoCa's tower normalises its class token alone, and its tokens come before."""
    return "ln_final" if getattr(model, "cls_emb", None) is None else "transformer"


# 8 heads: the tower is 512 wide.
TEXT = Adapter(
    name="clip_text",
    library="open_clip",
    modality="text",
    classes=("open_clip.transformer.TextTransformer",),
    sites=("transformer.resblocks.*",),
    layout=TOKENS,
    readout=Readout(TOKENS, path=text_features, mask=inputs.until_end_of_text, pooled="eot"),
    inputs=inputs.clip_text,
    num_heads=8,
    blocks=blocks.CLIP,
)


def layers_inside(model: nn.Module) -> list[str]:
    """The layers of the transformers model inside open_clip's wrapper."""
    return [f"transformer.{path}" for path in layers_of(model.get_submodule("transformer"))]


# open_clip around a text model of transformers: roberta, xlm-roberta, mt5, nllb.
HF_TOWER = Adapter(
    name="clip_hf_text",
    library="open_clip",
    modality="text",
    classes=("open_clip.hf_model.HFTextEncoder",),
    sites=layers_inside,
    layout=None,
    readout=Readout(LAST_HIDDEN, path="transformer", mask=inputs.not_padding, pooled="mean"),
    inputs=inputs.clip_hf_text,
    num_heads=12,
)

HF_IMAGE = Adapter(
    name="hf_clip_image",
    library="transformers",
    modality="image",
    classes=("transformers.models.clip.modeling_clip.CLIPVisionModel",),
    sites=("**.encoder.layers.*",),  # inside a `vision_model` or `text_model` before transformers 5.23
    layout=TOKENS,
    readout=Readout(LAST_HIDDEN, pooled="cls"),
    inputs=inputs.hf_image,
    patches=1,
    num_heads=12,
    blocks=blocks.HF_CLIP,
)

HF_TEXT = Adapter(
    name="hf_clip_text",
    library="transformers",
    modality="text",
    classes=("transformers.models.clip.modeling_clip.CLIPTextModel",),
    sites=("**.encoder.layers.*",),  # inside a `vision_model` or `text_model` before transformers 5.23
    layout=TOKENS,
    readout=Readout(LAST_HIDDEN, mask=inputs.hf_clip_mask, pooled="eot"),
    inputs=inputs.hf_text,
    num_heads=8,
    blocks=blocks.HF_CLIP,
)

ADAPTERS: tuple[Adapter, ...] = (RESNET, VIT, TEXT, HF_TOWER, HF_IMAGE, HF_TEXT)
