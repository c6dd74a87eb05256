"""Models that keep tensors while they run: after a dry run they run for real as if nothing had been."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
import transformers
from models import BERT, HF_SWIN, PATCHES
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from mi2p_inject.core.inputs import as_inputs, tensors_in
from mi2p_inject.inspection.probe import probe

HUGGING = {
    "BeitModel": {**PATCHES, "use_relative_position_bias": True},
    "Data2VecVisionModel": {**PATCHES, "use_shared_relative_position_bias": True},
    "DINOv3ViTModel": {**PATCHES, "hidden_size": 32},
    "Dinov2Model": PATCHES,
    "Swinv2Model": HF_SWIN,
    "BigBirdModel": BERT,
    "LongformerModel": {**BERT, "attention_window": 4},
    "GPT2Model": {**BERT, "n_embd": 24, "n_layer": 2, "n_head": 4},
}
TIMM = {
    "levit_128s": 224,
    "convit_tiny": 64,
    "efficientformer_l1": 224,
    "tiny_vit_5m_224": 224,
    "swinv2_tiny_window8_256": 64,
    "beit_base_patch16_224": 32,
}


def hazard(name: str) -> tuple[nn.Module, Any]:
    """A model that keeps tensors in buffers, attributes or caches while it runs, and its input."""
    torch.manual_seed(0)
    if name in TIMM:
        size = TIMM[name]
        options: dict[str, Any] = {} if size == 224 else {"img_size": size}
        if name.startswith("beit"):
            options |= {"depth": 2, "embed_dim": 24, "num_heads": 2}
        return timm.create_model(name, **options).eval(), torch.randn(1, 3, size, size)
    cls = getattr(transformers, name)
    config = cls.config_class(**HUGGING[name])
    ids = torch.randint(3, 50, (2, 8))
    example = torch.randn(1, 3, config.image_size, config.image_size) if "image_size" in HUGGING[name] else ids
    return cls(config).eval(), example


@pytest.mark.parametrize("name", [*HUGGING, *TIMM])
def test_a_probed_model_runs_for_real_as_if_nothing_had_been(name: str) -> None:
    model, x = hazard(name)
    twin = copy.deepcopy(model)
    names = [sorted(vars(module)) for module in model.modules()]
    paths = [path for path, _ in model.named_modules() if path]
    for options in ({"effect": True}, {"stop": True}):
        probe(model, paths[-2:], as_inputs(x), **options)
    assert [sorted(vars(module)) for module in model.modules()] == names
    with torch.no_grad():
        out, expected = tensors_in(model(x)), tensors_in(twin(x))
    assert out
    for one, other in zip(out, expected, strict=True):
        assert type(one) is type(other)
        assert torch.equal(one, other)
    for module in model.modules():
        assert not any(isinstance(value, FakeTensor) for value in tensors_in(list(vars(module).values()), depth=0))
