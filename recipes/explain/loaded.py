"""A trained run whose model is expanded, loaded with what makes its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.expansion.expanded_model import ExpandedModel
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.encoders.preprocess import ImageSpec, TextSpec
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.saving.saved import SavedRun
from mi2p_inject.recipes.systems import SystemModel
from mi2p_inject.recipes.systems.base import OTHER
from mi2p_inject.recipes.systems.columns import Cells
from mi2p_inject.recipes.systems.inputs import Collator, Item
from mi2p_inject.recipes.training.train import quiet
from mi2p_inject.sources.encoder import Source
from mi2p_inject.sources.features import SourceFeatures

__all__ = ["Batch", "Loaded", "load_expanded"]

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Loaded:
    """A run's model with what makes its inputs.

    Attributes:
        run: the run.
        model: in eval mode.
        image, text: the preprocessing.
        expanded: what the backbone reads -> expanded model.
        sources: what the backbone reads -> how the other modality is encoded.
        encoders: by modality.
        collator: items -> batch.
    """

    run: SavedRun
    model: SystemModel
    image: ImageSpec
    text: TextSpec
    expanded: Mapping[Modality, ExpandedModel]
    sources: Mapping[Modality, Source]
    encoders: Mapping[Modality, Encoder]
    collator: Collator

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def pixels(self, picture: Image.Image) -> Tensor:
        """(3, H, W) as the model reads a picture."""
        return cast(Tensor, self.image.transform()(picture))

    def batch(self, items: list[tuple[Tensor | None, str]], cells: Sequence[Cells | None] = ()) -> Batch:
        """Pictures' pixels (None: missing) and texts (empty: missing) as a batch, on the model's device.

        Args:
            items: of each sample.
            cells: of columns, of each sample; (): of none.
        """
        rows: list[Item] = [
            {"id": None, "pixels": pixels, "text": text, "cells": one, "label": None}
            for (pixels, text), one in zip(items, cells or [None] * len(items), strict=True)
        ]
        return {name: value.to(self.device) for name, value in self.collator(rows).items()}

    @torch.no_grad()
    def probabilities(self, batch: Batch) -> NDArray[np.float64]:
        """(B, K), as `mi2p predict` shows them."""
        logits = self.model(**batch)["logits"].float().cpu().numpy()
        return self.run.task.answers(logits, self.run.decision)[1]

    def source_of(self, modality: Modality, batch: Batch) -> SourceFeatures:
        """What the expanded model of a modality is given of the other one."""
        with torch.no_grad():
            return self.sources[modality].encode(self.encoders[OTHER[modality]].inputs(batch))

    def logits_given(self, modality: Modality, batch: Batch, features: SourceFeatures) -> Tensor:
        """(B, K) where the expanded model of a modality is given these features; all else is as in the batch.

        Args:
            modality: what that model's backbone reads.
            batch: of one sample; it is repeated for each row of features.
            features: of the other modality, B rows.
        """
        given = {name: value.expand(len(features), *value.shape[1:]) for name, value in batch.items()}
        given[f"{OTHER[modality]}_source"] = features.data
        if features.mask is not None:
            given[f"{OTHER[modality]}_source_mask"] = features.mask
        logits: Tensor = self.model(**given)["logits"]
        return logits


def load_expanded(run: SavedRun) -> Loaded:
    """A run's model, if some of it is expanded.

    Raises:
        RecipeError: it reads one modality only or is not expanded, or the run kept no weights.
    """
    quiet()
    model, encoders = run.model()
    expanded: dict[Modality, ExpandedModel] = {}
    sources: dict[Modality, Source] = {}
    for me in (one for one in model.modules() if isinstance(one, ExpandedModel)):
        for modality, frozen in model.sources().items():
            if any(frozen.source is one for one in me.frozen_sources.values()):
                expanded[OTHER[modality]], sources[OTHER[modality]] = me, frozen.source
    if not expanded:
        raise RecipeError(
            f"model {run.config.model.model!r} has no expanded model, so nothing attends to another modality",
            expected="a run of an expanded model, such as me-vision, me-text or me-fusion",
            given=run.config.model.model,
            fix="mi2p train --model me-vision ...",
        )
    collator = run.collator(encoders)
    image, text = encoders["image"].spec, encoders["text"].spec
    if not isinstance(image, ImageSpec) or not isinstance(text, TextSpec):
        raise RecipeError(
            "an explanation needs an image and a text encoder",
            expected="both",
            given=f"{type(image).__name__}, {type(text).__name__}",
            fix="explain a run of both",
        )
    return Loaded(run, model, image, text, expanded, sources, encoders, collator)
