"""Every unit of a branch changes the vector that its classifier reads, whatever part of the output that is."""

from __future__ import annotations

import pytest
import torch
from models import TINY, TinyModel
from torch.utils import _pytree as pytree

from mi2p_inject.adapters import adapters
from mi2p_inject.recipes.config import Config, make_config
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.encoders.preprocess import ImageSpec
from mi2p_inject.recipes.encoders.tiny import tiny_encoder
from mi2p_inject.recipes.systems.branch import Branch

ADAPTERS = {one.name: one for one in adapters()}
IMAGES = {name: tiny for name, tiny in TINY.items() if ADAPTERS[tiny.adapter].modality == "image"}
LAYERS = {"recommended": Config(), "paper": make_config({"data": "-", "vision_layers": ["paper"]})}


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("tiny", IMAGES.values(), ids=IMAGES)
def test_every_unit_has_a_gradient(tiny: TinyModel, layers: str) -> None:
    adapter = ADAPTERS[tiny.adapter]
    (pixels,) = pytree.tree_leaves(tiny.inputs(2, 0))
    spec = ImageSpec(tuple(pixels.shape[2:]), (0.5,) * 3, (0.5,) * 3)
    origin = {"library": adapter.library, "name": tiny.adapter}
    encoder = Encoder(tiny.build(), "image", spec, origin, pooling=adapter.readout.pooled)
    branch = Branch(encoder, tiny_encoder("bert", "text"), LAYERS[layers].model)
    here = torch.ones(2, dtype=torch.bool)
    words = torch.randn(2, 7, branch.source.model.config.hidden_size)
    given = {"pixel_values": pixels, "image_present": here, "text_present": here, "text_source": words}
    vectors, _ = branch(given)
    (vectors * torch.randn_like(vectors)).sum().backward()
    units = {site.path: unit for site, unit in zip(branch.network.sites, branch.network.units.values(), strict=True)}
    moved = {
        path for path, unit in units.items() if any(p.grad is not None and p.grad.any() for p in unit.parameters())
    }
    assert units
    assert moved == set(units)
