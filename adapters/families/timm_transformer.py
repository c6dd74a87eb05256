"""timm's image transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from mi2p_inject.adapters import blocks, inputs
from mi2p_inject.adapters.adapter import Adapter, Inputs, Pooling, Readout
from mi2p_inject.core.layout import Axes, Layout

__all__ = [
    "ADAPTERS",
    "CHANNELS_LAST",
    "COAT",
    "CROSSVIT",
    "EFFICIENTVIM",
    "EVA",
    "HIERA",
    "SWIN",
    "TOKENS",
    "VIT",
    "hiera_image",
    "last_serial_blocks",
    "prefix_tokens",
    "tokens",
    "vit",
]

TOKENS = Layout(Axes.NLC)
CHANNELS_LAST = Layout(Axes.NHWC)


def prefix_tokens(model: nn.Module) -> int:
    """Class, distillation and register tokens before the patches, as timm counts them."""
    return int(model.num_prefix_tokens)  # type: ignore[arg-type]


def vit(name: str, cls: str, pooled: Pooling) -> Adapter:
    """A plain vision transformer: blocks that give tokens (B, prefix + patches, D)."""
    return Adapter(
        name=name,
        library="timm",
        modality="image",
        classes=(cls,),
        sites=("blocks.*",),
        layout=TOKENS,
        readout=Readout(TOKENS, call="forward_features", pooled=pooled),
        inputs=inputs.timm_image,
        patches=prefix_tokens,
        num_heads=12,
        blocks=blocks.TIMM,
    )


# ViT, DeiT (the distilled class is a subclass), DeiT-III, DINO and DINOv2 are this one class.
VIT = vit("vit", "timm.models.vision_transformer.VisionTransformer", "cls")

# EVA-02 and DINOv3: rotary positions, and a head that reads the mean of the patches.
EVA = vit("eva", "timm.models.eva.Eva", "mean")

SWIN = Adapter(
    name="swin",
    library="timm",
    modality="image",
    classes=("timm.models.swin_transformer.SwinTransformer", "timm.models.swin_transformer_v2.SwinTransformerV2"),
    sites=("layers.*",),
    layout=CHANNELS_LAST,
    readout=Readout(CHANNELS_LAST, call="forward_features", pooled="mean"),
    inputs=inputs.timm_image,
    num_heads=8,
)


def last_serial_blocks(model: nn.Module) -> list[str]:
    """The last block of each of CoaT's four scales; what comes after them works on all scales at once."""
    lists = [f"serial_blocks{scale}" for scale in range(1, 5)]
    return [f"{name}.{len(model.get_submodule(name)) - 1}" for name in lists]  # type: ignore[arg-type]


def tokens(name: str, cls: str, sites: tuple[str, ...] | Callable[[nn.Module], list[str]], path: str) -> Adapter:
    """A transformer of several token streams: the places are known, the layouts are not."""
    return Adapter(
        name=name,
        library="timm",
        modality="image",
        classes=(cls,),
        sites=sites,
        layout=None,
        readout=Readout(None, path=path, pooled="cls"),
        inputs=inputs.timm_image,
        num_heads=8,
    )


COAT = tokens("coat", "timm.models.coat.CoaT", last_serial_blocks, "norm4")

# Two streams of patches; the second, of the larger patches and the wider, is the one that gets units.
CROSSVIT = tokens("crossvit", "timm.models.crossvit.CrossVit", ("blocks.*.blocks.1",), "norm.1")


def hiera_image(model: nn.Module) -> Inputs:
    """An image of the one size that a Hiera was built for."""
    shape: Any = zip(model.tokens_spatial_shape, model.patch_stride, strict=True)  # type: ignore[arg-type]
    return (torch.zeros(2, inputs.image_channels(model), *(tokens * stride for tokens, stride in shape)),), {}


# Its tokens stand window by window, not in raster order: no map.
HIERA = Adapter(
    name="hiera",
    library="timm",
    modality="image",
    classes=("timm.models.hiera.Hiera",),
    sites=("blocks.*",),
    layout=TOKENS,
    readout=Readout(TOKENS, call="forward_features", pooled="mean"),
    inputs=hiera_image,
    num_heads=8,
)

# A stage gives (the map before its downsampling, the map that goes on, hidden states of its own head).
EFFICIENTVIM = Adapter(
    name="efficientvim",
    library="timm",
    modality="image",
    classes=("timm.models.efficientvim.EfficientViM",),
    sites=("stages.*",),
    layout=Layout(Axes.NCHW, element=1),
    readout=Readout(Layout(Axes.NCHW), path="norm.3", pooled="mean"),
    inputs=inputs.timm_image,
    num_heads=8,
)

ADAPTERS: tuple[Adapter, ...] = (VIT, EVA, SWIN, HIERA, EFFICIENTVIM, COAT, CROSSVIT)
