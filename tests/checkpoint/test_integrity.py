"""What is loaded is what was saved, to the last bit; large models in several files."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import PICTURES, WORDS, complains, expanded, net, same, token_features
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from mi2p_inject import inject, load
from mi2p_inject.core.errors import CheckpointError

SOURCE = token_features(2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A checkpoint's weights file, and what it holds."""
    folder = tmp_path_factory.mktemp("whole")
    expanded().save_pretrained(folder)
    (path,) = folder.glob("*.safetensors")
    return path, path.read_bytes()


def header_of(data: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(header: dict[str, Any], tensors: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tensors


def loads_as_saved_or_not_at_all(path: Path, data: bytes) -> bool:
    """Load what the file holds now; True where it was refused by an error of ours."""
    path.write_bytes(data)
    try:
        me = load(path.parent, backbone=net())
    except CheckpointError:
        return True
    same(dict(me.state_dict()), dict(expanded().state_dict()))
    return False


@pytest.mark.fault("S8", "a flipped bit in a weights file", "CheckpointError")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit(whole: tuple[Path, bytes], data: st.DataObject) -> None:
    path, content = whole
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << bit % 8
    refused = loads_as_saved_or_not_at_all(path, bytes(flipped))
    assert refused or bit // 8 < len(content) - len(header_of(content)[1])  # the header holds words of no meaning


@pytest.mark.fault("S8", "offsets of two tensors of one shape exchanged in a weights file", "CheckpointError")
def test_exchanged_offsets(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    inject(model, "0", source_spec=WORDS, example_inputs=PICTURES).save_pretrained(tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    header, tensors = header_of(path.read_bytes())
    one, other = header["backbone.0.weight"], header["backbone.1.weight"]
    one["data_offsets"], other["data_offsets"] = other["data_offsets"], one["data_offsets"]
    path.write_bytes(with_header(header, tensors))
    with complains(CheckpointError, "backbone.0.weight", "do not hold what was saved"):
        load(tmp_path, backbone=nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)))


@pytest.mark.fault("S8", "another type of numbers of the same size in a weights file", "CheckpointError")
def test_another_type_of_numbers(whole: tuple[Path, bytes]) -> None:
    path, content = whole
    header, tensors = header_of(content)
    for name in [name for name in header if name != "__metadata__"]:
        for kind in ("I32", "U32"):
            changed = {**header, name: {**header[name], "dtype": kind}}
            assert loads_as_saved_or_not_at_all(path, with_header(changed, tensors))


def test_the_damaged_tensor_is_named(whole: tuple[Path, bytes]) -> None:
    path, content = whole
    header, tensors = header_of(content)
    start, _ = header["backbone.4.bias"]["data_offsets"]
    changed = bytearray(tensors)
    changed[start] ^= 1
    path.write_bytes(with_header(header, bytes(changed)))
    with complains(CheckpointError, "backbone.4.bias", "do not hold what was saved"):
        load(path.parent, backbone=net())


class TestShards:
    def model(self) -> nn.Module:
        torch.manual_seed(0)
        layers = [nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()) for _ in range(4)]
        return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())

    @pytest.mark.parametrize("size", [1, 3000, "4KB", "5GB"])
    def test_a_large_model_is_written_in_several_files(self, tmp_path: Path, size: int | str) -> None:
        me = inject(self.model(), "0", source_spec=WORDS, example_inputs=PICTURES, zero_init=None)
        me.save_pretrained(tmp_path / "whole")
        me.save_pretrained(tmp_path, max_shard_size=size)
        files = sorted(tmp_path.glob("*.safetensors"))
        assert (len(files) == 1) == (size == "5GB")
        if size != "5GB":
            assert all(re.fullmatch(r"model-[0-9a-f]{12}-\d{5}-of-\d{5}\.safetensors", file.name) for file in files)
        same(dict(load(tmp_path, backbone=self.model()).state_dict()), dict(me.state_dict()))
        me.save_pretrained(tmp_path)
        assert len(list(tmp_path.glob("*.safetensors"))) == 1

    def test_a_missing_and_a_foreign_file(self, tmp_path: Path) -> None:
        me = inject(self.model(), "0", source_spec=WORDS, example_inputs=PICTURES, zero_init=None)
        me.save_pretrained(tmp_path, max_shard_size="4KB")
        first, second, *_ = sorted(tmp_path.glob("*.safetensors"))
        content = first.read_bytes()
        first.write_bytes(second.read_bytes())
        with complains(CheckpointError):
            load(tmp_path, backbone=self.model())
        first.unlink()
        with complains(CheckpointError, "missing"):
            load(tmp_path, backbone=self.model())
        first.write_bytes(content)
        load(tmp_path, backbone=self.model())

    @pytest.mark.parametrize("size", ["five", None, [], "5"])
    def test_a_size_that_is_none(self, tmp_path: Path, size: Any) -> None:
        with complains(CheckpointError, "max_shard_size"):
            expanded().save_pretrained(tmp_path, max_shard_size=size)
        assert not list(tmp_path.iterdir())


class TestTies:
    """Tensors that share memory in ways that huggingface_hub's save_torch_state_dict does not bring back."""

    def test_a_transposed_tie(self, tmp_path: Path) -> None:
        model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Flatten(), nn.Linear(6, 4), nn.Linear(4, 6))
        model[3].weight.data = model[2].weight.data.t()
        me = inject(nn.Sequential(model[0]), "0", source_spec=WORDS, example_inputs=PICTURES)
        me.backbone.add_module("1", model[2])
        me.backbone.add_module("2", model[3])
        me.save_pretrained(tmp_path)
        fresh = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Linear(6, 4), nn.Linear(4, 6))
        assert torch.equal(load(tmp_path, backbone=fresh).backbone[2].weight, model[3].weight)  # type: ignore[index]

    def test_views_of_one_storage_that_none_covers(self, tmp_path: Path) -> None:
        def model() -> nn.Module:
            storage = torch.arange(100.0)
            layer = nn.Conv2d(3, 3, 1)
            layer.register_buffer("one", storage[1:40])
            layer.register_buffer("two", storage[30:80:2])
            return nn.Sequential(layer)

        me = inject(model(), "0", source_spec=WORDS, example_inputs=PICTURES)
        me.save_pretrained(tmp_path)
        same(dict(load(tmp_path, backbone=model()).backbone.state_dict()), dict(me.backbone.state_dict()))
