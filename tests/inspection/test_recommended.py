"""Which sites a model gets where nobody names layers."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from helpers import complains
from models import HEADED, TINY, TinyModel
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from mi2p_inject import ViewSpec, inject
from mi2p_inject.adapters.recommended import recommended
from mi2p_inject.core.errors import ProbeError, SelectionError, SiteError
from mi2p_inject.core.zoo import build
from mi2p_inject.report.survey import survey

WORDS, PICTURE = ViewSpec.tokens(24), ViewSpec.map(24, 3, 3)


def bert(layers: int) -> BertModel:
    return BertModel(
        BertConfig(vocab_size=99, hidden_size=32, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=32)
    )


@pytest.mark.parametrize(("layers", "expected"), [(1, [0]), (2, [1]), (6, [5]), (8, [7]), (12, [10, 11])])
def test_a_text_model_gets_its_last_sixth_and_at_least_one(layers: int, expected: list[int]) -> None:
    me = inject(bert(layers), source_spec=PICTURE)
    assert [site.path for site in me.sites] == [f"encoder.layer.{number}" for number in expected]


def test_an_image_model_gets_its_last_third() -> None:
    me = inject(timm.create_model("tf_efficientnet_lite0"), source_spec=WORDS)
    assert [site.path for site in me.sites] == ["blocks.5", "blocks.6"]
    assert [site.path for site in inject(timm.create_model("resnet10t"), source_spec=WORDS).sites] == ["layer4"]


@pytest.mark.parametrize(
    "tiny", [*TINY.values(), *HEADED.values()], ids=[*TINY, *(f"{name} headed" for name in HEADED)]
)
@pytest.mark.parametrize("layers", [None, "paper"])
def test_a_model_without_weights_gets_the_same_sites(tiny: TinyModel, layers: str | None) -> None:
    """A model on the meta device is expanded before its weights are loaded."""
    args, kwargs = tiny.inputs(2, 0)
    real, weightless = (
        inject(model, layers, source_spec=WORDS, example_inputs=kwargs or args)
        for model in (tiny.build(), tiny.build().to("meta"))
    )
    assert [str(site) for site in weightless.sites] == [str(site) for site in real.sites]
    assert weightless.expansion_config.left_out == real.expansion_config.left_out
    assert all(parameter.is_meta for parameter in weightless.parameters())


@pytest.mark.parametrize("number", range(1, 40))
@pytest.mark.parametrize("modality", ["image", "text", "audio", "video"])
def test_they_are_the_last_ones_of_any_number(number: int, modality: str) -> None:
    found = recommended(range(number), modality)
    assert 1 <= len(found) <= number
    assert list(found) == list(range(number))[-len(found) :]


def test_sites_whose_patches_are_ignored_do_not_count() -> None:
    """The last block of a class-token ViT is no site: the recommended ones are the last of the others."""
    model = timm.create_model("vit_tiny_patch16_224", depth=6)
    every = inject(model, layers="paper", source_spec=WORDS)
    paths, left_out = [site.path for site in every.sites], every.expansion_config.left_out
    every.eject()
    me = inject(model, source_spec=WORDS)
    assert left_out == me.expansion_config.left_out == ("blocks.5",)
    assert [site.path for site in me.sites] == list(recommended(paths, "image"))


def test_paper_is_every_default_site() -> None:
    me = inject(bert(4), layers="paper", source_spec=PICTURE)
    assert [site.path for site in me.sites] == [f"encoder.layer.{number}" for number in range(4)]


def test_a_module_of_that_name_wins() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.paper = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)

        def forward(self, x: object) -> object:
            return self.paper(self.first(x)).mean((2, 3))

    me = inject(Model(), layers="paper", source_spec=WORDS, example_inputs=torch.randn(2, 3, 16, 16))
    assert [site.path for site in me.sites] == ["paper"]


def test_without_an_adapter_there_are_none() -> None:
    for layers in (None, "paper"):
        with pytest.raises(SelectionError, match="no adapter matches"):
            inject(nn.Sequential(nn.Linear(4, 4)), layers=layers, source_spec=WORDS, example_inputs=torch.randn(2, 4))


def test_the_survey_names_them() -> None:
    assert survey(build("bert"), PICTURE).recommended == ("encoder.layer.10", "encoder.layer.11")


def class_token(output: Any) -> Tensor:
    token: Tensor = output.last_hidden_state[:, 0]
    return token


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_head_outside_the_model_says_what_it_reads(device: str) -> None:
    """All of a ViT's hidden states are its output; the class token alone leaves no place for a unit at the end."""
    tiny = TINY["hf_vit"]
    every = inject(tiny.build().to(device), "paper", source_spec=WORDS)
    read = inject(tiny.build().to(device), "paper", source_spec=WORDS, reads=class_token)
    *before, last = [site.path for site in every.sites]
    assert [site.path for site in read.sites] == before
    assert read.expansion_config.left_out == (last,)
    with complains(SiteError):
        inject(tiny.build().to(device), last, source_spec=WORDS, reads=class_token)


@pytest.mark.parametrize("reads", [lambda output: output.logits, lambda output: None, "last_hidden_state"])
def test_what_is_read_must_be_there(reads: Any) -> None:
    with complains(ProbeError):
        inject(TINY["hf_vit"].build(), source_spec=WORDS, reads=reads)
