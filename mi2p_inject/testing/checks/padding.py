"""The check that padding of a source counts for nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mi2p_inject.core.numerics.normal import normal
from mi2p_inject.sources.features import SourceFeatures
from mi2p_inject.testing.checks.outputs import mixes_samples
from mi2p_inject.testing.compare import batch_axis, floats
from mi2p_inject.testing.inputs import run
from mi2p_inject.testing.randomize import randomize_zero_parameters
from mi2p_inject.testing.subject import Trial

__all__ = ["check_padding"]

MORE = 7
"""Tokens that one sample has more than the others."""
OF_EFFECT, OF_OUTPUT = 0.05, 1e-5
"""How much of the source's effect, and of the largest number, other rounding may be."""


def check_padding(trial: Trial) -> None:
    """A sample's output does not depend on how much padding its source has, as where another sample's is longer."""
    me, source, batch = trial.expand(), trial.source, trial.subject.batch
    if source.mask is None:  # a map
        return
    bare, inputs = trial.twin(), trial.inputs
    randomize_zero_parameters(me.units, strength=1.0)
    with torch.no_grad():
        plain = run(bare, inputs)
        short = run(me, inputs, source=source)
        long = run(me, inputs, source=_longer(source.data, source.mask))
        kept = _near(long, short, plain, batch)
        if kept is None:
            trial.note("no output has a batch axis")
        elif not kept and mixes_samples(bare, inputs, plain, batch):
            trial.note("the model itself mixes the samples of a batch")
        else:
            trial.require(
                kept,
                "padding changes the output of its sample",
                expected=f"the same output in samples 1 to {batch - 1} with {MORE} more tokens of padding",
                given="another one",
                fix="let the unit read source.mask, or source.pooled(), which is the mean over the real tokens",
            )


def _longer(data: Tensor, mask: Tensor) -> SourceFeatures:
    """The same with more tokens, real ones in the first sample and padding in all others."""
    batch, _, width = data.shape
    more = normal((batch, MORE, width), torch.Generator().manual_seed(1)).to(data)
    real = torch.zeros(batch, MORE, dtype=torch.bool, device=mask.device)
    real[0] = True
    return SourceFeatures(torch.cat([data, more], 1), torch.cat([mask, real], 1))


def _near(long: Any, short: Any, plain: Any, batch: int) -> bool | None:
    """Whether all samples but the first are equal up to rounding; None where no output has a batch axis."""
    known = False
    for one, other, without in zip(floats(long), floats(short), floats(plain), strict=True):
        axis = batch_axis(other, batch)
        if axis is None or one.shape != other.shape:
            continue
        known = True
        a, b, c = (tensor.narrow(axis, 1, batch - 1).double() for tensor in (one, other, without))
        allowed = OF_EFFECT * _largest(b - c) + OF_OUTPUT * _largest(b)
        unequal = (a != b) & ((a == a) | (b == b))
        if not bool(((a - b).abs()[unequal] <= allowed).all()):
            return False
    return True if known else None


def _largest(tensor: Tensor) -> float:
    """Of the finite numbers; a mask's infinity is no size."""
    finite = tensor[tensor.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0
