"""Builds the classifier of each trained row, and the source features of the expanded ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mi2p_inject.recipes.batches import FeatureCache, picture_inputs, text_inputs
from mi2p_inject.recipes.config import View
from mi2p_inject.recipes.models import Classifier, PictureClassifier, TextClassifier
from mi2p_inject.recipes.weights import TextEncoder, efficientnet_lite0, minilm

__all__ = ["build", "cache_source", "save_classifier"]

_WIDTH = 384
_BATCH = 64
_FIXED_STAGES = 3
# Where the units sit. None: the adapter row's default. One of MiniLM's six layers: each unit attends to 1,280 channels
# and costs more than the layer itself, and on validation one scored best.
_SITES: dict[View, list[str] | None] = {"picture": None, "text": ["encoder.layer.4"]}

# The paper's plain addition. On validation it beat a start at zero with either model: in a few hundred steps a unit
# that starts at zero has just begun to speak.
_GATE = None


def build(view: View, *, expanded: bool, num_classes: int) -> Classifier:
    """The classifier of a row, pre-trained, with a fresh head.

    Args:
        view: what the backbone reads.
        expanded: add MI2P units that hear the other modality's frozen model.
        num_classes: K.
    """
    if view == "picture":
        backbone = _picture_backbone(num_classes)
        example: Any = torch.zeros(1, 3, 96, 96)
        classifier: Classifier = PictureClassifier(backbone)
    else:
        backbone, tokenizer = _text_backbone()
        example = text_inputs(tokenizer, ["an example"])
        classifier = TextClassifier(backbone, _WIDTH, num_classes)
    if expanded:
        # Last, so that the head has the initial values that it has without units: the comparison is paired.
        classifier.network = _expand(view, backbone, example)
    return classifier


def cache_source(classifier: Classifier, view: View, data: Any, tokenizer: Any) -> FeatureCache:
    """Run the frozen source encoder over a whole data set, once.

    Args:
        classifier: expanded.
        view: of its backbone; the source reads the other one.
        data: a `datasets.Dataset` with ``image`` and ``text``.
        tokenizer: of the text model.
    """
    expanded: Any = classifier.network
    parts: list[Any] = []
    with torch.no_grad():
        for start in range(0, len(data), _BATCH):
            rows = data[start : start + _BATCH]
            if view == "picture":
                parts.append(expanded.encode(text_inputs(tokenizer, rows["text"])))
            else:
                parts.append(expanded.encode(picture_inputs(rows["image"])))
    if parts[0].mask is None:
        return FeatureCache(torch.cat([part.data for part in parts]).cpu(), None)
    longest = max(part.data.shape[1] for part in parts)
    tokens = [nn.functional.pad(part.data, (0, 0, 0, longest - part.data.shape[1])) for part in parts]
    masks = [nn.functional.pad(part.mask, (0, longest - part.mask.shape[1])) for part in parts]
    return FeatureCache(torch.cat(tokens).cpu(), torch.cat(masks).cpu())


def save_classifier(classifier: Classifier, folder: Path) -> None:
    """Write the checkpoint: an expanded network as `mi2p_inject.load` reads it, a plain one as safetensors."""
    expanded: Any = classifier.network
    if hasattr(expanded, "save_pretrained") and hasattr(expanded, "units"):
        expanded.save_pretrained(folder / "expanded")
    else:
        save_file(_contiguous(classifier.network), folder / "backbone.safetensors")
    if classifier.head is not None:
        save_file(_contiguous(classifier.head), folder / "head.safetensors")


def _contiguous(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}


def _picture_backbone(num_classes: int) -> nn.Module:
    """The stem and the first stages see edges and colours, and cost half the backward pass: they stay as they are."""
    backbone: Any = efficientnet_lite0(num_classes).to(memory_format=torch.channels_last)
    for part in (backbone.conv_stem, backbone.bn1, *backbone.blocks[:_FIXED_STAGES]):
        part.requires_grad_(False)
    return cast(nn.Module, backbone)


def _text_backbone() -> TextEncoder:
    """Most words occur once: tuning their embeddings learns nothing that carries over, and takes half of each step."""
    encoder = minilm()
    embeddings: Any = encoder.model.get_submodule("embeddings.word_embeddings")
    embeddings.requires_grad_(False)
    return encoder


def _expand(view: View, backbone: nn.Module, example: Any) -> nn.Module:
    from mi2p_inject import inject

    if view == "picture":
        return inject(backbone, _SITES[view], source_encoder=minilm().model, example_inputs=example, gate=_GATE)
    source = efficientnet_lite0().to(memory_format=torch.channels_last)
    return inject(
        backbone,
        _SITES[view],
        source_encoder=source,
        example_inputs=example,
        source_example_inputs=torch.zeros(1, 3, 96, 96),
        gate=_GATE,
    )
