"""Convolutions over time store (B, C, L): sites and sources are tokens whose width is the channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from mi2p_inject import ExpandedModel, SourceFeatures, ViewSpec, inject, load
from mi2p_inject.core.errors import LayoutError
from mi2p_inject.core.layout import Axes, Layout
from mi2p_inject.testing import check_model

SOUND = torch.randn(2, 3, 24, generator=torch.Generator().manual_seed(0))
SOURCE = SourceFeatures(torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1)))


class Stack(nn.Module):
    """A small network for sound: (B, 3, L) -> (B, 4)."""

    def __init__(self, pooled: bool = True) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv1d(width, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU()) for width in (3, 8, 8)
        )
        self.head = nn.Linear(8 if pooled else 8 * SOUND.shape[2], 4)
        self.pooled = pooled

    def forward(self, sound: Tensor) -> Tensor:
        for stage in self.stages:
            sound = stage(sound)
        logits: Tensor = self.head(sound.mean(2) if self.pooled else sound.flatten(1))
        return logits


def built(make: Callable[[], nn.Module] = Stack, **options: Any) -> ExpandedModel:
    torch.manual_seed(0)
    return inject(
        make().eval(),
        layers=["stages.1"],
        source_spec=ViewSpec.tokens(6),
        example_inputs=SOUND,
        zero_init=None,
        **options,
    )


def test_the_axis_that_grows_is_the_length() -> None:
    me = inject(Stack().eval(), layers=["stages.0", "stages.1.1"], source_spec=ViewSpec.tokens(6), example_inputs=SOUND)
    assert {site.path: str(site.layout) for site in me.sites} == {"stages.0": "NCL", "stages.1.1": "NCL"}


@pytest.mark.fault("calls", "a network that convolves sound or series: (B, C, L)", "its sites are tokens of C features")
def test_the_residual_is_the_units_own_turned(tmp_path: Any) -> None:
    """A literal one: the unit called by hand on what the stage gives."""
    me = built()
    stages = me.backbone.stages
    hidden = stages[0](SOUND)
    hidden = nn.Sequential.forward(stages[1], hidden)  # without its hook
    hidden = hidden.detach()
    assert me.sites[0].layout == Layout(Axes.NCL)
    assert me.sites[0].spec == ViewSpec.tokens(8)
    noted: list[Tensor] = []
    handle = me.unit("stages.1").register_forward_hook(lambda module, given, out: noted.append(out))
    got = me(SOUND, source=SOURCE)
    handle.remove()
    assert noted[0].shape == (2, 24, 8)
    wanted = me.backbone.head(stages[2](hidden + noted[0].transpose(1, 2)).mean(2))
    torch.testing.assert_close(got, wanted)
    assert not torch.equal(got, me(SOUND))
    longer = torch.randn(2, 3, 40)
    assert me(longer, source=SOURCE).shape == (2, 4)
    me.save_pretrained(tmp_path / "saved")
    again = load(tmp_path / "saved", backbone=Stack().eval(), example_inputs=SOUND)
    torch.testing.assert_close(again(SOUND, source=SOURCE), got)


def test_every_contract_holds() -> None:
    check_model(Stack().eval(), layers=["stages.0", "stages.2"], as_source=False, example_inputs=SOUND)


def test_a_head_of_one_size_does_not_hide_it() -> None:
    assert built(lambda: Stack(pooled=False)).sites[0].spec == ViewSpec.tokens(8)


class OneSize(Stack):
    def forward(self, sound: Tensor) -> Tensor:
        if sound.shape[2] != SOUND.shape[2]:
            raise ValueError("one size")
        return super().forward(sound)


def test_where_nothing_grows_it_is_asked_for() -> None:
    with pytest.raises(LayoutError, match="cannot tell features from length"):
        built(OneSize)
    assert built(OneSize, layout=Layout("NCL")).sites[0].spec == ViewSpec.tokens(8)  # type: ignore[arg-type]


def test_an_encoder_of_sound_is_a_source() -> None:
    encoder = nn.Sequential(*Stack().eval().stages)
    net = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 2)).eval()
    words = torch.randn(2, 7, 6)
    me = inject(net, layers=["1"], source_encoder=encoder, example_inputs=words, source_example_inputs=SOUND)
    assert me.expansion_config.sources[""].spec == ViewSpec.tokens(8)
    torch.testing.assert_close(me.encode(SOUND).data, encoder(SOUND).transpose(1, 2))


def test_a_vocoder() -> None:
    model = hf.UnivNetModel(hf.UnivNetConfig(model_hidden_channels=8)).eval()
    given = {"input_features": torch.randn(2, 20, 100)}
    me = inject(model, layers=["resblocks.0"], source_spec=ViewSpec.tokens(6), example_inputs=given)
    assert me.sites[0].layout.axes is Axes.NCL
    assert me.sites[0].spec == ViewSpec.tokens(8)


class ScaledSteps(nn.Module):
    """Series (B, L, D) of one length: a weight for each step, features that a later layer fixes."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.Parameter(torch.ones(24, 1))
        self.body = nn.Sequential(nn.GELU(), nn.Dropout(0.0))
        self.head = nn.Linear(5, 4)

    def forward(self, series: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(series * self.steps)).mean(1)
        return logits


def test_features_that_a_later_layer_fixes_are_no_length() -> None:
    """The dry run ends at the site, before the layer that would not take them."""
    series = torch.randn(2, 24, 5)
    with pytest.raises(LayoutError, match="cannot tell features from length"):
        inject(ScaledSteps().eval(), layers=["body"], source_spec=ViewSpec.tokens(6), example_inputs=series)
    me = inject(
        ScaledSteps().eval(),
        layers=["body"],
        source_spec=ViewSpec.tokens(6),
        example_inputs=series,
        layout=Layout("NLC"),  # type: ignore[arg-type]
    )
    assert me.sites[0].spec == ViewSpec.tokens(5)


class OwnConvolution(nn.Module):
    """A convolution that is no module of torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage()
        self.head = nn.Linear(8, 4)

    def forward(self, sound: Tensor) -> Tensor:
        logits: Tensor = self.head(self.stage(sound).mean(2))
        return logits


class Stage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 3, 3))

    def forward(self, sound: Tensor) -> Tensor:
        return nn.functional.conv1d(sound, self.weight, padding=1)


def test_a_convolution_of_ones_own_is_known_by_a_whole_run() -> None:
    me = inject(OwnConvolution().eval(), layers=["stage"], source_spec=ViewSpec.tokens(6), example_inputs=SOUND)
    assert me.sites[0].layout == Layout(Axes.NCL)
