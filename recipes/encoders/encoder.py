"""The encoder as the recipes see it: a model, how its inputs are made, and how it gives one vector a sample."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from mi2p_inject.adapters.adapter import Modality, Pooling
from mi2p_inject.adapters.find import Match, find
from mi2p_inject.adapters.pool import pool
from mi2p_inject.core.errors import AdapterError
from mi2p_inject.recipes.encoders.preprocess import ImageSpec, TextSpec
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["Encoder", "Expansion", "adapter_of"]


@dataclass(frozen=True)
class Expansion:
    """How the encoder of a run was expanded.

    Attributes:
        layers: paths of the sites.
        kind: of the units.
        options: of the units.
    """

    layers: tuple[str, ...]
    kind: str
    options: Mapping[str, Any]


@dataclass
class Encoder:
    """A model, how its inputs are made, and how it gives one vector a sample.

    Attributes:
        model: without a classifier.
        modality: "image" or "text".
        spec: its preprocessing.
        origin: what builds it again, without weights, as JSON.
        pooling: how tokens or a map become one vector; None: as the adapter says. Without meaning where the model
            gives vectors.
        width: of the vector.
        random: the weights are not pre-trained.
        expansion: of a run that is read back: how it was expanded, whatever the defaults have become since.
    """

    model: nn.Module
    modality: Modality
    spec: ImageSpec | TextSpec
    origin: dict[str, Any]
    pooling: Pooling | None = None
    width: int = 0
    random: bool = False
    expansion: Expansion | None = None

    @property
    def name(self) -> str:
        """For people to read."""
        return f"{self.origin['name']}{' (random weights)' if self.random else ''}"

    def inputs(self, batch: Mapping[str, Tensor]) -> Any:
        """What the model takes of a batch: a tensor, or a mapping of arguments."""
        keyword = self.origin["library"] == "transformers"
        if self.modality == "image":
            return {"pixel_values": batch["pixel_values"]} if keyword else batch["pixel_values"]
        ids = batch["input_ids"]
        return {"input_ids": ids, "attention_mask": batch["attention_mask"]} if keyword else ids

    def vector(self, output: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """One vector a sample, (B, width), from what the model returned for a batch."""
        hidden = getattr(output, "last_hidden_state", output)
        if not isinstance(hidden, Tensor) and isinstance(hidden, (tuple, list)):
            hidden = hidden[0]
        if not isinstance(hidden, Tensor) or hidden.dim() not in (2, 3, 4):
            given = str(tuple(hidden.shape)) if isinstance(hidden, Tensor) else type(output).__name__
            raise RecipeError(
                f"{self.name} gives nothing that a classifier can stand on",
                expected="vectors (B, D), tokens (B, L, D), a map (B, C, H, W), or a last_hidden_state",
                given=given,
                fix="name an encoder without a task's head",
            )
        if hidden.dim() == 2:
            return hidden
        mask = batch["attention_mask"] if self.modality == "text" else None
        return pool(hidden, self.pooling or "mean", mask, self.model)

    def example(self, rows: int = 2) -> dict[str, Tensor]:
        """A batch of blank samples."""
        if isinstance(self.spec, ImageSpec):
            return {"pixel_values": torch.stack([self.spec.blank()] * rows)}
        return self.spec(["an example"] * rows)

    def frozen_copy(self) -> Encoder:
        """The same encoder as a source of its own, with the weights that it has now."""
        return replace(self, model=copy.deepcopy(self.model))


def adapter_of(model: nn.Module, modality: Modality, name: str) -> Match | None:
    """The adapter, if there is one; refuses a model of another modality."""
    try:
        match = find(model)
    except AdapterError:
        return None
    if match is not None and match.adapter.modality != modality:
        raise RecipeError(
            f"{name!r} reads {match.adapter.modality}, not {modality}",
            fix="exchange --vision and --text" if match.adapter.modality != "audio" else "name another encoder",
        )
    return match
