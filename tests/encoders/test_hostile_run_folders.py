"""Run folders that a stranger wrote: nothing in them runs on `mi2p predict`, names other files, or asks too much."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from encoder_files import AUTO_MAP, Change, canary, change, saved

from mi2p_inject.recipes.encoders.load import load_encoder
from mi2p_inject.recipes.encoders.saved import rebuild_encoder
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["canary"]


class TestRunFolder:
    """What `mi2p predict` reads of somebody's run folder."""

    @pytest.mark.parametrize("file", ["tokenizer_config.json", "config.json"])
    @pytest.mark.parametrize(
        "added",
        [
            {"auto_map": AUTO_MAP},
            {"trust_remote_code": True},
            {"_attn_implementation": "stranger/kernel"},
            {"attn_implementation": "stranger/kernel"},
            {"kernel_config": {"x": "stranger/kernel"}},
            {"_name_or_path_of_base_name_or_path": "stranger/model"},
            {"backbone": "resnet18", "use_pretrained_backbone": True},
            {"transformers_weights": "../../other.safetensors"},
            {"configuration_files": ["config.4.0.0.json"]},
            {"tokenizer_files": "/etc/passwd"},
            {"vocab_file": "/etc/passwd"},
            {"fast_tokenizer_files": ["tokenizer.4.0.0.json"]},
            {"init_inputs": ["/etc/passwd"]},
            {"sp_model_kwargs": {"model_file": "/etc/passwd"}},
            {"unheard_of": "https://stranger.example/x"},
            {"unheard_of": {"deeper": {"auto_map": AUTO_MAP}}},
            {"unheard_of": [{"auto_map": AUTO_MAP}]},
            {"unheard_of": [[{"deeper": [{"trust_remote_code": True}]}]]},
            {"unheard_of": [{"num_hidden_layers": 10**9}]},
            {"hidden_size": 10**9},
            {"num_hidden_layers": 10**9},
        ],
        ids=lambda added: next(iter(added)),
    )
    @pytest.mark.fault(
        "X1",
        "a tokenizer or configuration of a run folder with remote code, other files, unknown keys, giant sizes",
        "RecipeError; nothing runs",
    )
    def test_transformers(self, file: str, added: dict[str, Any], tmp_path: Path, canary: Path) -> None:
        folder = saved("bert", "text", tmp_path / "encoder", canary)
        change(folder / file, lambda value: value.update(added))
        with pytest.raises(RecipeError, match="cannot rebuild the text encoder"):
            rebuild_encoder(folder, "text")

    @pytest.mark.parametrize(
        "kwargs",
        [
            {"checkpoint_path": "weights.pth"},
            {"pretrained_cfg": {"file": "weights.pth"}},
            {"pretrained_cfg": {"url": "https://stranger.example/w.pth"}},
            {"pretrained_cfg_overlay": {"hf_hub_id": "stranger/model"}},
            {"pretrained": True},
            {"cache_dir": "/tmp"},
            {"features_only": True},
            {"scriptable": True},
            {"img_size": 10**9},
            {"depth": 10**9},
            {"img_size": "64"},
            {"act_layer": "evil.Act"},
            {"global_pool": "../evil"},
            {"unheard_of": 1},
        ],
        ids=lambda kwargs: next(iter(kwargs)),
    )
    @pytest.mark.fault(
        "X1",
        "an encoder.json whose arguments reach timm's create_model: checkpoint_path, url, pretrained …",
        "RecipeError; nothing is read or fetched",
    )
    def test_timm_arguments(self, kwargs: dict[str, Any], tmp_path: Path, canary: Path) -> None:
        folder = saved("vit", "image", tmp_path / "encoder", canary)
        change(folder / "encoder.json", lambda value: value["origin"]["kwargs"].update(kwargs))
        with pytest.raises(RecipeError, match="cannot rebuild the image encoder"):
            rebuild_encoder(folder, "image")

    @pytest.mark.parametrize(
        "name",
        ["hf-hub:stranger/model", "local-dir:/tmp", "hf_hub:a/b", "../vit", "/tmp/vit", "nothing", 7, None, ["vit"]],
    )
    @pytest.mark.fault("X1", "an encoder.json whose timm name is a path or a repository", "RecipeError")
    def test_timm_names(self, name: Any, tmp_path: Path, canary: Path) -> None:
        folder = saved("vit", "image", tmp_path / "encoder", canary)
        change(folder / "encoder.json", lambda value: value["origin"].update(name=name))
        with pytest.raises(RecipeError, match=r"is no timm architecture|name="):
            rebuild_encoder(folder, "image")

    @pytest.mark.parametrize(
        ("part", "added"),
        [
            ("text_cfg", {"tokenizer_kwargs": {"trust_remote_code": True}}),
            ("text_cfg", {"tokenizer_kwargs": {"bpe_path": "/etc/passwd"}}),
            ("text_cfg", {"tokenizer_kwargs": {"tokenizer_file": "/etc/passwd"}}),
            ("text_cfg", {"hf_model_name": "stranger/model"}),
            ("text_cfg", {"hf_model_name": "./encoder"}),
            ("text_cfg", {"unheard_of": "x"}),
            ("text_cfg", {"layers": 10**9}),
            ("vision_cfg", {"timm_model_name": "hf-hub:stranger/model"}),
            ("vision_cfg", {"timm_model_name": "local-dir:/tmp"}),
            ("vision_cfg", {"layers": 10**9}),
            ("vision_cfg", {"act_kwargs": {"auto_map": AUTO_MAP}}),
            (None, {"unheard_of": {}}),
            (None, {"cache_dir": "/tmp"}),
        ],
    )
    @pytest.mark.fault(
        "X1",
        "an encoder.json whose open_clip configuration has trust_remote_code, paths or unknown keys",
        "RecipeError; nothing runs",
    )
    def test_open_clip(self, part: str | None, added: dict[str, Any], tmp_path: Path, canary: Path) -> None:
        tower: Any = "image" if part == "vision_cfg" else "text"  # the other one's settings are not read
        folder = saved("clip", tower, tmp_path / "encoder", canary)

        def how(value: dict[str, Any]) -> None:
            cfg = value["origin"]["model_cfg"]
            (cfg[part] if part else cfg).update(added)

        change(folder / "encoder.json", how)
        with pytest.raises(RecipeError, match="cannot rebuild"):
            rebuild_encoder(folder, tower)

    @pytest.mark.fault(
        "X1",
        "trust_remote_code in tokenizer_kwargs, auto_map and a .py file beside it",
        "RecipeError; the .py file does not run",
    )
    def test_the_tokenizer_of_an_open_clip_tower(self, tmp_path: Path, canary: Path) -> None:
        """The way that ran: the wrapper's arguments switch remote code on, a tokenizer's auto_map names the file."""
        folder = saved("clip", "text", tmp_path / "encoder", canary)
        load_encoder("tiny:bert", "text").spec.tokenizer.save_pretrained(folder)
        config = {"auto_map": AUTO_MAP, "tokenizer_class": "Tokenizer"}
        change(folder / "tokenizer_config.json", lambda value: value.update(config))

        def how(value: dict[str, Any]) -> None:
            value["origin"]["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"trust_remote_code": True}

        change(folder / "encoder.json", how)
        with pytest.raises(RecipeError, match="auto_map"):
            rebuild_encoder(folder, "text")
        change(folder / "tokenizer_config.json", lambda value: value.pop("auto_map"))
        with pytest.raises(RecipeError, match=r"tokenizer_kwargs has fields[\s\S]*trust_remote_code"):
            rebuild_encoder(folder, "text")

    @pytest.mark.parametrize("name", ["Trainer", "AutoModel", "os.system", "pipeline", "PreTrainedModel", "__loader__"])
    @pytest.mark.fault("X1", "an encoder.json whose class is no model of transformers", "RecipeError")
    def test_classes(self, name: str, tmp_path: Path, canary: Path) -> None:
        folder = saved("bert", "text", tmp_path / "encoder", canary)
        change(folder / "encoder.json", lambda value: value["origin"].update({"class": name}))
        with pytest.raises(RecipeError, match="is no model class of transformers"):
            rebuild_encoder(folder, "text")

    @pytest.mark.parametrize(
        "how",
        [
            lambda value: value["origin"].update({"class": 3}),
            lambda value: value["origin"].update(kwargs={"trust_remote_code": True}),
            lambda value: value["origin"].update(kwargs=[1]),
            lambda value: value["origin"].update(library="evil"),
            lambda value: value["origin"].update(library=["timm"]),
            lambda value: value["origin"].update(code="evil.py"),
            lambda value: value.update(code="evil.py"),
            lambda value: value.update(pooling="evil"),
            lambda value: value.update(random="yes"),
            lambda value: value["text"].update(max_length=-1),
            lambda value: value["text"].update(tokenizer="evil"),
            lambda value: value.pop("text"),
            lambda value: value.pop("origin"),
            lambda value: value["origin"].pop("library"),
        ],
    )
    def test_the_description(self, how: Change, tmp_path: Path, canary: Path) -> None:
        folder = saved("bert", "text", tmp_path / "encoder", canary)
        change(folder / "encoder.json", how)
        with pytest.raises(RecipeError, match="cannot rebuild the text encoder"):
            rebuild_encoder(folder, "text")

    @pytest.mark.parametrize(
        "image",
        [
            {"size": [10**6, 10**6]}, {"size": [64]}, {"size": "64"}, {"mean": [float("nan")] * 3}, {"std": [0, 0, 0]},
            {"interpolation": "evil"}, {"crop_pct": 0}, {"crop_mode": "evil"}, {"code": "evil.py"},
        ],
    )  # fmt: skip
    def test_the_preprocessing(self, image: dict[str, Any], tmp_path: Path, canary: Path) -> None:
        folder = saved("resnet", "image", tmp_path / "encoder", canary)
        change(folder / "encoder.json", lambda value: value["image"].update(image))
        with pytest.raises(RecipeError, match="cannot rebuild the image encoder"):
            rebuild_encoder(folder, "image")

    @pytest.mark.parametrize("file", ["encoder.json", "config.json", "tokenizer.json", "tokenizer_config.json"])
    @pytest.mark.fault("X1", "links out of the folder, named pipes among an encoder's files", "RecipeError")
    def test_links_out_of_the_folder_and_pipes(self, file: str, tmp_path: Path, canary: Path) -> None:
        folder = saved("bert", "text", tmp_path / "encoder", canary)
        outside = tmp_path / "outside.json"
        shutil.move(folder / file, outside)
        (folder / file).symlink_to(outside)
        with pytest.raises(RecipeError, match="cannot rebuild"):
            rebuild_encoder(folder, "text")
        (folder / file).unlink()
        os.mkfifo(folder / file)
        with pytest.raises(RecipeError, match="cannot rebuild"):
            rebuild_encoder(folder, "text")

    @pytest.mark.fault(
        "X1", "a configuration of a model larger than its weights file", "RecipeError; no memory is taken"
    )
    def test_more_memory_than_its_weights(self, tmp_path: Path, canary: Path) -> None:
        folder = saved("bert", "text", tmp_path / "encoder", canary)
        size = 4 * sum(one.numel() for one in rebuild_encoder(folder, "text").model.parameters())
        rebuild_encoder(folder, "text", max_bytes=size)
        with pytest.raises(RecipeError, match="larger than its weights"):
            rebuild_encoder(folder, "text", max_bytes=size - 1)
        change(folder / "config.json", lambda value: value.update(hidden_size=2**16, intermediate_size=2**20))
        with pytest.raises(RecipeError, match="larger than its weights"):  # terabytes, were they allocated
            rebuild_encoder(folder, "text", max_bytes=size)
