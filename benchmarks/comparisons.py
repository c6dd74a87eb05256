"""How the benchmarks are measured: each function builds two steps and runs them side by side."""

from __future__ import annotations

import functools
import itertools
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from benchmarks.measure import Comparison, in_process, peak_of, seconds_of, side_by_side

__all__ = [
    "MEMORY_RUNS",
    "cached_against_in_memory_bert",
    "cached_against_in_memory_densenet",
    "hooks_against_hand_bert",
    "hooks_against_hand_densenet",
    "import_seconds",
    "inject_seconds",
    "light_touch",
    "me_bert_against_bert",
    "me_bert_against_bert_compiled",
    "me_bert_against_bert_paper",
    "me_bert_memory",
    "me_densenet_against_densenet",
    "me_densenet_memory",
    "ours_against_literal",
    "ours_against_literal_memory",
    "peer_cost",
    "peer_names",
    "pooled",
    "query_against_mean",
]

MEMORY_RUNS = 2


def _query() -> tuple[Any, torch.Tensor]:
    """The query embedder of a 256×56×56 map, 8 heads of 64, without channel embedding: the literal form."""
    from mi2p_inject import MI2P, ViewSpec

    unit = MI2P(num_heads=8, channel_embedding_dim=0).build(ViewSpec.map(256, 56, 56), ViewSpec.tokens(768))
    return unit.site_embedding.to(_device()), torch.randn(2, 256, 56, 56, device=_device(), requires_grad=True)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _query_step(batch: int = 2) -> Callable[[], object]:
    query, z = _query()
    z = z.detach().repeat(batch // 2, 1, 1, 1).requires_grad_()
    weight = torch.randn(batch, 256, 512, device=z.device)

    def step() -> object:
        z.grad = None
        return query.all_heads(query.factors(z)).backward(weight)

    return step


def _mean_step(batch: int = 8) -> Callable[[], object]:
    z = _query()[1].detach().repeat(batch // 2, 1, 1, 1).requires_grad_()
    weight = torch.randn(batch, 256, device=z.device)

    def step() -> object:
        z.grad = None
        return z.mean((2, 3)).backward(weight)

    return step


def _literal_step() -> Callable[[], object]:
    """As the paper writes it: convolve every channel with all kernels, then average."""
    query, z = _query()
    kernels, bias = query.weight.view(512, 1, 3, 3), query.bias
    weight = torch.randn(2, 256, 512, device=z.device)

    def step() -> object:
        z.grad = None
        maps = torch.nn.functional.conv2d(z.flatten(0, 1).unsqueeze(1), kernels, bias, padding=1)
        return maps.mean((2, 3)).view(2, 256, 512).backward(weight)

    return step


def query_against_mean() -> Comparison:
    return side_by_side(_mean_step(8), _query_step(8), rounds=60)


def ours_against_literal() -> Comparison:
    return side_by_side(_literal_step(), _query_step(), rounds=2, warmup_rounds=1)


def ours_against_literal_memory() -> Comparison:
    return _memory("literal", "query")


def me_bert_against_bert(**options: Any) -> Comparison:
    from benchmarks import models as m

    me = m.me_bert(**options)
    base, ours = m.forward_backward(m.bert(), m.ids()), m.forward_backward(me, m.ids(), source=m.picture())
    return side_by_side(base, ours, rounds=8)


def pooled(measure: Callable[[], Comparison]) -> Comparison:
    """The pairs of three fresh processes: memory falls better or worse in each, and the ratio differs with it."""
    found = [in_process(measure) for _ in range(3)]
    base, ours = (list(itertools.chain(*side)) for side in zip(*((one.base, one.ours) for one in found), strict=True))
    return Comparison(base, ours, found[0].unit, found[0].paired)


def me_bert_against_bert_paper() -> Comparison:
    return me_bert_against_bert(unit="mi2p-paper")


def me_bert_against_bert_compiled() -> Comparison:
    from benchmarks import models as m

    base, ours = torch.compile(m.bert(), fullgraph=True), torch.compile(m.me_bert(), fullgraph=True)
    steps = m.forward_backward(base, m.ids()), m.forward_backward(ours, m.ids(), source=m.picture())  # type: ignore[arg-type]
    return side_by_side(*steps, rounds=5, warmup_rounds=3)


def me_densenet_against_densenet(**options: Any) -> Comparison:
    from benchmarks import models as m

    me = m.me_densenet(**options)
    base, ours = m.forward_backward(m.densenet(), m.pixels()), m.forward_backward(me, m.pixels(), source=m.words())
    return side_by_side(base, ours, rounds=6)


def me_bert_memory() -> Comparison:
    return _memory("bert", "me_bert")


def me_densenet_memory() -> Comparison:
    return _memory("densenet", "me_densenet")


def hooks_against_hand_bert() -> Comparison:
    """One sample a step: what a hook costs does not grow with the batch, so it weighs most here."""
    from benchmarks import models as m

    hand = m.forward_backward(m.ByHand(m.me_bert()), m.ids(1), source=m.picture(1))
    return side_by_side(hand, m.forward_backward(m.me_bert(), m.ids(1), source=m.picture(1)), rounds=16)


def hooks_against_hand_densenet() -> Comparison:
    """One sample a step, as above."""
    from benchmarks import models as m

    hand = m.forward_backward(m.ByHand(m.me_densenet()), m.pixels(1), source=m.words(1))
    return side_by_side(hand, m.forward_backward(m.me_densenet(), m.pixels(1), source=m.words(1)), rounds=16)


def cached_against_in_memory_densenet() -> Comparison:
    """ME DenseNet-121 with the words of BERT-base from disk."""
    from benchmarks import models as m
    from mi2p_inject import inject

    me = inject(m.densenet(), "paper", source_encoder=m.bert())
    batch = {"input_ids": m.ids()}
    return _cached(me, m.pixels(), lambda rows: {"input_ids": batch["input_ids"][rows]})


def cached_against_in_memory_bert() -> Comparison:
    """ME BERT-base with the maps of DenseNet-121 from disk."""
    from benchmarks import models as m
    from mi2p_inject import inject

    me = inject(m.bert(), m.LAYERS, source_encoder=m.densenet())
    pictures = m.pixels()
    return _cached(me, m.ids(), lambda rows: pictures[rows])


def _cached(me: Any, x: torch.Tensor, read: Callable[[list[int]], Any]) -> Comparison:
    from benchmarks import models as m
    from mi2p_inject.sources.fill_cache import fill

    samples = [str(number) for number in range(64)]
    with tempfile.TemporaryDirectory() as folder:
        cache = fill(
            folder, me.frozen_source, samples, lambda ids: read([int(one) % m.BATCH for one in ids]), preprocessing="",
            batch_size=m.BATCH, say=lambda line: None,
        )  # fmt: skip
        in_memory = cache[samples[: m.BATCH]].to(m.DEVICE)
        turn = iter(range(10**9))

        def from_disk() -> object:
            start = next(turn) * m.BATCH % len(samples)
            features = cache[samples[start : start + m.BATCH]].to(m.DEVICE)
            return m.forward_backward(me, x, source=features)()

        return side_by_side(m.forward_backward(me, x, source=in_memory), from_disk, rounds=12)


def inject_seconds(what: str) -> Comparison:
    return Comparison([], [in_process(_inject_seconds, what) for _ in range(3)], "s", paired=False)


def _inject_seconds(what: str) -> float:
    import transformers

    from benchmarks import models as m
    from mi2p_inject import inject

    m.quiet()
    if what == "llama-7b":
        with torch.device("meta"):
            model: Any = transformers.LlamaModel(transformers.LlamaConfig())  # the defaults are the 7-billion model's
        expanded: list[Any] = []
        seconds = seconds_of(lambda: expanded.append(inject(model, source_spec=m.PICTURE)))
        if not all(parameter.is_meta for parameter in expanded[0].parameters()):
            raise RuntimeError("weights were allocated beside a model without weights")
        return seconds
    model = m.densenet() if what == "densenet" else m.bert()
    return seconds_of(lambda: inject(model, source_spec=m.WORDS if what == "densenet" else m.PICTURE))


def import_seconds() -> Comparison:
    return Comparison([], [in_process(_import_seconds) for _ in range(3)], "s", paired=False)


def _import_seconds() -> float:
    import subprocess

    program = "import time, torch; a = time.perf_counter(); import mi2p_inject; print(time.perf_counter() - a)"
    return float(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout)


def light_touch() -> Comparison:
    """What PEFT's LoRA (rank 8, query and value) adds to a BERT-base whose weights all train: the yardstick."""
    from peft import LoraConfig, get_peft_model

    from benchmarks import models as m

    lora = get_peft_model(m.bert(), LoraConfig(r=8, target_modules=["query", "value"]))
    for parameter in lora.parameters():
        parameter.requires_grad_(True)
    return side_by_side(m.forward_backward(m.bert(), m.ids()), m.forward_backward(lora, m.ids()), rounds=4)


def _memory(base: str, ours: str) -> Comparison:
    with ThreadPoolExecutor(2) as pool:  # side by side: nobody takes the time
        peaks = list(pool.map(functools.partial(in_process, _peak), [base, ours] * MEMORY_RUNS))
    return Comparison(peaks[::2], peaks[1::2], "MB", paired=False)


def _peak(what: str) -> float:
    from benchmarks import models as m

    m.quiet()
    m.warm_libraries()
    builders: dict[str, Callable[[], Any]] = {
        "literal": _literal_step,
        "query": _query_step,
        "bert": lambda: m.training_step(m.bert(), m.ids()),
        "me_bert": lambda: m.training_step(m.me_bert(), m.ids(), source=m.picture()),
        "densenet": lambda: m.training_step(m.densenet(), m.pixels()),
        "me_densenet": lambda: m.training_step(m.me_densenet(), m.pixels(), source=m.words()),
    }
    return peak_of(builders[what], runs=1 if what == "literal" else 2)


def peer_cost(name: str) -> tuple[list[float], float]:
    """Seconds of some training steps of a peer, and its peak memory in MB; for a fresh process."""
    from benchmarks import models as m

    m.quiet()
    step: list[Any] = []

    def build() -> Any:
        step.append(m.peers()[name]())
        return step[0]

    peak = peak_of(build, runs=2)
    return [seconds_of(step[0]) for _ in range(2)], peak


def peer_names() -> list[str]:
    """Names of the peers."""
    from benchmarks.models import peers

    return list(peers())
