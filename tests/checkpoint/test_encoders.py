"""Loading with a source encoder that is not the one of the checkpoint."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mi2p_inject import inject, load
from mi2p_inject.core.errors import InjectionWarning

IDS, PIXELS = torch.ones(2, 3).long(), torch.zeros(2, 3, 8, 8)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.inner = nn.Embedding(20, 8), nn.GRU(8, 8, batch_first=True)

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self.inner(self.embedding(ids))[0]
        return found


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3))


def saved(folder: Path) -> nn.Module:
    encoder = nn.Embedding(20, 8)
    inject(net(), "0", source_encoder=encoder, source_example_inputs=IDS, example_inputs=PIXELS).save_pretrained(folder)
    return encoder


def load_with(folder: Path, encoder: nn.Module) -> None:
    load(folder, backbone=net(), source_encoder=encoder, source_example_inputs=IDS)


@pytest.mark.parametrize(("other", "kind"), [(nn.Embedding(20, 8), "has other weights"), (Recurrent(), "is another")])
def test_another_encoder_is_warned_of(other: nn.Module, kind: str, tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.warns(InjectionWarning, match=f"{kind} than the one"):
        load_with(tmp_path, other)


def test_the_same_encoder_is_not(tmp_path: Path) -> None:
    encoder = saved(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for same in (encoder, torch.compile(encoder, backend="eager"), encoder.bfloat16()):
            load_with(tmp_path, same)
