"""Run folders whose numbers ask for more than their files hold: refused while the model is built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from encoder_files import canary, change, saved

from mi2p_inject.recipes.encoders.saved import rebuild_encoder
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["canary"]


@pytest.fixture(autouse=True)
def few_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no test waits for what the limit allows."""
    monkeypatch.setattr("mi2p_inject.core.model_folder.limits.MOST_MODULES", 1000)


SHALLOW = {"depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]}


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("AlbertModel", {"num_hidden_groups": 2**24, "inner_group_num": 2**24, "embedding_size": 8}),  # for ever
        (
            "GPTNeoModel",
            {
                "num_layers": 1,
                "num_heads": 1,
                "attention_types": [[["global"], 1]],
                "max_position_embeddings": 2**16,
            },
        ),  # a mask of 4 GB
        ("BertModel", {"max_position_embeddings": 2**22}),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
@pytest.mark.fault(
    "X1", "a configuration whose numbers ask for millions of modules, or giant masks", "RecipeError at once"
)
def test_models_that_grow(kind: str, how: dict[str, Any], tmp_path: Path, canary: Path) -> None:
    folder = saved("bert", "text", tmp_path / "encoder", canary)
    size = 4 * sum(one.numel() for one in rebuild_encoder(folder, "text").model.parameters())
    change(folder / "encoder.json", lambda value: value["origin"].update({"class": kind, "kwargs": {}}))
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1}
    model_type = kind.removesuffix("Model").lower().replace("gptneo", "gpt_neo")
    config = {"model_type": model_type, "vocab_size": 30522, **sizes, **how}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(RecipeError, match=r"larger than its weights|more modules than any"):
        rebuild_encoder(folder, "text", max_bytes=size)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("densenet121", {"block_config": [1024] * 1024, "growth_rate": 1}),
        ("swin_tiny_patch4_window7_224", {"img_size": 512, "window_size": 128, "embed_dim": 8, **SHALLOW}),
    ],
)
def test_timm_models_that_grow(name: str, kwargs: dict[str, Any], tmp_path: Path, canary: Path) -> None:
    folder = saved("vit", "image", tmp_path / "encoder", canary)
    change(folder / "encoder.json", lambda value: value["origin"].update(name=name, kwargs=kwargs))
    with pytest.raises(RecipeError, match=r"larger than its weights|more modules than any"):
        rebuild_encoder(folder, "image", max_bytes=2**24)


@pytest.mark.parametrize(
    "added",
    [
        {"tokenizer_class": "T5Tokenizer", "extra_ids": 2**24},
        {"tokenizer_class": "PegasusTokenizer", "offset": 2**24},
        {"tokenizer_class": "ByT5Tokenizer", "extra_ids": 2**24},
    ],
    ids=lambda added: added["tokenizer_class"],
)
@pytest.mark.fault("X1", "a tokenizer that makes millions of tokens of a number", "RecipeError at once")
def test_tokenizers_that_grow(added: dict[str, Any], tmp_path: Path, canary: Path) -> None:
    folder = saved("bert", "text", tmp_path / "encoder", canary)
    change(folder / "tokenizer_config.json", lambda value: value.update(added))
    with pytest.raises(RecipeError, match="is out of range"):
        rebuild_encoder(folder, "text")


@pytest.mark.parametrize(
    "step",
    [
        {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10},
        {"type": "Replace", "pattern": {"Regex": ""}, "content": "aaaaaaaaa"},
        {"type": "Prepend", "prepend": "a " * 1000},
    ],
    ids=["replace", "regex", "prepend"],
)
@pytest.mark.fault("X1", "a tokenizer.json that makes a book of each letter", "RecipeError; no memory is taken")
def test_texts_that_grow(step: dict[str, Any], tmp_path: Path, canary: Path) -> None:
    folder = saved("bert", "text", tmp_path / "encoder", canary)
    bomb = {"type": "Sequence", "normalizers": [step] * 6}
    change(folder / "tokenizer.json", lambda value: value.update(normalizer=bomb))
    plain = {"tokenizer_class": "PreTrainedTokenizerFast"}  # BERT's own makes its normaliser anew
    change(folder / "tokenizer_config.json", lambda value: value.update(plain))
    with pytest.raises(RecipeError, match="grow beyond reason"):
        rebuild_encoder(folder, "text")


@pytest.mark.parametrize(
    ("kind", "modality", "how"),
    [
        ("resnet", "image", {"size": [224, 224], "crop_pct": 0.011}),  # resized to 20,000 pixels first
        ("resnet", "image", {"size": [8192, 8192], "crop_pct": 0.9}),
        ("clip", "text", {"max_length": 2**30}),
        ("clip", "text", {"fixed": False}),
        ("bert", "text", {"max_length": 2**40}),
        ("bert", "text", {"fixed": True}),
    ],
)
@pytest.mark.fault(
    "X1", "an encoder.json that asks for giant pictures or texts, or those of another library", "RecipeError"
)
def test_inputs_that_grow(kind: str, modality: Any, how: dict[str, Any], tmp_path: Path, canary: Path) -> None:
    folder = saved(kind, modality, tmp_path / "encoder", canary)
    change(folder / "encoder.json", lambda value: value[modality].update(how))
    with pytest.raises(RecipeError, match=f"cannot rebuild the {modality} encoder"):
        rebuild_encoder(folder, modality)
