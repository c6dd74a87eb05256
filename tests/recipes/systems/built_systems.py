"""Systems over tiny encoders, and batches that they read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.recipes.config import make_config
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.encoders.load import load_encoder
from mi2p_inject.recipes.systems import SystemModel, build_system
from mi2p_inject.recipes.tasks import SingleLabel


def built(model: str, fusion: str = "score", device: str = "cpu", **settings: Any) -> SystemModel:
    """A system whose encoders and parameters are on the device; "meta": it has no weights, as where a table checks."""
    torch.manual_seed(0)
    names = {"vision": "tiny:densenet", "text": "tiny:xlnet", "zero_init": "none", **settings}
    config = make_config({"data": "-", "model": model, "fusion": fusion, **names})
    encoders: dict[Modality, Encoder] = {
        modality: load_encoder(
            {"image": config.model.vision, "text": config.model.text}[modality],
            modality,
            image_size=32 if modality == "image" else None,
        )
        for modality in config.model.system.modalities
    }
    for encoder in encoders.values():
        encoder.model.to(device)
    with torch.device(device):
        return build_system(config, encoders, SingleLabel(("a", "b", "c")))


def batch(model: SystemModel, image: list[bool], text: list[bool]) -> dict[str, Tensor]:
    """Pixels and tokens that differ by row; what is missing is blank."""
    generator = torch.Generator().manual_seed(1)
    count = len(image)
    here = torch.tensor(image)
    pixels = torch.randn(count, 3, 32, 32, generator=generator) * here.view(-1, 1, 1, 1)
    ids = torch.randint(1000, 2000, (count, 7), generator=generator)
    mask = torch.ones_like(ids)
    mask[1::2, 5:] = 0
    given = {"pixel_values": pixels, "image_present": here}
    given |= {"input_ids": ids, "attention_mask": mask, "text_present": torch.tensor(text)}
    read = {"image": ("pixel_values", "image_present"), "text": ("input_ids", "attention_mask", "text_present")}
    modalities = {*model.branches, *({"image", "text"} if model.sources() else ())}
    return {name: given[name] for modality in modalities for name in read[modality]}
