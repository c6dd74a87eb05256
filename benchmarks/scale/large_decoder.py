"""A decoder of half a billion random parameters, frozen, whose units are really trained for a few steps on a CPU.

    python -m benchmarks.scale.large_decoder

Prints the loss of each step, the peak of this process's memory, and what `mi2p layers --memory` plans for it. The sizes
are those of Qwen2-0.5B; nothing is downloaded.
"""

from __future__ import annotations

import resource
import time
from dataclasses import asdict, dataclass
from typing import Annotated

import torch
import transformers
import typer

from benchmarks.measure import resident
from mi2p_inject import ExpandedModel, SourceFeatures, ViewSpec, inject
from mi2p_inject.core.human import human
from mi2p_inject.inspection.resolve import resolve
from mi2p_inject.report.memory import MemoryPlan, plan_memory

__all__ = ["Measured", "decoder", "main", "measure"]

SIZES = {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "vocab_size": 151_936}
HEADS = {"num_attention_heads": 14, "num_key_value_heads": 2}
PICTURE = ViewSpec.map(64, 4, 4)


@dataclass(frozen=True)
class Measured:
    """What was measured of one training.

    Attributes:
        parameters, trained: of the decoder; of the units.
        losses: of each step.
        seconds: of a step, the first one left out.
        before, peak: bytes of this process before the training began, and the most at any time.
    """

    parameters: int
    trained: int
    losses: list[float]
    seconds: float
    before: int
    peak: int


def decoder(dtype: torch.dtype = torch.bfloat16) -> transformers.PreTrainedModel:
    """A Qwen2 of 494 million random parameters, made in its type at once."""
    config = transformers.Qwen2Config(**SIZES, **HEADS, tie_word_embeddings=True, dtype=dtype, use_cache=False)
    torch.set_default_dtype(dtype)
    try:
        return transformers.Qwen2ForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(torch.float32)


def measure(me: ExpandedModel, steps: int, batch: int, length: int) -> Measured:
    """Train the units to say what the source says: each sample's text follows from its picture alone."""
    generator = torch.Generator().manual_seed(0)
    features = SourceFeatures(torch.randn(batch, PICTURE.width, *(PICTURE.grid or ()), generator=generator))
    ids = torch.zeros(batch, length, dtype=torch.long)
    labels = torch.randint(0, SIZES["vocab_size"], (batch, 1), generator=generator).expand(batch, length)
    optimizer = torch.optim.AdamW(me.trainable_parameters(), lr=3e-3)
    losses, before, started = [], round(1e6 * resident("VmRSS")), 0.0
    for step in range(steps):
        started = started if step > 1 else time.perf_counter()
        loss = me(input_ids=ids, labels=labels, source=features).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        print(f"step {step + 1}: loss {losses[-1]:.3f}", flush=True)
    seconds = (time.perf_counter() - started) / max(steps - 1, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    trained = sum(one.numel() for one in me.trainable_parameters())
    return Measured(sum(one.numel() for one in me.backbone.parameters()), trained, losses, seconds, before, peak)


def planned(me: ExpandedModel, batch: int, length: int) -> MemoryPlan:
    """What `mi2p layers --memory` says of the same training."""
    resolved = resolve(me.backbone)
    config = me.expansion_config
    sites = {site.path: site.spec for site in config.sites}
    return plan_memory(
        me.backbone, resolved.inputs, sites, PICTURE, config.unit, config.num_heads, batch=batch, tokens=length
    )


def main(
    steps: Annotated[int, typer.Option(help="Steps of the training.", min=1)] = 6,
    batch: Annotated[int, typer.Option(help="Samples.", min=1)] = 2,
    length: Annotated[int, typer.Option(help="Tokens of a sample.", min=1)] = 32,
) -> None:
    """Build it, train its units, print what was measured beside what was planned."""
    torch.manual_seed(0)
    me = inject(decoder(), source_spec=PICTURE, trainable="units")
    me.units.float()  # bfloat16 weights would lose most of a small step
    me.units.train()
    plan = planned(me, batch, length)
    found = measure(me, steps, batch, length)
    totals = plan.totals()["training, trainable=units"]
    print({name: value for name, value in asdict(found).items() if name != "losses"})
    print(f"peak {human(found.peak, 'B')}, of which {human(found.before, 'B')} before the first step")
    print("planned: " + ", ".join(f"{name} {human(value, 'B')}" for name, value in totals.items()))


if __name__ == "__main__":
    typer.run(main)
