"""Model folders as they are found: half precision, without tokenizer, weights of another model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from encoder_files import BERT, change
from safetensors.torch import load_file, save_file

from mi2p_inject.core.errors import Mi2pError
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.encoders.load import load_encoder
from mi2p_inject.recipes.errors import RecipeError

VIT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "image_size": 32}


def bert_folder(folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    transformers.BertModel(transformers.BertConfig(**BERT)).to(dtype).save_pretrained(folder)
    load_encoder("tiny:bert", "text").spec.tokenizer.save_pretrained(folder)
    return folder


def vit_folder(folder: Path, dtype: torch.dtype) -> Path:
    transformers.ViTModel(transformers.ViTConfig(**VIT)).to(dtype).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def hf_clip_folder(folder: Path, dtype: torch.dtype) -> Path:
    tokenizer = load_encoder("tiny:bert", "text").spec.tokenizer
    text = {**BERT, "vocab_size": len(tokenizer), "eos_token_id": tokenizer.sep_token_id, "max_position_embeddings": 20}
    config = transformers.CLIPConfig(vision_config={**VIT, "patch_size": 16}, text_config=text)
    transformers.CLIPModel(config).to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    return folder


def timm_folder(folder: Path, dtype: torch.dtype, safe: bool = True) -> Path:
    model = timm.create_model("test_resnet", num_classes=7).to(dtype)
    timm.models.save_for_hf(model, folder, safe_serialization=safe)
    return folder


def open_clip_folder(folder: Path, dtype: torch.dtype) -> Path:
    import open_clip

    cfg = load_encoder("tiny:clip", "text").origin["model_cfg"]
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": cfg}))
    state = {name: value.to(dtype) for name, value in open_clip.CustomTextCLIP(**cfg).state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder


FOLDERS = {
    ("transformers", "text"): bert_folder,
    ("transformers", "image"): vit_folder,
    ("transformers-clip", "text"): hf_clip_folder,
    ("transformers-clip", "image"): hf_clip_folder,
    ("timm", "image"): timm_folder,
    ("open_clip", "image"): open_clip_folder,
    ("open_clip", "text"): open_clip_folder,
}


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next(folder.glob("*.safetensors")))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize(("kind", "modality"), FOLDERS)
@pytest.mark.fault(
    "folders", "an encoder's folder in bf16 or fp16, vision, text or source", "trained in float32; `precision` decides"
)
def test_any_precision_is_read_as_float32(kind: str, modality: Any, dtype: torch.dtype, tmp_path: Path) -> None:
    folder = FOLDERS[kind, modality](tmp_path / "model", dtype)
    encoder = load_encoder(str(folder), modality)
    tensors = {name: value for name, value in encoder.model.state_dict().items() if value.is_floating_point()}
    assert {value.dtype for value in tensors.values()} == {torch.float32}
    values = [value.float() for value in stored(folder).values()]
    for name, value in list(tensors.items())[:3]:  # the very numbers of the file
        assert any(value.shape == one.shape and torch.equal(value, one) for one in values), name
    trains(encoder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
@pytest.mark.parametrize(("kind", "modality"), FOLDERS)
@pytest.mark.fault("folders", "an encoder's folder with weights that are nan or infinite", "RecipeError")
def test_weights_that_are_no_numbers(kind: str, modality: Any, value: float, tmp_path: Path) -> None:
    folder = FOLDERS[kind, modality](tmp_path / "model", torch.float32)
    path = next(folder.glob("*.safetensors"))
    tensors = load_file(path)
    for tensor in tensors.values():
        if tensor.is_floating_point() and tensor.dim() > 1:
            tensor.view(-1)[-1] = value
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(RecipeError, match=r"no numbers[\s\S]*nan or infinity in"):
        load_encoder(str(folder), modality)


def trains(encoder: Encoder) -> None:
    """One step with an optimizer, as the training takes it."""
    batch = encoder.example(2)
    inputs = encoder.inputs(batch)
    encoder.model.train()
    output = encoder.model(**inputs) if isinstance(inputs, dict) else encoder.model(inputs)
    encoder.vector(output, batch).sum().backward()
    torch.optim.AdamW([one for one in encoder.model.parameters() if one.grad is not None]).step()


class TestTokenizer:
    @pytest.mark.fault("folders", "a text model's folder without a tokenizer", "RecipeError")
    def test_none(self, tmp_path: Path) -> None:
        transformers.BertModel(transformers.BertConfig(**BERT)).save_pretrained(tmp_path)
        with pytest.raises(RecipeError, match=r"has no tokenizer[\s\S]*save_pretrained"):
            load_encoder(str(tmp_path), "text")

    @pytest.mark.parametrize("words", [[], ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]])
    @pytest.mark.fault("folders", "a tokenizer that knows no word", "an error of ours")
    def test_one_that_knows_no_word(self, words: list[str], tmp_path: Path) -> None:
        transformers.BertModel(transformers.BertConfig(**BERT)).save_pretrained(tmp_path)
        (tmp_path / "vocab.txt").write_text("\n".join(words))
        with pytest.raises(Mi2pError):
            load_encoder(str(tmp_path), "text")

    def test_its_configuration_without_a_vocabulary(self, tmp_path: Path) -> None:
        bert_folder(tmp_path)
        (tmp_path / "tokenizer.json").unlink()
        with pytest.raises(Mi2pError):
            load_encoder(str(tmp_path), "text")

    def test_of_an_open_clip_tower(self, tmp_path: Path) -> None:
        folder = open_clip_folder(tmp_path / "clip", torch.float32)
        change(
            folder / "open_clip_config.json", lambda value: value["model_cfg"]["text_cfg"].update(hf_tokenizer_name="x")
        )
        with pytest.raises(RecipeError, match="has no tokenizer"):
            load_encoder(str(folder), "text")
        assert load_encoder(str(folder), "image").width == 32

    def test_a_character_vocabulary_is_one(self, tmp_path: Path) -> None:
        letters = [mark + letter for mark in ("", "##") for letter in "abcdefghijklmnopqrstuvwxyz"]
        vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
        transformers.BertModel(transformers.BertConfig(**{**BERT, "vocab_size": 57})).save_pretrained(tmp_path)
        (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
        assert load_encoder(str(tmp_path), "text").spec(["ab"])["input_ids"].shape == (1, 4)


class TestWeights:
    @pytest.mark.fault("folders", "weights of another model than the configuration's", "RecipeError")
    def test_of_another_model(self, tmp_path: Path) -> None:
        folder = bert_folder(tmp_path / "bert")
        state = {f"other.{name}": value for name, value in stored(folder).items()}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(RecipeError, match=r"lack \d+ tensors of BertModel"):
            load_encoder(str(folder), "text")

    def test_a_model_with_a_head_is_one(self, tmp_path: Path) -> None:
        folder = bert_folder(tmp_path / "bert")
        model = transformers.BertForSequenceClassification(transformers.BertConfig(**BERT))
        model.save_pretrained(folder)
        found = load_encoder(str(folder), "text").model
        assert torch.equal(found.embeddings.word_embeddings.weight, model.bert.embeddings.word_embeddings.weight)

    @pytest.mark.parametrize(("kind", "modality"), [("timm", "image"), ("open_clip", "image"), ("open_clip", "text")])
    def test_of_another_model_of_other_libraries(self, kind: str, modality: Any, tmp_path: Path) -> None:
        folder = FOLDERS[kind, modality](tmp_path / "model", torch.float32)
        file = next(folder.glob("*.safetensors"))
        save_file({f"other.{name}": value for name, value in load_file(file).items()}, file)
        with pytest.raises(Mi2pError, match="cannot load"):
            load_encoder(str(folder), modality)

    def test_none(self, tmp_path: Path) -> None:
        folder = bert_folder(tmp_path / "bert")
        (folder / "model.safetensors").unlink()
        with pytest.raises(Mi2pError, match=r"has no weights[\s\S]*pretrained=false"):
            load_encoder(str(folder), "text")
        assert load_encoder(str(folder), "text", pretrained=False).random

    def test_a_pickle_beside_safetensors_is_not_read(self, tmp_path: Path) -> None:
        folder = timm_folder(tmp_path, torch.float32)
        (folder / "pytorch_model.bin").write_bytes(b"never read")
        assert (
            load_encoder(str(folder), "image").width
            == load_encoder("timm:test_resnet", "image", pretrained=False).width
        )

    @pytest.mark.fault("X1", "a model folder whose only weights are a pickle", "an error that says how to convert")
    def test_a_pickle_alone(self, tmp_path: Path) -> None:
        folder = timm_folder(tmp_path, torch.float32, safe=False)
        assert (folder / "pytorch_model.bin").exists()
        with pytest.raises(Mi2pError, match=r"pytorch_model.bin may run code[\s\S]*writes safetensors"):
            load_encoder(str(folder), "image")

    @pytest.mark.fault("folders", "a weights file that ends early", "an error of ours")
    def test_torn(self, tmp_path: Path) -> None:
        folder = bert_folder(tmp_path / "bert")
        data = (folder / "model.safetensors").read_bytes()
        for torn in (data[: len(data) // 2], data[:20], b""):
            (folder / "model.safetensors").write_bytes(torn)
            with pytest.raises(Mi2pError, match="cannot load"):
                load_encoder(str(folder), "text")

    @pytest.mark.fault("folders", "quantised weights", "an error of ours")
    def test_quantised(self, tmp_path: Path) -> None:
        folder = bert_folder(tmp_path / "bert")
        change(
            folder / "config.json", lambda value: value.update(quantization_config={"quant_method": "gptq", "bits": 4})
        )
        with pytest.raises(Mi2pError, match="quantised"):
            load_encoder(str(folder), "text")

    @pytest.mark.fault("folders", "integers in the place of weights, or scales beside them", "an error of ours")
    @pytest.mark.parametrize("how", ["integers", "scales"])
    def test_quantised_and_the_configuration_does_not_say_so(self, how: str, tmp_path: Path) -> None:
        folder = bert_folder(tmp_path / "bert")
        state = load_file(folder / "model.safetensors")
        name = "encoder.layer.0.output.dense.weight"
        if how == "integers":
            state[name] = (100 * state[name]).to(torch.int8)
        else:
            state |= {name: state[name].to(torch.float8_e4m3fn), f"{name}_scale_inv": torch.ones(1)}
        save_file(state, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(Mi2pError, match=r"quantised[\s\S]*output.dense.weight"):
            load_encoder(str(folder), "text")

    @pytest.mark.parametrize("kind", ["torn", "other shapes", "another head"])
    def test_advice_on_a_folder_is_about_its_files(self, kind: str, tmp_path: Path) -> None:
        if kind == "another head":
            folder = timm_folder(tmp_path / "timm", torch.float32)
            state = load_file(folder / "model.safetensors")
            save_file({**state, "fc.weight": state["fc.weight"][:3].clone()}, folder / "model.safetensors")
        else:
            folder = bert_folder(tmp_path / "bert")
        if kind == "torn":
            data = (folder / "model.safetensors").read_bytes()
            (folder / "model.safetensors").write_bytes(data[:-9])
        elif kind == "other shapes":
            change(folder / "config.json", lambda value: value.update(max_position_embeddings=9))
        with pytest.raises(Mi2pError, match="cannot load") as error:
            load_encoder(str(folder), "image" if kind == "another head" else "text")
        assert "copy the folder again" in (error.value.fix or "")
        assert "check the name" not in str(error.value)
        assert kind != "another head" or "size mismatch for" in str(error.value)

    def test_in_several_files(self, tmp_path: Path) -> None:
        folder = bert_folder(tmp_path / "bert")
        model = transformers.BertModel.from_pretrained(folder)
        shutil.rmtree(folder)
        bert_folder(folder)
        (folder / "model.safetensors").unlink()
        model.save_pretrained(folder, max_shard_size="100KB")
        assert len(list(folder.glob("model-*.safetensors"))) > 1
        found = load_encoder(str(folder), "text").model
        assert all(torch.equal(a, b) for a, b in zip(found.parameters(), model.parameters(), strict=True))
        change(
            folder / "model.safetensors.index.json", lambda value: value["weight_map"].update(x="../other.safetensors")
        )
        with pytest.raises(Mi2pError, match="names files that are not in the folder"):
            load_encoder(str(folder), "text")
