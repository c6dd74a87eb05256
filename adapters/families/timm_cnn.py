"""timm's convolutional networks."""

from __future__ import annotations

from torch import nn

from mi2p_inject.adapters import inputs
from mi2p_inject.adapters.adapter import Adapter, Readout
from mi2p_inject.core.layout import Axes, Layout

__all__ = ["ADAPTERS", "CONVNEXT", "DENSENET", "EFFICIENTNET", "HRNET", "MAP", "RESNET", "cnn", "hrnet_branches"]

MAP = Layout(Axes.NCHW)


def cnn(name: str, classes: tuple[str, ...], sites: tuple[str, ...]) -> Adapter:
    """A convolutional network: every stage gives a map (B, C, H, W), and the features are the last one before pooling.

    `forward_features` is what timm's own head reads, so it also runs what follows the last stage (a norm, a head
    convolution).
    """
    return Adapter(
        name=name,
        library="timm",
        modality="image",
        classes=classes,
        sites=sites,
        layout=MAP,
        readout=Readout(MAP, call="forward_features", pooled="mean"),
        inputs=inputs.timm_image,
        num_heads=8,
    )


DENSENET = cnn(
    "densenet",
    ("timm.models.densenet.DenseNet",),
    ("features.denseblock1", "features.denseblock2", "features.denseblock3", "features.denseblock4"),
)

RESNET = cnn("resnet", ("timm.models.resnet.ResNet",), ("layer1", "layer2", "layer3", "layer4"))

CONVNEXT = cnn("convnext", ("timm.models.convnext.ConvNeXt",), ("stages.*",))

# All stages but blocks.0, which stands at stride 2: at 224 px a unit there would project its source to the 12,544
# numbers of a channel. Which of the others end a resolution differs from model to model, so all are sites.
EFFICIENTNET = cnn("efficientnet", ("timm.models.efficientnet.EfficientNet",), ("blocks.[1-9]",))


def hrnet_branches(model: nn.Module) -> list[str]:
    """Its first stage, and each branch of the last module of every other: the stages themselves give lists of maps."""
    stages = [path for path, _ in model.named_children() if path in ("stage2", "stage3", "stage4")]
    last = [f"{path}.{len(model.get_submodule(path)) - 1}.branches" for path in stages]  # type: ignore[arg-type]
    return ["layer1", *(f"{path}.{name}" for path in last for name, _ in model.get_submodule(path).named_children())]


HRNET = Adapter(
    name="hrnet",
    library="timm",
    modality="image",
    classes=("timm.models.hrnet.HighResolutionNet",),
    sites=hrnet_branches,
    layout=None,
    readout=Readout(MAP, call="forward_features", pooled="mean"),
    inputs=inputs.timm_image,
    num_heads=8,
)

ADAPTERS: tuple[Adapter, ...] = (DENSENET, RESNET, CONVNEXT, EFFICIENTNET, HRNET)
