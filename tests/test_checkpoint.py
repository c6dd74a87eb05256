"""Checkpoints: what is damaged or does not fit gets our error, and leaves the backbone without a hook."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import PICTURES, WORDS, complains, expanded, net, same, token_features
from models import TINY
from torch import nn

from mi2p_inject import inject, load
from mi2p_inject.errors import CheckpointError


class TestCheckpoints:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        expanded().save_pretrained(tmp_path)
        return tmp_path

    def config(self, folder: Path, **changes: Any) -> None:
        path = folder / "mi2p_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    def test_not_a_checkpoint(self, tmp_path: Path) -> None:
        with complains(CheckpointError, "not a checkpoint"):
            load(tmp_path, backbone=net())
        for absent in (tmp_path / "absent", str(tmp_path / "absent"), "nobody/nothing-here"):
            with complains(CheckpointError):
                load(absent, backbone=net())

    def test_another_backbone(self, folder: Path) -> None:
        other = nn.Sequential(*list(net())[:-1], nn.Linear(6, 7))
        with complains(CheckpointError, "another backbone", r"4\.(weight|bias)"):
            load(folder, backbone=other)
        assert not other[0]._forward_hooks

    def test_other_weights_under_train_units(self, tmp_path: Path) -> None:
        expanded(train="units").save_pretrained(tmp_path)
        assert load(tmp_path, backbone=net()).blueprint.train == "units"
        other = net()
        other[0].weight.data.add_(1)
        with complains(CheckpointError, "another backbone", "weights"):
            load(tmp_path, backbone=other)

    def test_another_source_encoder(self, folder: Path) -> None:
        with complains(CheckpointError, "another source encoder"):
            load(folder, backbone=net(), source_encoder=TINY["bert"].build())

    @pytest.mark.parametrize("keep", [0, 5, 100, -1])
    def test_truncated_weights(self, folder: Path, keep: int) -> None:
        path = next(folder.glob("*.safetensors"))
        path.write_bytes(path.read_bytes()[:keep])
        with complains(CheckpointError, "damaged"):
            load(folder, backbone=net())

    def test_truncated_json(self, folder: Path) -> None:
        path = folder / "mi2p_config.json"
        path.write_text(path.read_text()[:200])
        with complains(CheckpointError, "damaged"):
            load(folder, backbone=net())

    @pytest.mark.parametrize("key", ["sites", "unit", "source", "weights", "aliases", "heads"])
    def test_nonsense_in_the_json(self, folder: Path, key: str) -> None:
        for nonsense in (None, "x", [7], {"kind": 1}):
            self.config(folder, **{key: nonsense})
            with pytest.raises(CheckpointError):
                load(folder, backbone=net())

    def test_missing_weights(self, folder: Path) -> None:
        next(folder.glob("*.safetensors")).unlink()
        with complains(CheckpointError, "missing"):
            load(folder, backbone=net())

    def test_unknown_unit(self, folder: Path) -> None:
        self.config(folder, unit={"kind": "mi3p", "options": {}})
        with complains(CheckpointError, "unknown unit", "mi3p"):
            load(folder, backbone=net())

    def test_unknown_site(self, folder: Path) -> None:
        path = folder / "mi2p_config.json"
        path.write_text(path.read_text().replace('"path": "0"', '"path": "9"'))
        with pytest.raises(CheckpointError):
            load(folder, backbone=net())

    def test_weights_of_other_units(self, folder: Path) -> None:
        config = json.loads((folder / "mi2p_config.json").read_text())
        config["unit"]["options"]["d_k"] = 5
        self.config(folder, unit=config["unit"])
        with complains(CheckpointError, "do not fit"):
            load(folder, backbone=net())

    def test_another_version(self, folder: Path) -> None:
        self.config(folder, version=99)
        with complains(CheckpointError, "version"):
            load(folder, backbone=net())

    def test_a_pickle_is_never_opened(self, folder: Path, tmp_path: Path) -> None:
        fired = tmp_path / "fired"

        class Bomb:
            def __reduce__(self) -> Any:
                return (Path.touch, (fired,))

        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
        for name in ("pytorch_model.bin", "../pytorch_model.bin", "/etc/passwd"):
            self.config(folder, weights=name)
            with complains(CheckpointError, "weights file"):
                load(folder, backbone=net())
        path = next(folder.glob("*.safetensors"))
        path.write_bytes(pickle.dumps(Bomb()))
        self.config(folder, weights=path.name)
        with complains(CheckpointError, "damaged"):
            load(folder, backbone=net())
        assert not fired.exists()

    def test_a_save_that_fails_leaves_the_old_checkpoint_whole(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import os

        before = {path.name: path.read_bytes() for path in folder.iterdir()}

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        for step in ("fsync", "replace"):
            with monkeypatch.context() as patch:
                patch.setattr(os, step, full)
                with complains(CheckpointError, "No space left"):
                    expanded().save_pretrained(folder)
            assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    def test_a_folder_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with complains(CheckpointError):
            expanded().save_pretrained(tmp_path / "file")

    def test_saving_again_replaces_and_leaves_other_files(self, folder: Path) -> None:
        (folder / "notes.txt").write_text("mine")
        me = expanded()
        me.save_pretrained(folder)
        assert len(list(folder.iterdir())) == 3
        same(load(folder, backbone=net())(PICTURES, source=token_features(2)), me(PICTURES, source=token_features(2)))

    def test_tied_weights_are_written_once(self, tmp_path: Path) -> None:
        model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
        model[1].weight = model[0].weight
        me = inject(model, layers="0", source_spec=WORDS, example_inputs=PICTURES)
        me.save_pretrained(tmp_path)
        assert "backbone.1.weight" in json.loads((tmp_path / "mi2p_config.json").read_text())["aliases"]
        fresh = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
        load(tmp_path, backbone=fresh)
        assert torch.equal(fresh[1].weight, model[0].weight)
