"""Checkpoints: what is damaged or does not fit gets our error, and leaves the backbone without a hook."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from checkpoint_files import changed, edit, hooks, read_json, weights_file, write_json
from helpers import complains, expanded, net
from models import TINY
from torch import nn

from mi2p_inject import load
from mi2p_inject.core.errors import CheckpointError, InjectionError


class TestCheckpoints:
    def test_not_a_checkpoint(self, tmp_path: Path) -> None:
        with complains(CheckpointError, "not a checkpoint"):
            load(tmp_path, backbone=net())
        for absent in (tmp_path / "absent", str(tmp_path / "absent"), "nobody/nothing-here", "y" * 5000):
            with complains(CheckpointError):
                load(absent, backbone=net())

    @pytest.mark.parametrize("named", ["", " ", None, 3])
    def test_no_name_of_a_folder(self, named: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An empty variable would fill the current folder."""
        monkeypatch.chdir(tmp_path)
        with complains(CheckpointError, "named by a string"):
            expanded().save_pretrained(named)
        with complains(CheckpointError, "named by a string"):
            load(named, backbone=net())
        assert not list(tmp_path.iterdir())

    def test_another_backbone(self, folder: Path) -> None:
        other = nn.Sequential(*list(net())[:-1], nn.Linear(6, 7))
        with complains(CheckpointError, "another backbone", r"4\.(weight|bias)"):
            load(folder, backbone=other)
        assert not other[0]._forward_hooks

    def test_other_weights_under_train_units(self, tmp_path: Path) -> None:
        expanded(trainable="units").save_pretrained(tmp_path)
        assert load(tmp_path, backbone=net()).expansion_config.trainable == "units"
        other = net()
        other[0].weight.data.add_(1)
        with complains(CheckpointError, "another backbone", "weights"):
            load(tmp_path, backbone=other)

    def test_another_source_encoder(self, folder: Path) -> None:
        with complains(CheckpointError, "another source encoder"):
            load(folder, backbone=net(), source_encoder=TINY["bert"].build())

    @pytest.mark.parametrize("keep", [0, 5, 100, -1])
    def test_truncated_weights(self, folder: Path, keep: int) -> None:
        path = weights_file(folder)
        path.write_bytes(path.read_bytes()[:keep])
        with complains(CheckpointError, "damaged"):
            load(folder, backbone=net())

    def test_truncated_json(self, folder: Path) -> None:
        path = folder / "mi2p_config.json"
        path.write_text(path.read_text()[:200])
        with complains(CheckpointError, "damaged"):
            load(folder, backbone=net())

    @pytest.mark.parametrize("key", ["sites", "unit", "source", "weights", "aliases", "num_heads"])
    def test_nonsense_in_the_json(self, folder: Path, key: str) -> None:
        for nonsense in (None, "x", [7], {"kind": 1}):
            edit(folder, **{key: nonsense})
            with pytest.raises(CheckpointError):
                load(folder, backbone=net())

    def test_missing_weights(self, folder: Path) -> None:
        weights_file(folder).unlink()
        with complains(CheckpointError, "missing"):
            load(folder, backbone=net())

    def test_unknown_unit(self, folder: Path) -> None:
        edit(folder, unit={"kind": "mi3p", "options": {}})
        with complains(CheckpointError, "unknown unit", "mi3p"):
            load(folder, backbone=net())

    def test_unknown_site(self, folder: Path) -> None:
        write_json(folder, changed(read_json(folder), ("sites", 0, "path"), "9"))
        with pytest.raises(CheckpointError):
            load(folder, backbone=net())

    def test_weights_of_other_units(self, folder: Path) -> None:
        write_json(folder, changed(read_json(folder), ("unit", "options", "head_dim"), 5))
        with complains(CheckpointError, "do not fit"):
            load(folder, backbone=net())

    def test_another_version(self, folder: Path) -> None:
        edit(folder, version=99)
        with complains(CheckpointError, "version"):
            load(folder, backbone=net())

    def test_a_pickle_is_never_opened(self, folder: Path, tmp_path: Path) -> None:
        fired = tmp_path / "fired"

        class Bomb:
            def __reduce__(self) -> Any:
                return (Path.touch, (fired,))

        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
        for name in ("pytorch_model.bin", "../pytorch_model.bin", "/etc/passwd"):
            edit(folder, weights=[name])
            with complains(CheckpointError, "weights file"):
                load(folder, backbone=net())
        path = weights_file(folder)
        path.write_bytes(pickle.dumps(Bomb()))
        edit(folder, weights=[path.name])
        with complains(CheckpointError, "damaged"):
            load(folder, backbone=net())
        assert not fired.exists()


class TestArguments:
    @pytest.mark.parametrize("backbone", [None, "resnet", nn.Conv2d])
    def test_a_backbone_that_is_no_module(self, folder: Path, backbone: Any) -> None:
        with complains(InjectionError, "no module"):
            load(folder, backbone=backbone)

    def test_a_source_encoder_that_is_no_module(self, folder: Path) -> None:
        model = net()
        with complains(InjectionError, "source_encoder is no module"):
            load(folder, backbone=model, source_encoder="bert")  # type: ignore[arg-type]
        assert hooks(model) == 0

    @pytest.mark.parametrize("folder", [None, 5, ["a"], "a\0b", b"folder"])
    def test_a_folder_that_is_no_path(self, folder: Any) -> None:
        with complains(CheckpointError):
            load(folder, backbone=net())
        with complains(CheckpointError):
            expanded().save_pretrained(folder)
