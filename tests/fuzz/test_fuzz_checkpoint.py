"""Checkpoints that somebody has tampered with: an error of ours, or what was saved."""

from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from helpers import PICTURES, expanded, net, same, token_features
from hypothesis import given
from hypothesis import strategies as st
from mutations import FUZZ, bounded, fuzz, mutated_bytes, mutated_json

from mi2p_inject import ExpandedModel, Mi2pError, load
from mi2p_inject.checkpoint.schema import CONFIG_NAME
from mi2p_inject.core.errors import CheckpointError
from mi2p_inject.core.files.seal import sealed

KINDS = ("all", "units")
SOURCE = token_features(2)


@pytest.fixture(scope="module", params=KINDS)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A checkpoint: its folder, its files, and the state that it holds."""
    folder = tmp_path_factory.mktemp("saved")
    me = expanded(trainable=request.param)
    me.save_pretrained(folder)
    (weights,) = folder.glob("*.safetensors")
    return {
        "folder": folder,
        "config": json.loads((folder / CONFIG_NAME).read_text()),
        "text": (folder / CONFIG_NAME).read_bytes(),
        "weights": weights,
        "tensors": weights.read_bytes(),
        "state": dict(me.state_dict()),
    }


def load_or_refuse(saved: dict[str, Any]) -> ExpandedModel | None:
    """The model, whose tensors are those that were saved; None where an error of ours refused it."""
    backbone = net()
    with bounded():
        try:
            me = load(saved["folder"], backbone=backbone)
        except CheckpointError as error:
            message = str(error)
            me = None
    if me is None:
        assert all(part in message for part in ("expected: ", "given: ", "fix: ")), message
        assert not any(module._forward_hooks for module in backbone.modules())
        return None
    same(dict(me.state_dict()), saved["state"])
    return me


def restore(saved: dict[str, Any]) -> None:
    (saved["folder"] / CONFIG_NAME).write_bytes(saved["text"])
    saved["weights"].write_bytes(saved["tensors"])


@fuzz
@FUZZ
@given(data=st.data())
@pytest.mark.fault("fuzz", "bytes of mi2p_config.json changed", "CheckpointError, or what was saved")
def test_bytes_of_the_json(saved: dict[str, Any], data: st.DataObject) -> None:
    restore(saved)
    text = data.draw(mutated_bytes(saved["text"]))
    (saved["folder"] / CONFIG_NAME).write_bytes(text)
    if load_or_refuse(saved) is not None:
        assert json.loads(text) == saved["config"]


@fuzz
@FUZZ
@given(data=st.data())
@pytest.mark.fault("fuzz", "a forged mi2p_config.json whose checksum is right", "CheckpointError, or a model that runs")
def test_structure_of_the_json(saved: dict[str, Any], data: st.DataObject) -> None:
    restore(saved)
    config = data.draw(mutated_json(saved["config"]))
    text = json.dumps(sealed(config) if isinstance(config, dict) else config)
    (saved["folder"] / CONFIG_NAME).write_text(text)
    me = load_or_refuse(saved)
    if me is not None:
        with bounded(), contextlib.suppress(Mi2pError):  # another layout than the site's
            assert me(PICTURES, source=SOURCE).shape == (2, 4)


@fuzz
@FUZZ
@given(data=st.data())
@pytest.mark.fault("fuzz", "bytes of a weights file changed", "CheckpointError, or what was saved")
def test_bytes_of_the_weights(saved: dict[str, Any], data: st.DataObject) -> None:
    restore(saved)
    saved["weights"].write_bytes(data.draw(mutated_bytes(saved["tensors"])))
    load_or_refuse(saved)


@fuzz
@FUZZ
@given(data=st.data())
@pytest.mark.fault("fuzz", "the header of a weights file changed", "CheckpointError, or what was saved")
def test_header_of_the_weights(saved: dict[str, Any], data: st.DataObject) -> None:
    restore(saved)
    (length,) = struct.unpack("<Q", saved["tensors"][:8])
    header = data.draw(mutated_json(json.loads(saved["tensors"][8 : 8 + length])))
    text = json.dumps(header).encode()
    saved["weights"].write_bytes(struct.pack("<Q", len(text)) + text + saved["tensors"][8 + length :])
    load_or_refuse(saved)


@fuzz
@FUZZ
@given(data=st.data())
def test_both_files_forged_to_agree(saved: dict[str, Any], data: st.DataObject) -> None:
    """What a forger gets by who computes all checksums anew: a model that runs, or an error of ours."""
    from safetensors.torch import load_file, save_file

    from mi2p_inject.checkpoint.tensors import described

    restore(saved)
    config = data.draw(mutated_json(saved["config"]))
    tensors = load_file(Path(saved["weights"]))
    if isinstance(config, dict):
        config["tensors"] = described(tensors)
        config = sealed(config)
    save_file({key: tensor.clone() for key, tensor in tensors.items()}, saved["weights"])
    (saved["folder"] / CONFIG_NAME).write_text(json.dumps(config))
    load_or_refuse(saved)
