"""Saving: the old checkpoint or the new one, whole; and nothing beside them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import hooks
from helpers import PICTURES, WORDS, complains, expanded, net, same, token_features
from torch import nn

from mi2p_inject import inject, load
from mi2p_inject.core.errors import CheckpointError


class TestSaving:
    def test_a_save_that_fails_leaves_the_old_checkpoint_whole(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
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
        assert len(list(folder.iterdir())) == 4
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

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="RLIMIT_FSIZE")
    def test_no_room_leaves_the_old_checkpoint_whole(self, folder: Path) -> None:
        import resource
        import signal

        me = expanded()
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (512, hard))
            with complains(CheckpointError, "cannot write"):
                me.save_pretrained(folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, handler)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    def test_a_json_that_fails_leaves_no_weights_behind(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        real = os.replace

        def full(source: Any, target: Any) -> None:
            if str(target).endswith(".json"):
                raise OSError(28, "No space left on device")
            real(source, target)

        monkeypatch.setattr(os, "replace", full)
        with complains(CheckpointError, "No space left"):
            expanded().save_pretrained(folder)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    @pytest.mark.parametrize("train", ["all", "units"])
    def test_a_state_that_is_no_tensor(self, folder: Path, tmp_path: Path, train: Any) -> None:
        class Stateful(nn.ReLU):
            def get_extra_state(self) -> dict[str, int]:
                return {"seen": 1}

        model = net()
        model[1] = Stateful()
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        me = inject(model, layers="0", source_spec=WORDS, example_inputs=PICTURES, trainable=train)
        with complains(CheckpointError, "1._extra_state", "dict"):
            me.save_pretrained(folder)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        me.eject()
        with complains(CheckpointError, "1._extra_state"):
            load(folder, backbone=model)
        assert hooks(model) == 0

    def test_a_lazy_backbone(self, folder: Path) -> None:
        model = nn.Sequential(*list(net())[:-1], nn.LazyLinear(4))
        with complains(CheckpointError, "4.weight"):
            load(folder, backbone=model)
        assert hooks(model) == 0


def _of_another_size() -> nn.Module:
    return inject(net(), layers="0", source_spec=WORDS, example_inputs=PICTURES, num_heads=1, head_dim=3).units["/0"]


def _of_another_kind() -> nn.Module:
    return inject(net(), layers="0", source_spec=WORDS, example_inputs=PICTURES, unit="film").units["/0"]


@pytest.mark.parametrize("unit", [_of_another_size, _of_another_kind, lambda: nn.Identity(), None])
@pytest.mark.fault("S7", "a unit replaced by one that the checkpoint's configuration does not describe, or gone",
                   "CheckpointError at the save; the old checkpoint is whole")  # fmt: skip
def test_units_that_would_not_load_are_not_saved(unit: Any, tmp_path: Path) -> None:
    me = expanded()
    me.save_pretrained(tmp_path)
    if unit is None:
        del me.units["/0"]
    else:
        me.units["/0"] = unit()
    with complains(CheckpointError, "no checkpoint of them could be loaded"):
        me.save_pretrained(tmp_path)
    load(tmp_path, backbone=net())
