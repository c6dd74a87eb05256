"""The source cache: what it gives is what the encoder gives; what changes it; kills, races and damage."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import complains
from hypothesis import given, settings
from hypothesis import strategies as st
from models import TINY
from torch import Tensor, nn

import mi2p_inject.sources.fill_cache as source_fill
from mi2p_inject import ExpandedModel, SourceFeatures, inject
from mi2p_inject.core.errors import SourceError
from mi2p_inject.sources.cache import SourceCache
from mi2p_inject.sources.encoder import Source
from mi2p_inject.sources.fill_cache import fill

PICTURES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
IDS = [f"sample {number}" for number in range(11)]


def words_for(samples: list[str]) -> dict[str, Tensor]:
    """Ids and a mask: each sample has words of its own, and a length of its own."""
    numbers = [int(sample.split()[-1]) for sample in samples]
    ids = torch.stack([torch.arange(8).mul(number + 3).remainder(50) + 2 for number in numbers])
    mask = torch.arange(8) < torch.tensor([number % 8 + 1 for number in numbers]).unsqueeze(1)
    return {"input_ids": ids, "attention_mask": mask.long()}


def pictures_for(samples: list[str]) -> Tensor:
    generators = [torch.Generator().manual_seed(int(sample.split()[-1])) for sample in samples]
    return torch.stack([torch.randn(3, 64, 64, generator=generator) for generator in generators])


READ: dict[str, Any] = {"bert": words_for, "resnet": pictures_for}


def model(kind: str) -> ExpandedModel:
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
    return inject(net, layers="0", source_encoder=TINY[kind].build(), example_inputs=PICTURES, zero_init=None)


def filled(folder: Path, kind: str, samples: list[str] | None = None, **options: Any) -> SourceCache:
    options = {"preprocessing": "eight words", "say": lambda line: None, "batch_size": 4} | options
    return fill(folder, model(kind).source, samples or IDS, READ[kind], **options)


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_fill, "SAMPLES_PER_FILE", 3)


@pytest.mark.parametrize("kind", READ)
@pytest.mark.usefixtures("small_files")
def test_a_unit_hears_the_same_from_the_cache(kind: str, tmp_path: Path) -> None:
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


def test_another_encoder_preprocessing_or_precision_is_another_cache(tmp_path: Path) -> None:
    me = model("bert")
    fill_it = {"say": lambda line: None, "preprocessing": "a"}
    one = fill(tmp_path, me.source, IDS, words_for, **fill_it)  # type: ignore[arg-type]
    again = fill(tmp_path, me.source, IDS, words_for, **fill_it)  # type: ignore[arg-type]
    other = fill(tmp_path, me.source, IDS, words_for, **fill_it | {"preprocessing": "b"})  # type: ignore[arg-type]
    half = fill(tmp_path, me.source, IDS, words_for, dtype=torch.float16, **fill_it)  # type: ignore[arg-type]
    assert me.source_encoder is not None
    with torch.no_grad():
        next(me.source_encoder.parameters()).flatten()[0].add_(1)
    trained = fill(tmp_path, me.source, IDS, words_for, **fill_it)  # type: ignore[arg-type]
    with torch.autocast("cpu", torch.bfloat16):
        cast = fill(tmp_path, me.source, IDS, words_for, **fill_it)  # type: ignore[arg-type]
    assert one.folder == again.folder
    assert len({one.folder, other.folder, half.folder, trained.folder, cast.folder}) == 5
    assert half[IDS[:2]].data.dtype is torch.float16


@pytest.mark.usefixtures("small_files")
def test_processes_with_other_orders_of_the_samples_write_the_same_files(tmp_path: Path) -> None:
    caches = [filled(tmp_path / str(number), "bert", samples) for number, samples in enumerate((IDS, IDS[::-1]))]
    names = [sorted(file.name for file in cache.folder.glob("*.safetensors")) for cache in caches]
    assert len(names[0]) == 4
    assert names[0] == names[1]


def test_a_folder_that_takes_no_lock_is_said_to_be_unwritable(tmp_path: Path) -> None:
    cache = filled(tmp_path, "bert", IDS[:1])
    for file in cache.folder.glob("*.safetensors"):
        (cache.folder / f"{file.stem}.lock").mkdir()
        file.unlink()
    with complains(SourceError, "cannot write the source cache", str(cache.folder)):
        filled(tmp_path, "bert", IDS[:1])


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
            tmp_path, model("resnet").source, IDS, lambda ids: torch.randn(len(ids), 3, 64, 64), preprocessing="random"
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
        fill(tmp_path, model("bert").source, samples, words_for, preprocessing="x")


def test_an_unknown_sample_is_named(tmp_path: Path) -> None:
    with complains(SourceError, "sample 99"):
        filled(tmp_path, "bert")[["sample 99"]]


def test_a_read_of_too_few_rows_is_refused(tmp_path: Path) -> None:
    with complains(SourceError, "another number of samples"):
        fill(tmp_path, model("bert").source, IDS, lambda ids: words_for(ids[:-1]), preprocessing="x")


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


def _fill_slowly(folder: Path, seconds: float) -> None:
    torch.set_num_threads(1)
    source_fill.SAMPLES_PER_FILE = 2

    def read(samples: list[str]) -> dict[str, Tensor]:
        time.sleep(seconds)
        return words_for(samples)

    fill(folder, model("bert").source, IDS, read, preprocessing="slow", batch_size=2, say=lambda line: None)


def test_processes_share_the_work_and_a_killed_one_leaves_whole_files(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_fill_slowly, args=(tmp_path, 0.2)) for _ in range(2)]
    for worker in workers:
        worker.start()
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(workers[0].pid or 0, signal.SIGKILL)
    workers[1].join(60)
    assert workers[1].exitcode == 0
    (folder,) = tmp_path.iterdir()
    cache = SourceCache(folder)
    assert sorted(name for name in IDS if name in cache) == sorted(IDS)
    lengths = words_for(IDS)["attention_mask"].sum(1)
    assert cache[IDS].mask is not None
    assert torch.equal(cache[IDS].mask.sum(1), lengths)  # type: ignore[union-attr]


def test_a_cache_travels_to_workers(tmp_path: Path) -> None:
    cache = filled(tmp_path, "resnet")
    loader = torch.utils.data.DataLoader(  # type: ignore[var-annotated]
        IDS, batch_size=4, num_workers=1, collate_fn=lambda ids: cache[ids].data, multiprocessing_context="fork"
    )
    assert torch.equal(torch.cat(list(loader)), cache[IDS].data)
    assert torch.equal(pickle.loads(pickle.dumps(cache))[IDS].data, cache[IDS].data)


def read_by(encoder: nn.Module, example: Tensor) -> ExpandedModel:
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
    return inject(net, layers="0", source_encoder=encoder, example_inputs=PICTURES, source_example_inputs=example)


class Scaled(nn.Module):
    """Settings of every kind that a state dict does not hold."""

    def __init__(self, stride: int = 1, act: Any = torch.relu, mean: float = 0.0, power: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.act, self.power = nn.Conv2d(3, 4, 3, stride=stride), act, power
        self.register_buffer("mean", torch.tensor(mean), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x - self.mean)) * self.power  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "changed", [{"stride": 2}, {"act": torch.tanh}, {"mean": 1.0}, {"power": 2.0}], ids=lambda given: next(iter(given))
)
def test_another_setting_of_the_same_weights_is_another_cache(changed: dict[str, Any], tmp_path: Path) -> None:
    example = torch.randn(2, 3, 64, 64)
    caches = [
        fill(
            tmp_path,
            read_by(Scaled(**given), example).source,
            IDS,
            pictures_for,
            preprocessing="",
            say=lambda line: None,
        )
        for given in ({}, {}, changed)
    ]
    assert caches[0].folder == caches[1].folder != caches[2].folder


@pytest.mark.parametrize("changed", [{"num_attention_heads": 2}, {"hidden_act": "relu"}, {"layer_norm_eps": 0.1}])
def test_another_configuration_of_a_bert_is_another_cache(changed: dict[str, Any], tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    def bert(**options: Any) -> nn.Module:
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 60}
        return BertModel(BertConfig(**{**sizes, "num_attention_heads": 4, **options}))

    example = torch.ones(1, 8, dtype=torch.long)
    folders = [
        fill(
            tmp_path, read_by(bert(**given), example).source, IDS, words_for, preprocessing="", say=lambda line: None
        ).folder
        for given in ({}, {}, changed)
    ]
    assert folders[0] == folders[1] != folders[2]


def table(value: float) -> ExpandedModel:
    return read_by(nn.Embedding.from_pretrained(torch.full((9, 5), value)), torch.zeros(1, 3, dtype=torch.long))


def test_features_too_large_for_the_asked_precision_are_refused(tmp_path: Path) -> None:
    with complains(SourceError, "bfloat16"):
        fill(
            tmp_path, table(1e5).source, IDS, lambda ids: torch.ones(len(ids), 3, dtype=torch.long), preprocessing="",
            dtype=torch.float16, say=lambda line: None,
        )  # fmt: skip
    assert not list(tmp_path.rglob("*.safetensors"))


def test_nan_is_not_taken_for_a_random_read(tmp_path: Path) -> None:
    cache = fill(
        tmp_path, table(float("nan")).source, IDS, lambda ids: torch.ones(len(ids), 3, dtype=torch.long),
        preprocessing="", say=lambda line: None,
    )  # fmt: skip
    assert bool(cache[IDS[:2]].data.isnan().all())  # the forward that reads it raises


def test_no_samples_and_a_file_that_is_gone_are_errors_of_ours(tmp_path: Path) -> None:
    cache = filled(tmp_path, "resnet")
    with complains(SourceError, "one id"):
        cache[[]]
    for file in cache.folder.glob("*.safetensors"):
        file.unlink()
    with complains(SourceError, "gone"):
        cache[IDS[:2]]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with complains(SourceError, "cannot write"):
        filled(tmp_path / "file", "resnet")


def test_locks_of_other_lists_stay(tmp_path: Path) -> None:
    cache = filled(tmp_path, "resnet", IDS[:3])
    (cache.folder / "other.lock").touch()
    filled(tmp_path, "resnet", IDS[:5])
    assert [file.name for file in cache.folder.glob("*.lock")] == ["other.lock"]


@pytest.mark.parametrize(
    ("options", "word"), [({"batch_size": 0}, "batch_size"), ({"dtype": torch.int8}, "dtype")], ids=str
)
def test_bad_options(options: dict[str, Any], word: str, tmp_path: Path) -> None:
    with complains(SourceError, word):
        filled(tmp_path, "bert", **options)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_one_id_is_no_list_of_letters(tmp_path: Path) -> None:
    with complains(SourceError, "samples"):
        fill(tmp_path, model("bert").source, "sample 1", words_for, preprocessing="x")


def test_maps_of_different_sizes_are_refused(tmp_path: Path) -> None:
    def read(samples: list[str]) -> Tensor:
        return torch.zeros(len(samples), 3, 64 if samples[0] == IDS[0] else 96, 64)

    with complains(SourceError, "different sizes"):
        fill(tmp_path, model("resnet").source, IDS, read, preprocessing="x", batch_size=4, say=lambda line: None)


def test_others_may_read_what_the_folder_lets_them_read(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    (file,) = filled(tmp_path / "cache", "bert").folder.glob("*.safetensors")
    assert file.stat().st_mode == (tmp_path / "plain").stat().st_mode
