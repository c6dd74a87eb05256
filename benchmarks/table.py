"""The benchmarks of docs/performance.md: what is measured, with what it is compared, and how much it may cost."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks import comparisons as c
from benchmarks import gpu
from benchmarks.measure import Comparison

__all__ = ["BENCHMARKS", "Benchmark", "measurable", "measured"]


@dataclass(frozen=True)
class Benchmark:
    """One measurement.

    Attributes:
        name: short, unique.
        ours: what is measured.
        base: with what it is compared; "" where the limit is in seconds.
        limit: the ratio (or the seconds) it may take; None: for information.
        gpu: it is measured on a CUDA device, in bfloat16, and nowhere else; elsewhere the page says so.
        at_least: the ratio has to be this large instead: base ÷ ours.
        measure: gives the samples; runs in a process of its own.
        profile: gives what the two ask of a GPU, after that; None: nobody asks.
    """

    name: str
    ours: str
    base: str
    limit: float | None
    measure: Callable[[], Comparison]
    at_least: bool = False
    gpu: bool = False
    profile: Callable[[], dict[str, Any]] | None = None


def _on_gpu(
    name: str, ours: str, base: str, limit: float, pair: Callable[..., gpu.Pair], *, profiled: bool = True
) -> Benchmark:
    """A pair that is timed on a GPU, and profiled unless it is compiled: kernels of a graph belong to no unit."""
    profile = functools.partial(gpu.profiled, pair) if profiled else None
    return Benchmark(name, ours, base, limit, functools.partial(gpu.compared, pair), gpu=True, profile=profile)


BENCHMARKS = (
    Benchmark("a", "map query embedding, 256×56×56, head_dim 64, 8 heads", "`z.mean((2, 3))`", 3, c.query_against_mean),
    Benchmark("b-time", "the same embedding, batch 2", "the literal form", 100, c.ours_against_literal, at_least=True),
    Benchmark("b-memory", "the same embedding, batch 2", "the literal form", 100, c.ours_against_literal_memory,
        at_least=True),
    Benchmark("c", "ME BERT-base: 12 units, source 1024×7×7, 64 tokens, batch 8", "BERT-base", 1.28,
        lambda: c.pooled(c.me_bert_against_bert)),
    Benchmark("c-default", "the same at the recommended sites: 2 units", "BERT-base", 1.15,
        functools.partial(c.me_bert_against_bert, sites=None)),
    Benchmark("c-paper", "the same, 12 units `mi2p-paper`", "BERT-base", 1.20, c.me_bert_against_bert_paper),
    Benchmark("c-compiled", "the same, 12 default units, `torch.compile`", "BERT-base compiled", None,
        c.me_bert_against_bert_compiled),
    Benchmark("c-cross-attention", "the same, 12 units `cross-attention`", "BERT-base", None,
        lambda: c.me_bert_against_bert(unit="cross-attention")),
    Benchmark("c-film", "the same, 12 units `film`", "BERT-base", None, lambda: c.me_bert_against_bert(unit="film")),
    Benchmark("d", "ME DenseNet-121: 4 units, 224 px, 64 source tokens, batch 8", "DenseNet-121", 1.15,
        lambda: c.pooled(c.me_densenet_against_densenet)),
    Benchmark("d-default", "the same at the recommended site: 1 unit", "DenseNet-121", 1.15,
        functools.partial(c.me_densenet_against_densenet, layers=None)),
    *(Benchmark(f"d-{unit}", f"the same, 4 units `{unit}`", "DenseNet-121", None,
          functools.partial(c.me_densenet_against_densenet, unit=unit))
      for unit in ("cross-attention", "film", "mmtm")),
    Benchmark("e-bert", "ME BERT-base, peak memory of training with AdamW", "BERT-base", 1.25, c.me_bert_memory),
    Benchmark("e-densenet", "ME DenseNet-121, peak memory of training with AdamW", "DenseNet-121", 1.10,
        c.me_densenet_memory),
    Benchmark("f-bert", "ME BERT-base, batch 1", "the same units by hand in the model", 1.02,
        c.hooks_against_hand_bert),
    Benchmark("f-densenet", "ME DenseNet-121, batch 1", "the same units by hand in the model", 1.02,
        c.hooks_against_hand_densenet),
    Benchmark("g-tokens", "ME DenseNet-121, tokens from the source cache (files read before)",
        "the same features in memory", 1.03, c.cached_against_in_memory_densenet),
    Benchmark("g-maps", "ME BERT-base, maps from the source cache (files read before)",
        "the same features in memory", 1.03, c.cached_against_in_memory_bert),
    Benchmark("h-densenet", "`inject()` into DenseNet-121, first call of a process", "", 1,
        lambda: c.inject_seconds("densenet")),
    Benchmark("h-bert", "`inject()` into BERT-base, first call of a process", "", 1, lambda: c.inject_seconds("bert")),
    Benchmark("h-7b", "`inject()` into a decoder of 7 billion weights on the meta device", "", 5,
        lambda: c.inject_seconds("llama-7b")),
    Benchmark("i", "`import mi2p_inject` after `import torch`", "", 0.3, c.import_seconds),
    Benchmark("lora", "yardstick: PEFT LoRA, rank 8, on BERT-base, all weights trained", "BERT-base", None,
        c.light_touch),
    _on_gpu("gpu-bert", "ME BERT-base at the recommended sites, batch 256, 128 tokens", "BERT-base", 1.05,
        functools.partial(gpu.bert_units, all_sites=False)),
    _on_gpu("gpu-bert-quarter", "the same, batch 64", "BERT-base", 1.05,
        functools.partial(gpu.bert_units, all_sites=False, quarter=True)),
    _on_gpu("gpu-bert-all", "batch 256 again, all twelve sites", "BERT-base", 1.15,
        functools.partial(gpu.bert_units, all_sites=True)),
    _on_gpu("gpu-bert-compiled", "the same, all twelve sites, `torch.compile`", "BERT-base compiled", 1.15,
        functools.partial(gpu.bert_units, all_sites=True, compiled=True), profiled=False),
    _on_gpu("gpu-densenet", "ME DenseNet-121 at the recommended site, batch 256, 128 source tokens", "DenseNet-121",
        1.06, gpu.densenet_units),
    _on_gpu("gpu-densenet-compiled", "the same, `torch.compile`", "DenseNet-121 compiled", 1.06,
        functools.partial(gpu.densenet_units, compiled=True), profiled=False),
    _on_gpu("gpu-source-bert", "a step of ME BERT-base with a frozen DenseNet-121 as source",
        "BERT-base's step and DenseNet-121's forward", 1.05, functools.partial(gpu.with_source, text=True)),
    _on_gpu("gpu-source-densenet", "a step of ME DenseNet-121 with a frozen BERT-base as source",
        "DenseNet-121's step and BERT-base's forward", 1.05, functools.partial(gpu.with_source, text=False)),
)  # fmt: skip


def measurable(benchmark: Benchmark) -> bool:
    """Whether this machine has what it takes."""
    return not benchmark.gpu or torch.cuda.is_available()


def measured(name: str) -> dict[str, Any]:
    """The result of a benchmark as JSON values; for a fresh process."""
    from benchmarks.models import quiet

    quiet()
    benchmark = next(benchmark for benchmark in BENCHMARKS if benchmark.name == name)
    found = benchmark.measure()
    in_seconds = not found.base
    return {
        "name": benchmark.name,
        "ours": benchmark.ours,
        "base": benchmark.base,
        "limit": benchmark.limit,
        "at_least": benchmark.at_least,
        "unit": found.unit,
        "ratio": statistics.median(found.ours) if in_seconds else found.ratio,
        "spread": (min(found.ours), max(found.ours)) if in_seconds else found.spread,
        "samples": {"base": found.base, "ours": found.ours},
        "profile": benchmark.profile() if benchmark.profile else None,
    }
