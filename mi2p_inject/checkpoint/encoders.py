"""Which source encoders a checkpoint was made with: told at saving, compared at loading. They are not saved."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from typing import Any

from torch import nn

from mi2p_inject.core.errors import InjectionWarning
from mi2p_inject.core.files.digest import quick_sums
from mi2p_inject.core.numerics.precision import floating_dtype
from mi2p_inject.sources.encoder import Source

__all__ = ["encoders_json", "warn_of_other_encoders"]


def encoders_json(sources: Mapping[str, Source]) -> dict[str, dict[str, str]]:
    """By name the class of each encoder, the dtype of its weights and a checksum of them."""
    return {name: _told(source.inner) for name, source in sources.items()}


def warn_of_other_encoders(config: Mapping[str, Any], sources: Mapping[str, Source]) -> None:
    """Warn of encoders that are not those that a checkpoint was saved with. Older checkpoints do not say.

    Weights are compared in one dtype only: those that were converted give other sums.
    """
    told = config.get("encoders")
    for name, source in sources.items():
        saved = told.get(name) if isinstance(told, dict) else None
        if not isinstance(saved, dict):
            continue
        now = _told(source.inner)
        same_class = now["class"] == saved.get("class")
        if same_class and (now["dtype"] != saved.get("dtype") or now == saved):
            continue
        differs = "has other weights" if same_class else "is another"
        warnings.warn(
            InjectionWarning(
                f"this source encoder{f' for {name}' if name else ''} {differs} than the one that the checkpoint was "
                f"made with\n  expected: {saved.get('class')}, as it was then\n  given: {now['class']}\n"
                "  fix: pass the encoder that the units were trained with, or train them for this one"
            ),
            stacklevel=4,
        )


def _told(encoder: nn.Module) -> dict[str, str]:
    encoder = getattr(encoder, "_orig_mod", encoder)  # of torch.compile's wrapper
    sums = json.dumps(sorted(quick_sums(encoder).items()))
    return {
        "class": type(encoder).__qualname__,
        "dtype": str(floating_dtype(encoder)),
        "weights": hashlib.sha256(sums.encode()).hexdigest()[:16],
    }
