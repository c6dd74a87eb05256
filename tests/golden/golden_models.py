"""The models of the golden files: nothing in them is drawn at random."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mi2p_inject import ExpandedModel, SourceFeatures, ViewSpec, inject


def numbers(*shape: int) -> Tensor:
    """A tensor of values between -1 and 1, the same everywhere."""
    count = int(torch.tensor(shape).prod())
    return (torch.arange(count).mul(37).remainder(101).float() / 50 - 1).reshape(shape)


PICTURES = numbers(2, 3, 8, 8)
SOURCE = SourceFeatures(numbers(2, 5, 12), torch.tensor([[True] * 5, [True, True, True, False, False]]))


SOURCES = {"text": SOURCE, "tone": SourceFeatures(numbers(2, 4, 3, 3).flip(0))}


def backbone() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(numbers(*parameter.shape) / 3)
    return model


def expanded(model: nn.Module, trainable: Any, **options: Any) -> ExpandedModel:
    return inject(
        model, layers="0", **{"source_spec": ViewSpec.tokens(12), **options}, example_inputs=PICTURES,
        trainable=trainable, num_heads=2, head_dim=4, channel_embedding_dim=4,
    )  # fmt: skip


def expanded_by_names(model: nn.Module) -> ExpandedModel:
    return expanded(model, "all", source_spec={"text": ViewSpec.tokens(12), "tone": ViewSpec.map(4, 3, 3)})
