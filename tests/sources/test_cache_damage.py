"""Damaged files of a cache: an error of ours when they are opened or read; never another sample's features."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from cached_sources import IDS, filled, read_by
from helpers import complains
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from mi2p_inject.core.errors import SourceError
from mi2p_inject.sources.cache import SourceCache
from mi2p_inject.sources.fill_cache import fill


@pytest.mark.usefixtures("small_files")
def test_a_damaged_file_is_named_and_can_be_deleted(tmp_path: Path) -> None:
    cache = filled(tmp_path, "bert")
    expected = cache[IDS].data.clone()
    file = sorted(cache.folder.glob("*.safetensors"))[1]
    file.write_bytes(file.read_bytes()[:-7])
    with complains(SourceError, file.name):
        filled(tmp_path, "bert")
    file.unlink()
    assert torch.equal(filled(tmp_path, "bert")[IDS].data, expected)


def test_no_samples_and_a_file_that_is_gone_are_errors_of_ours(tmp_path: Path) -> None:
    cache = filled(tmp_path, "resnet")
    with complains(SourceError, "one id"):
        cache[[]]
    for file in cache.folder.glob("*.safetensors"):
        file.unlink()
    with complains(SourceError, "gone"):
        cache[IDS[:2]]


WORDS = {f"words {number}": [1 + (number + place) % 8 for place in range(3)] for number in range(4)}


def embedding() -> nn.Module:
    torch.manual_seed(0)
    return nn.Embedding(9, 5)


def small_cache(folder: Path) -> SourceCache:
    """Four samples in one file, read by an encoder that costs nothing."""
    source = read_by(embedding(), torch.zeros(1, 3, dtype=torch.long)).frozen_source
    return fill(
        folder, source, list(WORDS), lambda ids: torch.tensor([WORDS[one] for one in ids]), preprocessing="",
        say=lambda line: None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A cache's file, and what it holds."""
    (path,) = small_cache(tmp_path_factory.mktemp("whole")).folder.glob("*.safetensors")
    return path, path.read_bytes()


def right_or_refused(path: Path, data: bytes) -> bool:
    """Open and read a cache whose file holds `data`; True where a sample was refused or lost, none was wrong."""
    path.write_bytes(data)
    refused = False
    try:
        cache = SourceCache(path.parent)
    except SourceError:
        return True
    for sample, words in WORDS.items():
        try:
            features = cache[[sample]]
        except SourceError:
            refused = True
        else:
            assert torch.equal(features.data, embedding()(torch.tensor([words])))
    return refused


@pytest.mark.fault("S8", "a flipped bit in a file of the source cache", "SourceError when the sample is read")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit(whole: tuple[Path, bytes], data: st.DataObject) -> None:
    path, content = whole
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << bit % 8
    header = int.from_bytes(content[:8], "little") + 8
    assert right_or_refused(path, bytes(flipped)) or bit // 8 < header


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"words 1", b"words 2"),  # twice the same
        (b'"F32"', b'"I32"'),
        (b"[4]", b"[2]"),
        (b"[12,5]", b"[5,12]"),
        (b"[12,5]", b"[60,1]"),
    ],
)  # fmt: skip
@pytest.mark.fault("S8", "another id, type or shape in a file of the source cache", "SourceError")
def test_another_header(whole: tuple[Path, bytes], old: bytes, new: bytes) -> None:
    path, content = whole
    assert old in content
    assert right_or_refused(path, content.replace(old, new, 1))


@pytest.mark.fault("S8", "two samples exchanged in a file of the source cache", "SourceError")
def test_exchanged_ids(whole: tuple[Path, bytes]) -> None:
    path, content = whole
    exchanged = content.replace(b"words 1", b"words x").replace(b"words 2", b"words 1").replace(b"words x", b"words 2")
    assert right_or_refused(path, exchanged)


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
@pytest.mark.fault("files", "a named pipe, a device or a folder among the files of the source cache", "SourceError")
def test_no_regular_file(tmp_path: Path, kind: str) -> None:
    cache = small_cache(tmp_path)
    path = cache.folder / "other.safetensors"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with complains(SourceError, "other.safetensors"):
        SourceCache(cache.folder)
