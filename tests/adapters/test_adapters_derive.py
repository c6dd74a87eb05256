"""Models without an adapter: sites, inputs and readouts from what timm and transformers say of their own models."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import timm
import torch
from helpers import WORDS
from models import TINY
from torch import Tensor, nn

from benchmarks.sweep import tiny_hf
from mi2p_inject import inject
from mi2p_inject.adapters import find, inputs
from mi2p_inject.adapters.derive import layers_of
from mi2p_inject.adapters.masks import token_mask
from mi2p_inject.core.errors import AdapterError, LayoutError, SelectionError, SiteError, SourceError


def block() -> nn.Module:
    return nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("model", "paths"),
    [
        (nn.ModuleDict({"a": nn.ModuleList([block() for _ in "ab"])}), ["a.0", "a.1"]),
        (nn.ModuleDict({"a": nn.Sequential(block(), block())}), ["a.0", "a.1"]),
        (nn.ModuleDict({"a": nn.Sequential(block(), nn.ReLU())}), []),
        (
            nn.ModuleDict({"small": nn.ModuleList([block()]), "b": nn.ModuleList([block() for _ in "ab"])}),
            ["b.0", "b.1"],
        ),
        # The outermost list counts, and a bare list inside it never runs: its last member does.
        (nn.ModuleDict({"a": nn.ModuleList([nn.ModuleList([block(), block()]) for _ in "ab"])}), ["a.0.1", "a.1.1"]),
        (block(), []),
    ],
)
def test_layers_are_the_largest_outermost_list(model: nn.Module, paths: list[str]) -> None:
    assert layers_of(model) == paths


def test_timm_names_its_stages_and_the_outermost_is_left_out() -> None:
    with torch.device("meta"):
        model = timm.create_model("test_byobnet")
    match = find(model)
    assert match is not None
    assert match.adapter.layout is None
    named = [one["module"] for one in model.feature_info if one["reduction"] > 2]
    assert match.site_patterns(model) == named
    assert len(named) < len(model.feature_info)


def test_wrong_names_in_feature_info_fall_back_to_the_blocks() -> None:
    with torch.device("meta"):
        model = timm.create_model("twins_svt_small")
    assert "block.0" in {one["module"] for one in model.feature_info}
    match = find(model)
    assert match is not None
    assert [path.split(".")[0] for path in match.site_patterns(model)] == ["blocks"] * 4


def test_an_encoder_decoder_listens_and_speaks_through_its_encoder() -> None:
    model = tiny_hf.build("T5Model").eval()
    me = inject(model, layers="paper", source_spec=WORDS)
    assert {site.path.split(".")[0] for site in me.sites} == {"encoder"}
    me.eject()
    net = TINY["resnet"].build()
    me = inject(net, layers="paper", source_encoder=model)
    batch = {"input_ids": torch.tensor([[5, 6, 7, 0]]), "attention_mask": torch.tensor([[1, 1, 1, 0]])}
    features = me.encode(batch)
    with torch.no_grad():
        torch.testing.assert_close(features.data, model.encoder(**batch).last_hidden_state)
    assert features.mask is not None
    assert features.mask.tolist() == [[True, True, True, False]]


class Picky(nn.Module):
    """A timm-like model with one good stage, one that is ignored and one that runs twice."""

    __module__ = "timm.models.picky"
    pretrained_cfg: ClassVar = {"input_size": (3, 16, 16)}

    def __init__(self, *, good: bool) -> None:
        super().__init__()
        self.good, self.ignored, self.twice = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        names = (["good"] if good else []) + ["ignored", "twice"]
        self.feature_info = [{"module": name, "reduction": 4} for name in names]

    def forward(self, pixels: Tensor) -> Tensor:
        self.ignored(pixels)
        return self.twice(self.twice(self.good(pixels))).mean((2, 3))


def test_a_derived_site_that_fails_is_left_out_and_named() -> None:
    me = inject(Picky(good=True), layers="paper", source_spec=WORDS)
    assert [site.path for site in me.sites] == ["good"]
    assert me.expansion_config.left_out == ("ignored", "twice")
    assert "ignored, twice" in me.summary()


def test_a_named_site_that_fails_is_an_error() -> None:
    with pytest.raises(SiteError, match=r"twice(.|\n)*fires 2 times"):
        inject(Picky(good=True), layers=["good", "twice"], source_spec=WORDS)


def test_without_any_good_site_the_first_failure_is_the_error() -> None:
    with pytest.raises(SiteError, match=r"ignored(.|\n)*ignores this output"):
        inject(Picky(good=False), layers="paper", source_spec=WORDS)


def test_a_model_of_one_piece_asks_for_layers() -> None:
    class Piece(Picky):
        __module__ = "timm.models.picky"

        def __init__(self) -> None:
            super().__init__(good=True)
            self.feature_info = []

    with pytest.raises(SelectionError, match="fix: name the modules"):
        inject(Piece(), layers="paper", source_spec=WORDS)


def test_dual_models_say_which_tower_to_pass() -> None:
    class Dual(nn.Module):
        input_modalities = ("image", "text")

    with pytest.raises(AdapterError, match=r"two modalities(.|\n)*fix: pass the tower"):
        find(Dual())


@pytest.mark.parametrize(
    ("mask", "kept"),
    [
        (None, None),
        ([[1, 1, 0, 0]], [[1, 1, 0, 0]]),
        ([[1] * 9], None),  # another length, but nothing is hidden
    ],
)
def test_masks_of_models_without_a_row(mask: Any, kept: Any) -> None:
    given = {} if mask is None else {"attention_mask": torch.tensor(mask)}
    read = token_mask(nn.Identity(), (), given, torch.zeros(1, 4, 2))
    assert (None if read is None else read.tolist()) == kept


def test_a_mask_that_the_model_outgrows_is_refused() -> None:
    hides = {"attention_mask": torch.tensor([[1] * 8 + [0]])}
    with pytest.raises(SourceError, match="SourceFeatures"):
        token_mask(nn.Identity(), (), hides, torch.zeros(1, 4, 2))


def test_input_channels_are_those_of_the_first_convolution() -> None:
    with torch.device("meta"):
        grey, odd = timm.create_model("resnet10t", in_chans=1), timm.create_model("csatv2")
    assert inputs.image_channels(grey) == 1
    assert inputs.image_channels(odd) == 3  # its first convolution stands behind a transform


def test_space_folded_into_channels_is_no_channel_of_an_image() -> None:
    with torch.device("meta"):
        assert inputs.image_channels(timm.create_model("tresnet_m")) == 3


@pytest.mark.parametrize("name", ["T5ForSequenceClassification", "BertModel", "GPT2Model"])
def test_an_example_text_ends_once(name: str) -> None:
    model = tiny_hf.build(name)
    ids = inputs.hf_text(model)[1]["input_ids"]
    end = model.config.eos_token_id
    assert ids.eq(-1 if end is None else end).sum(1).tolist() == [0 if end is None else 1] * 2


@pytest.mark.parametrize(
    ("name", "main", "shape"),
    [
        ("VideoMAEModel", "pixel_values", (2, 16, 3, 64, 64)),
        ("VJEPA2Model", "pixel_values_videos", (2, 4, 3, 32, 32)),
        ("Idefics3VisionTransformer", "pixel_values", (2, 3, 64, 64)),  # calls its main input input_ids
        ("CLIPForImageClassification", "pixel_values", (2, 3, 64, 64)),  # its configuration is that of the pair
        ("Siglip2VisionModel", "pixel_values", (2, 256, 768)),  # flat patches
        ("GraniteSpeech5Encoder", "input_features", (2, 64, 320)),  # bins stacked
        ("GlmAsrEncoder", "input_features", (2, 128, 128)),
        ("FunAsrNanoEncoder", "input_features", (2, 64, 560)),  # frames stacked
        ("CohereAsrModel", "input_features", (2, 64, 128)),  # the mel bins of its encoder
    ],
)
def test_example_inputs_read_the_configuration(name: str, main: str, shape: tuple[int, ...]) -> None:
    assert inputs.hf_any(tiny_hf.build(name))[1][main].shape == shape


@pytest.mark.parametrize(
    ("name", "root"),
    [
        ("CLIPForImageClassification", "vision_model"),
        ("SiglipForImageClassification", "vision_model"),
        ("ParakeetForCTC", "encoder"),
        ("T5ForConditionalGeneration", ""),  # its encoder alone is not called with its inputs
    ],
)
def test_a_head_that_names_no_base_stands_on_a_tower(name: str, root: str) -> None:
    match = find(tiny_hf.build(name))
    assert match is not None
    assert match.root == root


def test_a_wrapped_timm_model_has_its_own_sites() -> None:
    me = inject(tiny_hf.build("TimmWrapperForImageClassification"), layers="paper", source_spec=WORDS)
    assert [site.path for site in me.sites] == [f"timm_model.layer{number}" for number in range(1, 5)]


def test_a_pair_that_says_it_reads_images_only_is_a_pair() -> None:
    with pytest.raises(AdapterError, match=r"fix: pass the tower(.|\n)*vision_model"):
        find(tiny_hf.build("Aimv2Model"))


def test_several_hidden_states_a_token_are_no_map() -> None:
    with pytest.raises(LayoutError, match=r"several hidden states(.|\n)*fix: choose a module inside"):
        inject(tiny_hf.build("DeepseekV4Model"), layers="paper", source_spec=WORDS)


def test_the_class_token_of_coca_is_real() -> None:
    tower, (args, _) = TINY["clip_text/coca"].build(), TINY["clip_text/coca"].inputs(2, 0)
    me = inject(TINY["resnet"].build(), layers="paper", source_encoder=tower)
    features = me.encode(args[0])
    assert features.mask is not None
    assert features.mask.shape == features.data.shape[:2] == (2, args[0].shape[1] + 1)
    assert features.mask[:, -1].all()
    assert not features.mask[1, -2]
