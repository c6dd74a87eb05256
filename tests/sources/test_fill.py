"""Filling the source cache: what it gives is what the encoder gives; what cannot be kept is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from cached_sources import IDS, PICTURES, READ, filled, model, table, words_for
from helpers import complains
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import mi2p_inject.sources.fill_cache as source_fill
from mi2p_inject import SourceFeatures
from mi2p_inject.core.errors import SourceError
from mi2p_inject.sources.encoder import Source
from mi2p_inject.sources.fill_cache import fill


@pytest.mark.parametrize("kind", READ)
@pytest.mark.usefixtures("small_files")
def test_a_unit_reads_the_same_from_the_cache(kind: str, tmp_path: Path) -> None:
    cache, me = filled(tmp_path, kind), model(kind)
    torch.manual_seed(0)
    for parameter in me.units.parameters():
        parameter.data.normal_(std=0.1)
    chosen = [IDS[7], IDS[0], IDS[3]]
    assert len(cache) == len(IDS)
    with torch.no_grad():
        torch.testing.assert_close(
            me(PICTURES, source=cache[chosen]), me(PICTURES, source=READ[kind](chosen)), atol=1e-5, rtol=1e-5
        )


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(IDS), min_size=1, max_size=6))
def test_any_batch_holds_its_samples_without_padding(
    tmp_path_factory: pytest.TempPathFactory, chosen: list[str]
) -> None:
    cache = filled(tmp_path_factory.getbasetemp() / "shared", "bert")
    features = cache[chosen]
    real = words_for(chosen)["attention_mask"].sum(1)
    assert features.mask is not None
    assert torch.equal(features.mask.sum(1), real)
    assert features.data.shape[1] == int(real.max())


def encodes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the samples that are encoded from now on."""
    seen: list[int] = []
    real = Source.encode

    def counting(self: Source, batch: Any) -> SourceFeatures:
        features = real(self, batch)
        seen.append(len(features))
        return features

    monkeypatch.setattr(Source, "encode", counting)
    return seen


@pytest.mark.usefixtures("small_files")
def test_only_new_samples_are_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path, "bert", IDS[:7])
    seen = encodes(monkeypatch)
    filled(tmp_path, "bert", IDS[:7])
    assert seen == []
    cache = filled(tmp_path, "bert", IDS)
    assert sum(seen[2:]) == 4  # beside the first batch, asked twice
    assert all(sample in cache for sample in IDS)


def test_the_size_is_said_before_anything_is_written(tmp_path: Path) -> None:
    said: list[tuple[str, int]] = []
    cache = filled(tmp_path, "resnet", say=lambda line: said.append((line, len(list(tmp_path.rglob("*.safetensors"))))))
    (line, files), *more = said
    assert (files, more) == (0, [])
    size = sum(file.stat().st_size for file in cache.folder.iterdir())
    stated = float(line.split("about ")[1].split()[0]) * {"kB": 1e3, "MB": 1e6}[line.split("about ")[1].split()[1]]
    assert stated == pytest.approx(size, rel=0.2)


def test_a_random_read_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with complains(SourceError, "augmentation"):
        fill(
            tmp_path,
            model("resnet").frozen_source,
            IDS,
            lambda ids: torch.randn(len(ids), 3, 64, 64),
            preprocessing="random",
        )
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_full_disk_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = source_fill.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(source_fill.shutil, "disk_usage", lambda path: usage._replace(free=10))
    with complains(SourceError, "does not fit"):
        filled(tmp_path, "resnet")
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("samples", "word"), [([], "strings"), ([1, 2], "strings"), (["a 1", "a 2", "a 1"], "one id")], ids=str
)
def test_bad_ids(samples: list[Any], word: str, tmp_path: Path) -> None:
    with complains(SourceError, word):
        fill(tmp_path, model("bert").frozen_source, samples, words_for, preprocessing="x")


def test_an_unknown_sample_is_named(tmp_path: Path) -> None:
    with complains(SourceError, "sample 99"):
        filled(tmp_path, "bert")[["sample 99"]]


def test_a_read_of_too_few_rows_is_refused(tmp_path: Path) -> None:
    with complains(SourceError, "another number of samples"):
        fill(tmp_path, model("bert").frozen_source, IDS, lambda ids: words_for(ids[:-1]), preprocessing="x")


def test_features_too_large_for_the_asked_precision_are_refused(tmp_path: Path) -> None:
    with complains(SourceError, "bfloat16"):
        fill(
            tmp_path, table(1e5).frozen_source, IDS, lambda ids: torch.ones(len(ids), 3, dtype=torch.long),
            preprocessing="", dtype=torch.float16, say=lambda line: None,
        )  # fmt: skip
    assert not list(tmp_path.rglob("*.safetensors"))


def test_nan_is_not_taken_for_a_random_read(tmp_path: Path) -> None:
    cache = fill(
        tmp_path, table(float("nan")).frozen_source, IDS, lambda ids: torch.ones(len(ids), 3, dtype=torch.long),
        preprocessing="", say=lambda line: None,
    )  # fmt: skip
    assert bool(cache[IDS[:2]].data.isnan().all())  # the forward that reads it raises


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with complains(SourceError, "cannot write"):
        filled(tmp_path / "file", "resnet")


@pytest.mark.parametrize(
    ("options", "word"), [({"batch_size": 0}, "batch_size"), ({"dtype": torch.int8}, "dtype")], ids=str
)
def test_bad_options(options: dict[str, Any], word: str, tmp_path: Path) -> None:
    with complains(SourceError, word):
        filled(tmp_path, "bert", **options)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_one_id_is_no_list_of_letters(tmp_path: Path) -> None:
    with complains(SourceError, "samples"):
        fill(tmp_path, model("bert").frozen_source, "sample 1", words_for, preprocessing="x")


def test_maps_of_different_sizes_are_refused(tmp_path: Path) -> None:
    def read(samples: list[str]) -> Tensor:
        return torch.zeros(len(samples), 3, 64 if samples[0] == IDS[0] else 96, 64)

    with complains(SourceError, "different sizes"):
        fill(tmp_path, model("resnet").frozen_source, IDS, read, preprocessing="x", batch_size=4, say=lambda line: None)
