"""The parts of a training, each measured alone, and one real training to compare the formulas with."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import models as m
from benchmarks.growth.exchange import exchange_speeds
from benchmarks.growth.simulate import Parts, Plan, simulate
from mi2p_inject import ExpandedModel, inject
from mi2p_inject.sources.cache import SourceCache
from mi2p_inject.sources.fill_cache import fill

__all__ = ["FULL", "TINY", "Sizes", "check", "measured_parts"]


@dataclass(frozen=True)
class Sizes:
    """What is measured.

    Attributes:
        vision: the backbone, of timm.
        text: options of the BERT that is the source.
        pixels, tokens, batch: of a step.
        photo: width and height of the image files.
        samples: of the real training, and of the cache.
        rounds: samples of each part.
    """

    vision: str = "efficientnet_lite0"
    text: tuple[tuple[str, int], ...] = (
        ("hidden_size", 384), ("num_hidden_layers", 6), ("num_attention_heads", 12), ("intermediate_size", 1536),
    )  # fmt: skip
    pixels: int = 224
    tokens: int = 64
    batch: int = 8
    photo: tuple[int, int] = (640, 480)
    samples: int = 32
    rounds: int = 5

    @property
    def words(self) -> str:
        """For people to read."""
        text = dict(self.text)
        return (
            f"ME {self.vision} at {self.pixels} px, attending to {self.tokens} tokens of a frozen BERT of "
            f"{text['num_hidden_layers']} layers, {text['hidden_size']} wide; batches of {self.batch}, all weights "
            f"trained with AdamW; JPEGs of {self.photo[0]}×{self.photo[1]}; {self.samples} samples in the real training"
        )


FULL = Sizes()
TINY = Sizes(
    "test_resnet",
    (("hidden_size", 32), ("num_hidden_layers", 2), ("num_attention_heads", 2), ("intermediate_size", 64)),
    pixels=64, tokens=8, photo=(80, 60), samples=16, rounds=2,
)  # fmt: skip


class Training:
    """An expanded model, its files and its cache."""

    def __init__(self, sizes: Sizes, folder: Path) -> None:
        import timm

        self.sizes, self.folder = sizes, folder
        self.encoder = m.bert(**dict(sizes.text))
        self.model: ExpandedModel = inject(
            timm.create_model(sizes.vision, num_classes=10).to(m.DEVICE).train(),
            source_encoder=self.encoder,
            source_example_inputs={"input_ids": self.ids(2)},
        )
        self.optimizer = torch.optim.AdamW(self.model.trainable_parameters(), lr=1e-5)
        self.names = [str(number) for number in range(sizes.samples)]
        self.texts = dict(zip(self.names, self.ids(sizes.samples), strict=True))
        self.photos = [_photo(folder / f"{name}.jpg", sizes.photo, seed) for seed, name in enumerate(self.names)]

    def ids(self, count: int) -> Tensor:
        return torch.randint(0, 30_000, (count, self.sizes.tokens)).to(m.DEVICE)

    def filled(self, name: str) -> SourceCache:
        return fill(
            self.folder / name, self.model.frozen_source, self.names,
            lambda names: {"input_ids": torch.stack([self.texts[name] for name in names])},
            preprocessing="", batch_size=self.sizes.batch, say=lambda line: None,
        )  # fmt: skip

    def image(self, number: int) -> Tensor:
        from mi2p_inject.recipes.data import open_image
        from mi2p_inject.recipes.encoders.preprocess import ImageSpec

        spec = ImageSpec((self.sizes.pixels, self.sizes.pixels), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        pixels: Tensor = spec.transform()(open_image(self.photos[number], on_bad="error", at_least=self.sizes.pixels))
        return pixels

    def step(self, x: Tensor, source: Any) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.model(x, source=source).float().square().mean().backward()
        self.optimizer.step()

    def run(self, epochs: int) -> None:
        """A whole training in this process: fill, then open, read and step."""
        cache, batch = self.filled("real"), self.sizes.batch
        for _ in range(epochs):
            for start in range(0, len(self.names), batch):
                x = torch.stack([self.image(number) for number in range(start, start + batch)]).to(m.DEVICE)
                self.step(x, cache[self.names[start : start + batch]].to(m.DEVICE))


def measured_parts(sizes: Sizes = FULL) -> dict[str, Any]:
    """`Parts`, with all samples of each, and the check; for a fresh process."""
    m.quiet()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        training = Training(sizes, Path(name))
        samples = _samples(training)
        middle = {part: statistics.median(values) for part, values in samples.items()}
        parts = Parts(
            batch=sizes.batch,
            gradient_bytes=float(sum(one.nbytes for one in training.model.trainable_parameters())),
            memory_bytes=float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
            **middle,
        )
        return {"what": sizes.words, "parts": vars(parts), "samples": samples, "check": check(training, parts)}


def check(training: Training, parts: Parts, epochs: int = 2) -> dict[str, float]:
    """A real training of one process without workers: processor seconds, and what the formulas say."""
    plan = Plan(training.sizes.samples, epochs=epochs, workers=0)
    measured = _processor_seconds(lambda: training.run(epochs))
    predicted = simulate(parts, plan)
    return {"samples": plan.samples, "epochs": epochs, "measured": measured, "predicted": predicted.total}


def _samples(training: Training) -> dict[str, list[float]]:
    sizes, batch = training.sizes, training.sizes.batch
    x, ids = torch.randn(batch, 3, sizes.pixels, sizes.pixels, device=m.DEVICE), training.ids(batch)
    features = training.model.encode({"input_ids": ids})
    cache = training.filled("warm")
    names = training.names[:batch]
    fresh = iter(range(10**9))
    parts: dict[str, tuple[Callable[[], object], float]] = {
        "step": (lambda: training.step(x, features), 1),
        "source": (lambda: training.model.encode({"input_ids": ids}), 1),
        "image": (lambda: [training.image(number) for number in range(batch)], batch),
        "read": (lambda: cache[names], batch),
        "fill": (lambda: training.filled(f"fill-{next(fresh)}"), sizes.samples),
    }
    found: dict[str, list[float]] = {name: [] for name in parts}
    for name, (work, _) in parts.items():
        if name != "fill":
            work()
    for _ in range(sizes.rounds):  # in turn: noise falls on all of them
        for name, (work, count) in parts.items():
            if name != "fill" or len(found["fill"]) < 3:
                found[name].append(_processor_seconds(work) / count)
    files = list((training.folder / "warm").rglob("*.safetensors"))
    found["sample_bytes"] = [sum(one.stat().st_size for one in files) / sizes.samples]
    found["index_bytes"] = [_index_bytes(cache)]
    found["disk_speed"] = [_disk_speed(training.folder) for _ in range(3)]
    found["exchange_speed"] = exchange_speeds(sum(one.numel() for one in training.model.trainable_parameters()))
    return found


def _processor_seconds(work: Callable[[], object]) -> float:
    """Of this process, which has one thread: what others do on the machine does not count."""
    started = time.process_time()
    work()
    return time.process_time() - started


def _index_bytes(cache: SourceCache) -> float:
    """Of one sample of a cache that was opened and not yet read."""
    tracemalloc.start()
    opened = SourceCache(cache.folder)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return held / len(opened)


def _disk_speed(folder: Path, size: int = 2**26) -> float:
    """Bytes a second, of a file that was pushed out of memory."""
    file = folder / "cold"
    file.write_bytes(os.urandom(size))
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        started = time.perf_counter()
        while opened.read(2**20):
            pass
        return size / (time.perf_counter() - started)


def _photo(path: Path, size: tuple[int, int], seed: int) -> Path:
    from PIL import Image

    small = np.random.default_rng(seed).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
    return path
