"""Folders that a user downloaded and names in `--vision`, `--text` or `mi2p layers`: nothing in them runs."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from encoder_files import AUTO_MAP, BERT, bert, canary, change, evil
from safetensors.torch import load_file, save_file

from mi2p_inject.core.errors import Mi2pError, ZooError
from mi2p_inject.core.model_folder.stage import WEIGHTS
from mi2p_inject.core.zoo import build
from mi2p_inject.recipes.encoders.load import load_encoder
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["canary"]


def pickled(library: str, folder: Path, canary: Path) -> tuple[Path, str]:
    """A model folder whose weights are a pickle, as torch.save writes it, and that file's name."""
    if library == "transformers":
        bert(folder, canary)
        (folder / "model.safetensors").rename(folder / "x")
        torch.save(load_file(folder / "x"), folder / "pytorch_model.bin")
        (folder / "x").unlink()
        return folder, "pytorch_model.bin"
    if library == "timm":
        timm.models.save_for_hf(timm.create_model("test_vit"), folder, safe_serialization=False)
        return folder, "pytorch_model.bin"
    import open_clip

    cfg = load_encoder("tiny:clip", "text").origin["model_cfg"]
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": cfg}))
    torch.save(open_clip.CustomTextCLIP(**cfg).state_dict(), folder / "open_clip_pytorch_model.bin")
    return folder, "open_clip_pytorch_model.bin"


class TestNamedFolder:
    """What `--vision` and `--text` read of a folder that a user downloaded."""

    @pytest.mark.fault(
        "X1",
        "a named model folder of a known class with code of its own",
        "the known class is used; its code does not run",
    )
    def test_a_known_class_is_taken_and_its_code_is_not(self, tmp_path: Path, canary: Path) -> None:
        folder = bert(tmp_path / "bert", canary)
        for file in ("config.json", "tokenizer_config.json"):
            change(folder / file, lambda value: value.update(auto_map=AUTO_MAP, trust_remote_code=True))
        encoder = load_encoder(str(folder), "text")
        assert type(encoder.model).__name__ == "BertModel"
        assert type(encoder.spec.tokenizer).__module__.startswith("transformers.")

    @pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
    @pytest.mark.fault(
        "X1",
        "a named model folder of a class that only its own code defines",
        "an error of ours, or a known class; its code does not run",
    )
    def test_an_unknown_class_is_refused_or_replaced(self, file: str, tmp_path: Path, canary: Path) -> None:
        folder = bert(tmp_path / "bert", canary)
        names = {"auto_map": AUTO_MAP, "model_type": "evil", "tokenizer_class": "Tokenizer"}
        change(folder / file, lambda value: value.update(names))
        if file == "config.json":
            with pytest.raises(Mi2pError, match="never run"):
                load_encoder(str(folder), "text")
        else:
            assert type(load_encoder(str(folder), "text").spec.tokenizer).__module__.startswith("transformers.")

    def test_an_image_processor(self, tmp_path: Path, canary: Path) -> None:
        config = transformers.ViTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
        )
        transformers.ViTModel(config).save_pretrained(tmp_path / "vit")
        transformers.ViTImageProcessor().save_pretrained(tmp_path / "vit")
        evil(tmp_path / "vit", canary)
        names = {"auto_map": AUTO_MAP, "image_processor_type": "Processor"}
        change(tmp_path / "vit" / "preprocessor_config.json", lambda value: value.update(names))
        change(tmp_path / "vit" / "config.json", lambda value: value.update(auto_map=AUTO_MAP))
        with pytest.raises(RecipeError, match="Unrecognized image processor") as caught:
            load_encoder(str(tmp_path / "vit"), "image")
        assert len(str(caught.value)) < 1000
        known = {"image_processor_type": "ViTImageProcessor"}
        change(tmp_path / "vit" / "preprocessor_config.json", lambda value: value.update(known))
        assert load_encoder(str(tmp_path / "vit"), "image").width == 16

    def test_other_files_that_a_folder_names_are_not_read(self, tmp_path: Path, canary: Path) -> None:
        folder = bert(tmp_path / "bert", canary)
        other = tmp_path / "other"
        transformers.BertModel(transformers.BertConfig(**BERT)).save_pretrained(other)
        expected = load_encoder(str(folder), "text")
        for kind in ("tokenizer_file", "vocab_file"):
            change(folder / "tokenizer_config.json", lambda value, kind=kind: value.update({kind: "/etc/passwd"}))
        change(
            folder / "config.json",
            lambda value: value.update(transformers_weights=f"../{other.name}/model.safetensors"),
        )
        adapter = {"peft_type": "LORA", "base_model_name_or_path": str(other), "r": 1, "target_modules": ["query"]}
        (folder / "adapter_config.json").write_text(json.dumps(adapter))
        found = load_encoder(str(folder), "text")
        assert found.spec(["a red apple"])["input_ids"].tolist() == expected.spec(["a red apple"])["input_ids"].tolist()
        assert all(
            torch.equal(a, b) for a, b in zip(found.model.parameters(), expected.model.parameters(), strict=True)
        )

    @pytest.mark.fault("X1", "a timm folder whose model_args name files", "an error of ours; no file is read")
    def test_timms_arguments(self, tmp_path: Path, canary: Path) -> None:
        timm.models.save_for_hf(timm.create_model("test_vit"), tmp_path, safe_serialization=True)
        pretrained = {
            "url": "https://stranger.example/w.pth",
            "hf_hub_id": "a/b",
            "custom_load": True,
            "file": "/etc/passwd",
        }
        change(tmp_path / "config.json", lambda value: value["pretrained_cfg"].update(pretrained))
        assert load_encoder(str(tmp_path), "image").width == 64
        for arguments in ({"checkpoint_path": "evil.pth"}, {"pretrained_cfg": pretrained}, {"unheard_of": 1}):
            change(tmp_path / "config.json", lambda value, new=arguments: value.update(model_args=new))
            with pytest.raises(Mi2pError, match=next(iter(arguments))):
                load_encoder(str(tmp_path), "image")

    def test_timm_wrapped_by_transformers(self, tmp_path: Path, canary: Path) -> None:
        model = transformers.TimmWrapperModel(transformers.TimmWrapperConfig(architecture="test_vit", num_labels=3))
        model.save_pretrained(tmp_path)
        change(tmp_path / "config.json", lambda value: value.update(model_args={"checkpoint_path": "evil.pth"}))
        with pytest.raises(Mi2pError, match="checkpoint_path"):
            load_encoder(f"transformers:{tmp_path}", "image")
        with pytest.raises(ZooError, match="checkpoint_path"):
            build(f"transformers:{tmp_path}")

    @pytest.mark.parametrize("file", ["pytorch_model.bin", "model.safetensors"])
    @pytest.mark.fault(
        "X1", "a model folder whose weights file is a hostile pickle", "an error of ours; it does not run"
    )
    def test_a_pickle_is_no_weights(self, file: str, tmp_path: Path, canary: Path) -> None:
        class Evil:
            def __reduce__(self) -> Any:
                return (open, (str(canary), "w"))

        folder = bert(tmp_path / "bert", canary)
        (folder / "model.safetensors").unlink()
        (folder / file).write_bytes(pickle.dumps({"x": Evil()}))
        with pytest.raises(Mi2pError, match="cannot"):
            load_encoder(str(folder), "text")

    @pytest.mark.parametrize("library", ["transformers", "timm", "open_clip"])
    @pytest.mark.fault(
        "X1", "a pickle of weights that would load, were it let in", "an error: each library is asked for safetensors"
    )
    def test_a_pickle_is_not_loaded_by_any_library(
        self, library: str, tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The list of files that may be read is one guard, what the libraries are asked for another."""
        folder, file = pickled(library, tmp_path / "model", canary)
        modality: Any = "text" if library == "transformers" else "image"
        with pytest.raises(Mi2pError, match=rf"{file} may run code"):
            load_encoder(str(folder), modality)
        monkeypatch.setattr("mi2p_inject.core.model_folder.stage.WEIGHTS", (*WEIGHTS, file))
        with pytest.raises(Mi2pError):
            load_encoder(str(folder), modality)

    @pytest.mark.parametrize(
        ("part", "added"),
        [
            ("text_cfg", {"tokenizer_kwargs": {"trust_remote_code": True}}),
            ("text_cfg", {"hf_model_name": "stranger/model"}),
            ("text_cfg", {"hf_model_name": "./other"}),
            ("vision_cfg", {"timm_model_name": "hf-hub:stranger/model"}),
            ("vision_cfg", {"unheard_of": "x"}),
        ],
    )
    @pytest.mark.fault(
        "X1",
        "an open_clip folder whose configuration switches remote code on or names files",
        "an error of ours; nothing runs",
    )
    def test_open_clip(self, part: str, added: dict[str, Any], tmp_path: Path, canary: Path) -> None:
        import open_clip

        cfg = load_encoder("tiny:clip", "text").origin["model_cfg"]
        cfg = {**cfg, part: {**cfg[part], "hf_tokenizer_name": "x"} if part == "text_cfg" else cfg[part]}
        save_file(open_clip.CustomTextCLIP(**cfg).state_dict(), tmp_path / "open_clip_model.safetensors")
        load_encoder("tiny:bert", "text").spec.tokenizer.save_pretrained(tmp_path)
        evil(tmp_path, canary)
        change(
            tmp_path / "tokenizer_config.json",
            lambda value: value.update(auto_map=AUTO_MAP, tokenizer_class="Tokenizer"),
        )
        cfg[part] = {**cfg[part], **added}
        (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": cfg}))
        for tower, modality in (("visual", "image"), ("text", "text")):
            with pytest.raises(Mi2pError):
                load_encoder(str(tmp_path), modality)
            with pytest.raises(ZooError):
                build(f"{tmp_path}/{tower}")


class TestZoo:
    """What `mi2p layers` reads of a folder."""

    def test_transformers(self, tmp_path: Path, canary: Path) -> None:
        folder = bert(tmp_path / "bert", canary)
        change(folder / "config.json", lambda value: value.update(auto_map=AUTO_MAP, _attn_implementation="a/b"))
        assert type(build(str(folder))).__module__.startswith("transformers.")
        change(folder / "config.json", lambda value: value.update(num_hidden_layers=10**9))
        with pytest.raises(ZooError, match="num_hidden_layers is out of range"):
            build(str(folder))

    def test_timm(self, tmp_path: Path, canary: Path) -> None:
        timm.models.save_for_hf(timm.create_model("test_vit"), tmp_path)
        (tmp_path / "pytorch_model.bin").write_bytes(b"never read")
        assert type(build(str(tmp_path))).__name__ == "VisionTransformer"
        change(tmp_path / "config.json", lambda value: value.update(model_args={"checkpoint_path": "evil.pth"}))
        with pytest.raises(ZooError, match="checkpoint_path"):
            build(str(tmp_path))

    def test_a_folder_that_is_a_repository_in_the_hubs_cache(
        self, tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A hub id is read like a folder; the cache's links to its own blobs are fine, others are not."""
        cache = tmp_path / "hub" / "models--somebody--bert"
        snapshot = bert(cache / "snapshots" / ("a" * 40), canary)
        (cache / "refs").mkdir()
        (cache / "refs" / "main").write_text("a" * 40)
        (cache / "blobs").mkdir()
        shutil.move(snapshot / "config.json", cache / "blobs" / "c0ffee")
        (snapshot / "config.json").symlink_to(Path("../../blobs/c0ffee"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache.parent))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        assert load_encoder("somebody/bert", "text").width == 16
        assert type(build("somebody/bert")).__name__ == "BertModel"
        shutil.move(cache / "blobs" / "c0ffee", tmp_path / "outside.json")
        (snapshot / "config.json").unlink()
        (snapshot / "config.json").symlink_to(tmp_path / "outside.json")
        with pytest.raises(Mi2pError, match="outside the folder"):
            load_encoder(str(snapshot), "text")

    @pytest.mark.fault(
        "X1", "a named folder whose numbers ask for millions of modules", "ZooError, RecipeError at once"
    )
    def test_models_that_grow(self, tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mi2p_inject.core.model_folder.limits.MOST_MODULES", 1000)  # so that it does not wait
        folder = bert(tmp_path / "bert", canary)
        sizes = {"hidden_size": 8, "embedding_size": 8, "intermediate_size": 8, "num_attention_heads": 1}
        config = {"model_type": "albert", **sizes, "num_hidden_groups": 2**24, "inner_group_num": 2**24}
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ZooError, match="more modules than any"):
            build(str(folder))
        with pytest.raises(RecipeError, match=r"more modules than any|larger than its weights"):
            load_encoder(str(folder), "text")
