"""What changes the features changes the key of the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from cached_sources import IDS, model, pictures_for, read_by, words_for
from torch import Tensor, nn

from mi2p_inject.sources.fill_cache import fill


def test_another_encoder_preprocessing_or_precision_is_another_cache(tmp_path: Path) -> None:
    me = model("bert")
    fill_it = {"say": lambda line: None, "preprocessing": "a"}
    one = fill(tmp_path, me.frozen_source, IDS, words_for, **fill_it)  # type: ignore[arg-type]
    again = fill(tmp_path, me.frozen_source, IDS, words_for, **fill_it)  # type: ignore[arg-type]
    other = fill(tmp_path, me.frozen_source, IDS, words_for, **fill_it | {"preprocessing": "b"})  # type: ignore[arg-type]
    half = fill(tmp_path, me.frozen_source, IDS, words_for, dtype=torch.float16, **fill_it)  # type: ignore[arg-type]
    assert me.source_encoder is not None
    with torch.no_grad():
        next(me.source_encoder.parameters()).flatten()[0].add_(1)
    trained = fill(tmp_path, me.frozen_source, IDS, words_for, **fill_it)  # type: ignore[arg-type]
    with torch.autocast("cpu", torch.bfloat16):
        cast = fill(tmp_path, me.frozen_source, IDS, words_for, **fill_it)  # type: ignore[arg-type]
    assert one.folder == again.folder
    assert len({one.folder, other.folder, half.folder, trained.folder, cast.folder}) == 5
    assert half[IDS[:2]].data.dtype is torch.float16


def test_an_offloaded_encoder_reads_the_cache_of_the_one_in_memory(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    kept: dict[str, Any] = {"say": lambda line: None, "preprocessing": "a"}
    one = fill(tmp_path, read_by(net, pictures_for(IDS[:1])).frozen_source, IDS, pictures_for, **kept)
    away = accelerate.cpu_offload(net, execution_device="cpu")
    again = fill(tmp_path, read_by(away, pictures_for(IDS[:1])).frozen_source, IDS, pictures_for, **kept)
    assert again.folder == one.folder


class Scaled(nn.Module):
    """Settings of every kind that a state dict does not hold."""

    def __init__(self, stride: int = 1, act: Any = torch.relu, mean: float = 0.0, power: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.act, self.power = nn.Conv2d(3, 4, 3, stride=stride), act, power
        self.register_buffer("mean", torch.tensor(mean), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x - self.mean)) * self.power  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "changed", [{"stride": 2}, {"act": torch.tanh}, {"mean": 1.0}, {"power": 2.0}], ids=lambda given: next(iter(given))
)
def test_another_setting_of_the_same_weights_is_another_cache(changed: dict[str, Any], tmp_path: Path) -> None:
    example = torch.randn(2, 3, 64, 64)
    caches = [
        fill(
            tmp_path,
            read_by(Scaled(**given), example).frozen_source,
            IDS,
            pictures_for,
            preprocessing="",
            say=lambda line: None,
        )
        for given in ({}, {}, changed)
    ]
    assert caches[0].folder == caches[1].folder != caches[2].folder


@pytest.mark.parametrize("changed", [{"num_attention_heads": 2}, {"hidden_act": "relu"}, {"layer_norm_eps": 0.1}])
def test_another_configuration_of_a_bert_is_another_cache(changed: dict[str, Any], tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    def bert(**options: Any) -> nn.Module:
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 60}
        return BertModel(BertConfig(**{**sizes, "num_attention_heads": 4, **options}))

    example = torch.ones(1, 8, dtype=torch.long)
    folders = [
        fill(
            tmp_path,
            read_by(bert(**given), example).frozen_source,
            IDS,
            words_for,
            preprocessing="",
            say=lambda line: None,
        ).folder
        for given in ({}, {}, changed)
    ]
    assert folders[0] == folders[1] != folders[2]
