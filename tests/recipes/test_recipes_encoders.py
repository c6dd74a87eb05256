"""Encoders: from every kind of name or folder, with the preprocessing they were trained with, and back from a run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

from mi2p_inject.core.errors import Mi2pError
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.encoders.load import load_encoder
from mi2p_inject.recipes.encoders.preprocess import ImageSpec, TextSpec
from mi2p_inject.recipes.encoders.saved import rebuild_encoder, save_encoder
from mi2p_inject.recipes.encoders.tiny import TINY
from mi2p_inject.recipes.errors import RecipeError

_NOISE = np.random.default_rng(0).integers(0, 255, (5, 4, 3)).astype(np.uint8)
PICTURE = Image.fromarray(_NOISE).resize((70, 90), Image.Resampling.BICUBIC)  # smooth: one pixel aside is much the same
TEXTS = ["a red apple", "", "a much longer text about a very small green pear"]


def batch_of(encoder: Encoder) -> dict[str, torch.Tensor]:
    if isinstance(encoder.spec, ImageSpec):
        return {"pixel_values": torch.stack([encoder.spec.transform()(PICTURE), encoder.spec.blank()])}
    return encoder.spec(TEXTS)


def vectors(encoder: Encoder) -> torch.Tensor:
    batch = batch_of(encoder)
    inputs = encoder.inputs(batch)
    with torch.no_grad():
        output = encoder.model(**inputs) if isinstance(inputs, dict) else encoder.model(inputs)
    return encoder.vector(output, batch)


def survives_a_run_folder(encoder: Encoder, folder: Path) -> None:
    save_encoder(encoder, folder)
    again = rebuild_encoder(folder, encoder.modality)
    again.model.load_state_dict(encoder.model.state_dict())
    assert torch.equal(vectors(again), vectors(encoder))
    assert (again.name, again.width, again.pooling) == (encoder.name, encoder.width, encoder.pooling)
    assert not [path for path in folder.rglob("*") if path.suffix in (".bin", ".pt", ".pkl", ".pth")]


@pytest.mark.parametrize(("kind", "modality"), TINY)
def test_tiny(kind: str, modality: Any, tmp_path: Path) -> None:
    encoder = load_encoder(f"tiny:{kind}", modality)
    found = vectors(encoder)
    assert found.shape == (2 if modality == "image" else 3, encoder.width)
    assert "random" in encoder.name
    survives_a_run_folder(encoder, tmp_path / "encoder")


def test_a_shuffled_minilm_has_its_values_in_another_order() -> None:
    own, other = (
        dict(load_encoder(name, "text").model.named_parameters()) for name in ("demo", "tiny:minilm-shuffled")
    )
    assert own.keys() == other.keys()
    for name, weight in own.items():
        assert torch.equal(weight.flatten().sort().values, other[name].flatten().sort().values)
        assert not torch.equal(weight, other[name]) or weight.unique().numel() == 1


@pytest.mark.parametrize("kind", ["densenet", "resnet", "vit", "clip"])
def test_another_image_size(kind: str) -> None:
    encoder = load_encoder(f"tiny:{kind}", "image", image_size=32)
    assert encoder.spec.blank().shape == (3, 32, 32)
    assert vectors(encoder).shape == (2, encoder.width)


@pytest.mark.parametrize("modality", ["image", "text"])
def test_demo(modality: Any, tmp_path: Path) -> None:
    encoder = load_encoder("demo", modality)
    assert "random" not in encoder.name
    survives_a_run_folder(encoder, tmp_path / "encoder")


def test_the_demo_text_encoder_takes_the_mean_of_its_tokens() -> None:
    encoder = load_encoder("demo", "text")
    batch = encoder.spec(TEXTS)
    with torch.no_grad():
        hidden = encoder.model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    assert torch.allclose(vectors(encoder), (hidden * mask).sum(1) / mask.sum(1), atol=1e-6)


def test_a_folder_of_transformers(tmp_path: Path) -> None:
    tokenizer = load_encoder("tiny:bert", "text").spec.tokenizer
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24
    )
    model = transformers.BertModel(config).eval()
    model.save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    encoder = load_encoder(str(tmp_path / "bert"), "text", max_length=6)
    assert encoder.spec(TEXTS)["input_ids"].shape == (3, 6)
    with torch.no_grad():
        assert torch.equal(vectors(encoder), model(**encoder.spec(TEXTS)).pooler_output)
    survives_a_run_folder(encoder, tmp_path / "encoder")
    with pytest.raises(RecipeError, match="exchange --vision and --text"):
        load_encoder(str(tmp_path / "bert"), "image")


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "XLMRoberta", "Camembert", "MPNet", "Albert", "Longformer"])
def test_a_pooler_that_the_weights_lack_is_left_out(kind: str, tmp_path: Path) -> None:
    tokenizer = load_encoder("tiny:bert", "text").spec.tokenizer
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    ids = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "max_position_embeddings": 40}
    config = getattr(transformers, f"{kind}Config")(**sizes, **ids)
    getattr(transformers, f"{kind}ForMaskedLM")(config).save_pretrained(tmp_path / "folder")
    tokenizer.save_pretrained(tmp_path / "folder")
    encoder, again = (load_encoder(str(tmp_path / "folder"), "text", max_length=6) for _ in range(2))
    assert not any("pooler" in name for name, _ in encoder.model.named_parameters())
    assert torch.equal(vectors(encoder), vectors(again))
    if encoder.pooling == "bert":  # others take the mean of all tokens
        with torch.no_grad():
            hidden = encoder.model(**encoder.spec(TEXTS)).last_hidden_state
        assert torch.equal(vectors(encoder), hidden[:, 0])
    survives_a_run_folder(encoder, tmp_path / "encoder")


@pytest.mark.parametrize("tower", ["image", "text"])
def test_a_tower_of_a_transformers_clip(tower: Any, tmp_path: Path) -> None:
    tiny = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2}
    tokenizer = load_encoder("tiny:bert", "text").spec.tokenizer
    ids = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.sep_token_id}
    config = transformers.CLIPConfig(
        vision_config={**tiny, "image_size": 32, "patch_size": 16},
        text_config={**tiny, **ids, "max_position_embeddings": 20},
    )
    transformers.CLIPModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(tmp_path)
    encoder = load_encoder(str(tmp_path), tower)
    assert type(encoder.model).__name__ == {"image": "CLIPVisionModel", "text": "CLIPTextModel"}[tower]
    assert vectors(encoder).shape[1] == 16


@pytest.mark.parametrize(
    "processor",
    [
        transformers.CLIPImageProcessor(size={"shortest_edge": 40}, crop_size=32),
        transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32, resample=2),
        transformers.ViTImageProcessor(size={"height": 32, "width": 48}),
        transformers.ViTImageProcessor(size={"height": 32, "width": 32}, do_normalize=False),
    ],
)
def test_pixels_are_those_of_transformers_own_processor(processor: Any) -> None:
    from mi2p_inject.recipes.encoders.transformers_encoder import processor_spec

    ours = processor_spec(processor, None).transform()(PICTURE)
    theirs = torch.as_tensor(np.asarray(processor(PICTURE, return_tensors="np")["pixel_values"][0]))
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().mean() < 0.2 * theirs.std()  # a crop may begin a pixel aside


def test_a_folder_of_timm(tmp_path: Path) -> None:
    model = timm.create_model("test_resnet", num_classes=7)
    model.pretrained_cfg["mean"] = (0.1, 0.2, 0.3)
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    encoder = load_encoder(str(tmp_path), "image", image_size=48)
    assert encoder.spec.mean == (0.1, 0.2, 0.3)
    assert torch.equal(encoder.model.layer1[0].conv1.weight, model.layer1[0].conv1.weight)
    assert vectors(encoder).shape == (2, model.num_features)
    survives_a_run_folder(encoder, tmp_path / "encoder")


def test_a_timm_name_with_random_weights() -> None:
    encoder = load_encoder("test_vit", "image", pretrained=False, image_size=96)
    assert encoder.random
    assert encoder.model.patch_embed.img_size == (96, 96)
    assert vectors(encoder).shape == (2, 64)


@pytest.mark.parametrize("tower", ["image", "text"])
def test_a_folder_of_open_clip(tower: Any, tmp_path: Path) -> None:
    import open_clip

    source = load_encoder("tiny:clip", tower)
    clip = open_clip.CustomTextCLIP(**source.origin["model_cfg"])
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": source.origin["model_cfg"]}))
    save_file(clip.state_dict(), tmp_path / "open_clip_model.safetensors")
    encoder = load_encoder(str(tmp_path), tower)
    expected = getattr(clip, {"image": "visual", "text": "text"}[tower]).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in encoder.model.state_dict().items())
    survives_a_run_folder(encoder, tmp_path / "encoder")


@pytest.mark.parametrize(
    ("name", "modality", "words"),
    [
        ("densnet121", "image", "densenet121"),
        ("bert-base-uncasd", "text", "closest are"),
        ("nobody/nothing", "text", "cannot load the text encoder"),
        ("tiny:bert", "image", "tiny:densenet"),
        ("open_clip:ViT-B-99", "text", "ViT-B-99"),
        ("./no-such-folder", "image", "no-such-folder"),
    ],
)
def test_names_that_stand_for_nothing(name: str, modality: Any, words: str) -> None:
    with pytest.raises(Mi2pError, match=words) as error:
        load_encoder(name, modality)
    assert str(error.value).count("fix: ") == 1


def test_a_damaged_description_is_named(tmp_path: Path) -> None:
    save_encoder(load_encoder("tiny:resnet", "image"), tmp_path / "encoder")
    (tmp_path / "encoder" / "encoder.json").write_text("{")
    with pytest.raises(RecipeError, match="cannot rebuild"):
        rebuild_encoder(tmp_path / "encoder", "image")


def test_a_class_that_is_no_model_is_not_called(tmp_path: Path) -> None:
    save_encoder(load_encoder("tiny:bert", "text"), tmp_path / "encoder")
    file = tmp_path / "encoder" / "encoder.json"
    file.write_text(file.read_text().replace("BertModel", "Trainer"))
    with pytest.raises(RecipeError, match="no model class"):
        rebuild_encoder(tmp_path / "encoder", "text")


def test_a_tokenizer_larger_than_the_model_is_named(tmp_path: Path) -> None:
    config = transformers.BertConfig(vocab_size=50, hidden_size=24, num_hidden_layers=1, num_attention_heads=2)
    transformers.BertModel(config).save_pretrained(tmp_path)
    load_encoder("tiny:bert", "text").spec.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match="more tokens than the model"):
        load_encoder(str(tmp_path), "text")


def test_a_text_without_any_token() -> None:
    class Words:  # a tokenizer without special tokens, reduced to its interface
        pad_token_id = 0

        def __call__(self, texts: list[str], **_: object) -> dict[str, torch.Tensor]:
            return {"input_ids": torch.zeros(len(texts), 0), "attention_mask": torch.zeros(len(texts), 0)}

    found = TextSpec(Words(), 8)(["", ""])
    assert found["input_ids"].tolist() == [[0], [0]]
    assert found["attention_mask"].tolist() == [[1], [1]]


@pytest.mark.parametrize("kind", [kind for kind, modality in TINY if modality == "text"])
def test_cut_texts_are_those_with_more_tokens_than_are_read(kind: str) -> None:
    """The oracle counts the tokens of the whole text."""
    spec = load_encoder(f"tiny:{kind}", "text").spec
    assert isinstance(spec, TextSpec)
    spec = replace(spec, max_length=spec.max_length if spec.fixed else 8)
    texts = ["pear " * count for count in range(spec.max_length + 4)] + [" ", "unbelievably!" * 9]

    def tokens(text: str) -> int:
        return len(spec.tokenizer.encode(text)) + 2 if spec.fixed else len(spec.tokenizer(text)["input_ids"])

    wanted = [tokens(text) > spec.max_length for text in texts]
    assert set(wanted) == {True, False}
    assert spec.cuts(texts) == wanted
