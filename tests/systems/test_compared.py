"""What holds for every compared system: gradients, missing modalities, learning rates, options, what does not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from compared_systems import NAMES, batch, built
from torch import nn

from mi2p_inject.recipes.config import make_config
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.encoders.load import load_encoder
from mi2p_inject.recipes.encoders.preprocess import ImageSpec, TextSpec
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.systems import SYSTEMS
from mi2p_inject.recipes.systems.compared.image_grid import ImageGrid
from mi2p_inject.recipes.systems.compared.text_stream import TextStream


@pytest.mark.parametrize("name", NAMES)
class TestEverySystem:
    def test_gradients_reach_every_parameter_that_trains(self, name: str) -> None:
        model = built(name).train()
        output = model(**batch([True] * 4, [True] * 4), labels=torch.tensor([0, 1, 2, 1]))
        assert output["logits"].shape == (4, 3)
        output["loss"].backward()
        lacking = [
            name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
        ]
        assert lacking == []

    def test_several_labels(self, name: str) -> None:
        model = built(name, multi_label=True)
        output = model(**batch([True] * 2, [True] * 2), labels=torch.tensor([[1, 0, 1], [0, 0, 0]]))
        assert output["logits"].shape == (2, 3)
        assert output["loss"].isfinite()

    def test_rows_are_as_if_alone_whatever_is_missing(self, name: str) -> None:
        model = built(name)
        whole = batch([True, False, True, True, False], [True, True, False, True, False])
        with torch.no_grad():
            logits = model(**whole)["logits"]
            assert logits.isfinite().all()
            for row in range(5):
                alone = model(**{key: value[row : row + 1] for key, value in whole.items()})["logits"]
                assert (alone[0] - logits[row]).abs().max() < 1e-10

    def test_what_is_missing_has_no_effect_and_what_is_there_has(self, name: str) -> None:
        model = built(name)
        given = batch([True, True, False], [True, False, False])
        with torch.no_grad():
            logits = model(**given)["logits"]
            other = {**given, "pixel_values": given["pixel_values"] + 1, "input_ids": given["input_ids"] + 1}
            other["attention_mask"] = torch.ones_like(given["attention_mask"])
            changed = model(**other)["logits"]
            assert torch.equal(logits[2], changed[2])
            assert not torch.allclose(logits[0], changed[0])
            text = model(**{**given, "input_ids": other["input_ids"]})["logits"]
            assert not torch.allclose(logits[0], text[0])
            assert torch.equal(logits[1:], text[1:])
            image = model(**{**given, "pixel_values": other["pixel_values"]})["logits"]
            assert not torch.allclose(logits[:2], image[:2])
            assert torch.equal(logits[2], image[2])

    def test_a_training_whose_samples_lack_everything(self, name: str) -> None:
        model = built(name).train()
        for there in ([True, False, False], [False, False, False]):
            model.zero_grad()
            model(**batch(there, there[::-1]), labels=torch.tensor([0, 1, 2]))["loss"].backward()
            assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())

    def test_learning_rates(self, name: str) -> None:
        groups = built(name).parameter_groups()
        assert set(groups.values()) == {"new"}  # random encoders
        model = built(name, vision="demo", text="demo")
        groups = model.parameter_groups()
        assert groups.keys() == {name for name, _ in model.named_parameters()}
        for key, group in groups.items():
            start = ".".join(key.split(".")[:2])
            assert group == {"image.network": "image", "text.network": "text"}.get(start, "new"), key

    def test_only_what_is_new_trains(self, name: str) -> None:
        trained = {key for key, p in built(name, trainable="units").named_parameters() if p.requires_grad}
        assert trained
        assert not any(".network." in key for key in trained)

    def test_a_mistyped_option(self, name: str) -> None:
        assert make_config({"data": "-", "model": name}).model.system == SYSTEMS[name]
        with pytest.raises(RecipeError, match="has no option 'nothing'"):
            make_config({"data": "-", "model": name, "system_options": {"nothing": 1}})
        for option in SYSTEMS[name].options():
            with pytest.raises(RecipeError, match=f"has no option '{option}s'\\n.*\\n.*\\n.*did you mean '{option}'"):
                make_config({"data": "-", "model": name, f"system_options.{option}s": 1})
            with pytest.raises(RecipeError, match=f"system_options.{option}=.* has the wrong type"):
                make_config({"data": "-", "model": name, "system_options": {option: [1]}})


def test_a_mistyped_name() -> None:
    for name in NAMES:
        for given in (name[:-1], name.upper()):
            with pytest.raises(RecipeError, match=f"did you mean '{name}'"):
                make_config({"data": "-", "model": given})


def test_a_fusion_named_as_a_model_and_a_model_as_a_fusion() -> None:
    with pytest.raises(RecipeError, match=r"(?s)gmu is a fusion, not a model.*model=late-fusion with fusion=gmu"):
        make_config({"data": "-", "model": "gmu"})
    with pytest.raises(RecipeError, match=r"(?s)mmbt is a model, not a fusion.*model=mmbt"):
        make_config({"data": "-", "model": "late-fusion", "fusion": "mmbt"})


@pytest.mark.parametrize(("name", "option"), [("centralnet", "beta"), ("interbert", "matching_weight")])
def test_a_weight_that_is_infinite(name: str, option: str) -> None:
    for value in (float("inf"), float("nan"), -1.0):
        with pytest.raises(RecipeError, match="out of range"):
            make_config({"data": "-", "model": name, f"system_options.{option}": value})


def test_a_system_without_options() -> None:
    with pytest.raises(RecipeError, match="no options of its own"):
        make_config({"data": "-", "model": "vision", "system_options": {"width": 3}})


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("mmbt", {"text": "tiny:xlnet"}, "XLNetModel"),
    *(
        (name, {"text": "tiny:clip"}, "name another --text")
        for name in ("mmbt", "visualbert", "pixelbert", "interbert")
    ),
]


@pytest.mark.parametrize(("name", "encoders", "message"), WRONG)
def test_encoders_that_do_not_fit(name: str, encoders: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        built(name, **encoders)


def test_an_image_encoder_without_a_map() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 16, 16), nn.Flatten(2))
    spec = ImageSpec((64, 64), (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(RecipeError, match="gives no map") as error:
        ImageGrid(Encoder(network, "image", spec, {"library": "timm", "name": "flat"}))
    assert "densenet121" in str(error.value)


def test_a_picture_encoder_of_patches_fits() -> None:
    model: Any = built("visualbert", vision="tiny:vit")
    assert model.image.grid == (4, 4)


def test_token_types_where_they_are_needed_only() -> None:
    tokenizer = load_encoder("tiny", "text").spec.tokenizer  # type: ignore[union-attr]
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.RobertaConfig(vocab_size=len(tokenizer), type_vocab_size=1, **sizes)
    origin = {"library": "transformers", "name": "roberta"}
    encoder = Encoder(transformers.RobertaModel(config), "text", TextSpec(tokenizer, 20), origin)
    assert TextStream(encoder).width == 24
    with pytest.raises(RecipeError, match="two token types"):
        TextStream(encoder, segments=True)
    words = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, pad_token="[PAD]")
    with pytest.raises(RecipeError, match=r"between \[CLS\] and \[SEP\]"):
        TextStream(Encoder(encoder.model, "text", TextSpec(words, 20), origin))
    config.is_decoder = True
    with pytest.raises(RecipeError, match="is a decoder"):
        TextStream(encoder)
    config.is_decoder = False
    tokenizer.padding_side = "left"
    with pytest.raises(RecipeError, match="pads on the left"):
        TextStream(encoder)
    tokenizer.padding_side = "right"


@pytest.mark.parametrize("name", ["mmbt", "visualbert", "pixelbert", "interbert"])
def test_a_text_longer_than_the_encoder_s_positions(name: str) -> None:
    given = batch([True], [True])
    long = {key: given[key].repeat(1, 60) for key in ("input_ids", "attention_mask")}
    with pytest.raises(RecipeError, match="at most 512 tokens"):
        built(name)(**{**given, **long})
