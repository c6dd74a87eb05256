"""A pathway's folder while it is saved: the old checkpoint or the new one, whole, and nothing beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers import complains
from torch import nn

import mi2p_inject.checkpoint.write as writing
from mi2p_inject import load_pathway, pathway
from mi2p_inject.core.errors import CheckpointError, InjectionWarning
from mi2p_inject.core.files.lock import WriterLock
from mi2p_inject.core.files.seal import sealed
from mi2p_inject.reparam.saved import CONFIG_NAME


def built() -> nn.Module:
    sizes = {"img_size": 32, "patch_size": 16, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 2}
    model: nn.Module = timm.create_model("vit_tiny_patch16_224", **sizes)
    return model


def test_a_full_disk_leaves_the_old_one_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pw = pathway(built(), auxiliary=built())
    pw.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    wanted = pw.model.state_dict()["norm.weight"].clone()
    real = writing.write_file

    def full(path: Path, write: object) -> None:
        if path.suffix == ".json":
            raise OSError(28, "No space left on device")
        real(path, write)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(writing, "write_file", full)
        with torch.no_grad():
            pw.model.get_parameter("norm.weight").add_(1)
        with complains(CheckpointError, "No space left"):
            pw.save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    again = load_pathway(tmp_path, model=built(), auxiliary=built())
    assert torch.equal(again.model.state_dict()["norm.weight"], wanted)


def test_the_second_saver_names_who_is_saving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "LOCK_SECONDS", 0.2)
    pw = pathway(built(), auxiliary=built())
    lock = WriterLock(tmp_path / writing.LOCK_NAME)
    with lock, pytest.warns(InjectionWarning, match="waiting"), complains(CheckpointError):
        pw.save_pretrained(tmp_path)


@pytest.mark.parametrize(
    "how",
    [
        lambda tensors: dict.fromkeys(tensors, 5),
        lambda tensors: {**tensors, "another": {}},
        lambda tensors: {key: {**one, "dtype": None} for key, one in tensors.items()},
        lambda tensors: {key: {"dtype": one["dtype"], "shape": one["shape"]} for key, one in tensors.items()},
        lambda tensors: {key: {"sha256": one["sha256"], "shape": one["shape"]} for key, one in tensors.items()},
        lambda tensors: {key: {**one, "sha256": "0"} for key, one in tensors.items()},
        lambda tensors: list(tensors),
    ],
)
@pytest.mark.fault("fuzz", "a forged pathway_config.json whose checksum is right", "CheckpointError")
def test_a_forged_list_of_tensors(how: Callable[[Any], Any], tmp_path: Path) -> None:
    pathway(built(), auxiliary=built()).save_pretrained(tmp_path)
    config = json.loads((tmp_path / CONFIG_NAME).read_text())
    (tmp_path / CONFIG_NAME).write_text(json.dumps(sealed({**config, "tensors": how(config["tensors"])})))
    with complains(CheckpointError, "damaged"):
        load_pathway(tmp_path, model=built(), auxiliary=built())
