"""captum runs on an expanded model: attributions of both inputs, sample by sample as in a batch, and of a unit."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from mi2p_inject import ExpandedModel, SourceFeatures, ViewSpec, inject
from mi2p_inject.core.errors import SourceError

captum = pytest.importorskip("captum.attr")
TARGET = 1


class Small(nn.Module):
    """A network in which every input matters; sums of its attributions can be checked."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.conv(x).tanh().mean((2, 3)))
        return logits


@pytest.fixture
def me() -> ExpandedModel:
    torch.manual_seed(0)
    return inject(
        Small(), layers="conv", source_spec=ViewSpec.tokens(6), zero_init=None, example_inputs=PICTURES
    ).eval()


PICTURES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
WORDS = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))


def of(me: ExpandedModel) -> Any:
    return captum.IntegratedGradients(lambda pictures, words: me(pictures, source=SourceFeatures(words)))


def test_integrated_gradients_of_both_inputs_add_up(me: ExpandedModel) -> None:
    given, blank = (PICTURES, WORDS), (torch.zeros_like(PICTURES), torch.zeros_like(WORDS))
    pictures, words = of(me).attribute(given, blank, target=TARGET, n_steps=200)
    assert min(pictures.abs().sum(), words.abs().sum()) > 1e-3
    full = me(PICTURES, source=SourceFeatures(WORDS)) - me(blank[0], source=SourceFeatures(blank[1]))
    total = pictures.sum((1, 2, 3)) + words.sum((1, 2))
    assert torch.allclose(total, full[:, TARGET], rtol=0.02, atol=1e-3)


def test_a_batch_is_explained_as_its_samples_are(me: ExpandedModel) -> None:
    together = of(me).attribute(PICTURES, target=TARGET, additional_forward_args=(WORDS,), n_steps=8)
    for row in range(2):
        alone = of(me).attribute(PICTURES[[row]], target=TARGET, additional_forward_args=(WORDS[[row]],), n_steps=8)
        assert torch.allclose(alone[0], together[row], rtol=1e-4, atol=1e-7)
    other = of(me).attribute(PICTURES, target=TARGET, additional_forward_args=(WORDS.flip(0),), n_steps=8)
    assert not torch.allclose(other, together, rtol=1e-2)  # whose words they are matters


@pytest.mark.parametrize("layer", ["backbone", "unit"])
def test_grad_cam_of_a_layer_and_of_a_unit(layer: str) -> None:
    me = inject(timm.create_model("resnet10t", num_classes=3), source_spec=ViewSpec.tokens(6), zero_init=None).eval()
    site = me.sites[-1].path
    module = me.backbone.get_submodule(site) if layer == "backbone" else me.unit(site)
    cam = captum.LayerGradCam(lambda pictures, words: me(pictures, source=SourceFeatures(words)), module)
    pictures = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert cam.attribute(pictures, target=TARGET, additional_forward_args=(WORDS,)).shape == (2, 1, 2, 2)


def test_a_block_is_no_way_to_give_captum_a_source(me: ExpandedModel) -> None:
    """captum lays its repeated rows out otherwise than beams: docs/injecting.md says to give the features."""
    of_backbone = captum.IntegratedGradients(me.backbone)
    with pytest.raises(SourceError, match="different batches"), me.source(SourceFeatures(WORDS)):
        of_backbone.attribute(PICTURES, target=TARGET, n_steps=8)
