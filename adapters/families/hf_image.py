"""transformers' image encoders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from mi2p_inject.adapters import blocks, inputs
from mi2p_inject.adapters.adapter import Adapter, Readout
from mi2p_inject.core.layout import Axes, Layout

__all__ = [
    "ADAPTERS",
    "CONVNEXT",
    "DEIT",
    "DINOV2",
    "DINOV2_REGISTERS",
    "HIERA",
    "LAST_MAP",
    "LAST_TOKENS",
    "LAYERS",
    "PVT_V2",
    "SWIN",
    "TOKENS",
    "VIT",
    "YOLOS",
    "class_and_registers",
    "vit",
]

TOKENS = Layout(Axes.NLC)
LAST_TOKENS = Layout(Axes.NLC, element="last_hidden_state")
LAST_MAP = Layout(Axes.NCHW, element="last_hidden_state")


def class_and_registers(model: nn.Module) -> int:
    """The class token and the register tokens of DINOv2 with registers."""
    config: Any = model.config
    return 1 + int(config.num_register_tokens)


def vit(name: str, cls: str, sites: str, patches: int | Callable[[nn.Module], int]) -> Adapter:
    """A plain vision transformer: layers that give tokens (B, prefix + patches, D)."""
    return Adapter(
        name=name,
        library="transformers",
        modality="image",
        classes=(cls,),
        sites=(sites,),
        layout=TOKENS,
        readout=Readout(LAST_TOKENS, pooled="cls"),
        inputs=inputs.hf_image,
        patches=patches,
        num_heads=12,
        blocks=blocks.HF_VIT,
    )


LAYERS = "**.layer*.[0-9]*"
"""`layers.0`, which was `encoder.layer.0` in earlier releases of transformers 5."""

VIT = vit("hf_vit", "transformers.models.vit.modeling_vit.ViTModel", LAYERS, 1)
DEIT = vit("hf_deit", "transformers.models.deit.modeling_deit.DeiTModel", LAYERS, 2)
DINOV2 = vit("hf_dinov2", "transformers.models.dinov2.modeling_dinov2.Dinov2Model", "encoder.layer.*", 1)
DINOV2_REGISTERS = vit(
    "hf_dinov2_registers",
    "transformers.models.dinov2_with_registers.modeling_dinov2_with_registers.Dinov2WithRegistersModel",
    "encoder.layer.*",
    class_and_registers,
)

# Detection tokens follow the patches, so its tokens are no prefix and a map.
YOLOS = Adapter(
    name="hf_yolos",
    library="transformers",
    modality="image",
    classes=("transformers.models.yolos.modeling_yolos.YolosModel",),
    sites=("encoder.layer.*",),
    layout=TOKENS,
    readout=Readout(LAST_TOKENS, pooled="cls"),
    inputs=inputs.hf_image,
    num_heads=12,
)

# A stage gives (its tokens, height, width), its blocks give theirs alone in a tuple.
PVT_V2 = Adapter(
    name="hf_pvt_v2",
    library="transformers",
    modality="image",
    classes=("transformers.models.pvt_v2.modeling_pvt_v2.PvtV2Model",),
    sites=("encoder.layers.*.blocks.*",),
    layout=Layout(Axes.NLC, element=0),
    readout=Readout(LAST_MAP, pooled="mean"),
    inputs=inputs.hf_image,
    patches=0,
    num_heads=8,
)

# A stage gives (tokens after its downsampling, the same as a map, attentions); only the first goes on to the next one.
SWIN = Adapter(
    name="hf_swin",
    library="transformers",
    modality="image",
    classes=("transformers.models.swin.modeling_swin.SwinModel",),
    sites=("encoder.layers.*",),
    layout=Layout(Axes.NLC, element=0),
    readout=Readout(LAST_TOKENS, pooled="mean"),
    inputs=inputs.hf_image,
    patches=0,
    num_heads=8,
)

CONVNEXT = Adapter(
    name="hf_convnext",
    library="transformers",
    modality="image",
    classes=(
        "transformers.models.convnext.modeling_convnext.ConvNextModel",
        "transformers.models.convnextv2.modeling_convnextv2.ConvNextV2Model",
    ),
    sites=("encoder.stages.*",),
    layout=Layout(Axes.NCHW),
    readout=Readout(LAST_MAP, pooled="mean"),
    inputs=inputs.hf_image,
    num_heads=8,
)

# Its tokens stand window by window, not in raster order: no map.
HIERA = Adapter(
    name="hf_hiera",
    library="transformers",
    modality="image",
    classes=("transformers.models.hiera.modeling_hiera.HieraModel",),
    sites=("encoder.stages.*",),
    layout=Layout(Axes.NLC, element=0),
    readout=Readout(LAST_TOKENS, pooled="mean"),
    inputs=inputs.hf_image,
    num_heads=8,
)

ADAPTERS: tuple[Adapter, ...] = (HIERA, VIT, DEIT, DINOV2, DINOV2_REGISTERS, YOLOS, PVT_V2, SWIN, CONVNEXT)
