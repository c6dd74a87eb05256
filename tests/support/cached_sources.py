"""Source encoders, samples and what reads them: for the tests of the source cache."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from models import TINY
from torch import Tensor, nn

from mi2p_inject import ExpandedModel, inject
from mi2p_inject.sources.cache import SourceCache
from mi2p_inject.sources.encoder import Source
from mi2p_inject.sources.fill_cache import fill

PICTURES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
IDS = [f"sample {number}" for number in range(11)]


def words_for(samples: list[str]) -> dict[str, Tensor]:
    """Ids and a mask: each sample has words of its own, and a length of its own."""
    numbers = [int(sample.split()[-1]) for sample in samples]
    ids = torch.stack([torch.arange(8).mul(number + 3).remainder(50) + 2 for number in numbers])
    mask = torch.arange(8) < torch.tensor([number % 8 + 1 for number in numbers]).unsqueeze(1)
    return {"input_ids": ids, "attention_mask": mask.long()}


def pictures_for(samples: list[str]) -> Tensor:
    generators = [torch.Generator().manual_seed(int(sample.split()[-1])) for sample in samples]
    return torch.stack([torch.randn(3, 64, 64, generator=generator) for generator in generators])


READ: dict[str, Any] = {"bert": words_for, "resnet": pictures_for}


def model(kind: str) -> ExpandedModel:
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
    return inject(net, layers="0", source_encoder=TINY[kind].build(), example_inputs=PICTURES, zero_init=None)


@cache
def source_of(kind: str) -> Source | None:
    return model(kind).frozen_source


def filled(folder: Path, kind: str, samples: list[str] | None = None, **options: Any) -> SourceCache:
    options = {"preprocessing": "eight words", "say": lambda line: None, "batch_size": 4} | options
    return fill(folder, source_of(kind), samples or IDS, options.pop("read", READ[kind]), **options)


def read_by(encoder: nn.Module, example: Tensor) -> ExpandedModel:
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
    return inject(net, layers="0", source_encoder=encoder, example_inputs=PICTURES, source_example_inputs=example)


def table(value: float) -> ExpandedModel:
    return read_by(nn.Embedding.from_pretrained(torch.full((9, 5), value)), torch.zeros(1, 3, dtype=torch.long))
