"""Compared systems on tiny encoders, and batches for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.recipes.config import make_config
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.encoders.load import load_encoder
from mi2p_inject.recipes.systems import SYSTEMS, SystemModel, build_system
from mi2p_inject.recipes.systems.compared.base import Compared
from mi2p_inject.recipes.tasks import MultiLabel, SingleLabel

NAMES = [name for name in SYSTEMS if isinstance(SYSTEMS[name], Compared)]
SIDE = 64


def built(model: str, *, multi_label: bool = False, seed: int = 0, **settings: Any) -> SystemModel:
    """A system in float64 and eval mode, every parameter at random: what starts at one value shows no mistake."""
    torch.manual_seed(seed)
    config = make_config({"data": "-", "model": model, "vision": "tiny", "text": "tiny", **settings})
    encoders: dict[Modality, Encoder] = {
        "image": load_encoder(config.model.vision, "image", image_size=SIDE),
        "text": load_encoder(config.model.text, "text", max_length=32),
    }
    task = (MultiLabel if multi_label else SingleLabel)(("a", "b", "c"))
    made = build_system(config, encoders, task)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim < 2:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return made.double().eval()


def batch(image: list[bool], text: list[bool], seed: int = 1) -> dict[str, Tensor]:
    """Pixels and tokens that differ by row, one row shorter than the others; what is missing is blank."""
    generator = torch.Generator().manual_seed(seed)
    count, length = len(image), 9
    here, there = torch.tensor(image), torch.tensor(text)
    pixels = torch.randn(count, 3, SIDE, SIDE, generator=generator).double() * here.view(-1, 1, 1, 1)
    ids = torch.randint(1000, 2000, (count, length), generator=generator)
    ids[:, 0], ids[:, -1] = 101, 102  # [CLS] and [SEP] of MiniLM's tokenizer
    mask = torch.ones_like(ids)
    ids[1::2, 6], ids[1::2, 7:], mask[1::2, 7:] = 102, 0, 0
    ids[~there], mask[~there] = 0, 0
    ids[~there, 0], ids[~there, 1], mask[~there, :2] = 101, 102, 1
    return {
        "pixel_values": pixels,
        "image_present": here,
        "input_ids": ids,
        "attention_mask": mask,
        "text_present": there,
    }
