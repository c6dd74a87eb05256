"""From rows of a data set to batches of tensors: pictures are opened in the loader's processes, one at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mi2p_inject.recipes.data.images import ImageError, open_image
from mi2p_inject.recipes.encoders.preprocess import ImageSpec, TextSpec
from mi2p_inject.recipes.systems.columns import COLUMNS, cells_batch, cells_of
from mi2p_inject.recipes.tasks import Task
from mi2p_inject.sources.cache import SourceCache
from mi2p_inject.sources.columns import Columns

if TYPE_CHECKING:
    import datasets

__all__ = ["Collator", "Exchanged", "ImageTextDataset", "Item"]

Item = dict[str, Any]


Exchanged = Mapping[str, Sequence[int | None]]
"""Modality -> the row that each sample takes it from, None for nowhere."""


class ImageTextDataset(Dataset[Item]):
    """Rows with opened pictures. Augmentation depends on seed, epoch and row alone, so a resumed run repeats it.

    Args:
        rows: with the columns image, text, label where there are labels, numbers and categories where there are any.
        spec: of the pictures; None: they are not read.
        augment: crop and mirror them at random.
        seed: of the augmentation.
        exchanged: what samples lack or take from others, on purpose; a modality that is not there is their own.
    """

    def __init__(
        self,
        rows: datasets.Dataset,
        spec: ImageSpec | None,
        *,
        augment: bool = False,
        seed: int = 0,
        exchanged: Exchanged | None = None,
    ) -> None:
        self.rows, self.spec, self.augment, self.seed, self.epoch = rows, spec, augment, seed, 0
        self.exchanged = exchanged or {}
        self._transform = spec.transform(augment) if spec else None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Item:
        """``id``, ``pixels`` (3, H, W) or None, ``bad`` (the `ImageError.kind` of a bad image) or None, ``text`` or
        None, ``label`` or None; ``cells``, a sample's numbers and categories, or None; ``image_id`` and ``text_id``,
        the ids of the samples that they are of, or None."""
        row = self.rows[index]
        image, text, cells = (self._row_of(modality, index, row) for modality in ("image", "text", COLUMNS))
        pixels, bad = None, None
        try:
            pixels = self._pixels(image.get("image"), index)
        except ImageError as error:
            bad = error.kind
        found = {"id": row.get("id"), "pixels": pixels, "bad": bad, "text": text.get("text"), "label": row.get("label")}
        return found | {"image_id": image.get("id"), "text_id": text.get("id"), "cells": cells_of(cells)}

    def _row_of(self, modality: str, index: int, row: dict[str, Any]) -> dict[str, Any]:
        """Whose image, text or cells a sample has; {} for nobody's."""
        if modality not in self.exchanged:
            return row
        other = self.exchanged[modality][index]
        return {} if other is None else cast(dict[str, Any], self.rows[other])

    def _pixels(self, image: Any, index: int) -> Tensor | None:
        if self.spec is None or self._transform is None:
            return None
        enough = round(max(self.spec.size) / self.spec.crop_pct)
        picture = open_image(image, on_bad="error", at_least=2 * enough if self.augment else enough)
        if picture is None:
            return None
        if not self.augment:
            return cast(Tensor, self._transform(picture))
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed: it would seed the generators of all devices too, and nothing would set those back.
            torch.default_generator.manual_seed(hash((self.seed, self.epoch, index)) % 2**63)
            return cast(Tensor, self._transform(picture))


@dataclass(frozen=True)
class Collator:
    """Items -> a batch, with only what the model reads.

    Args:
        image: makes pixels; None: no ``pixel_values``.
        text: makes token ids; None: no ``input_ids``.
        task: makes targets of labels; None: no ``labels``.
        cached: modality -> its features as a source, by sample id; a sample that is not there lacks the modality.
        columns: makes tensors of cells; None: they are not read.
    """

    image: ImageSpec | None
    text: TextSpec | None
    task: Task | None
    cached: Mapping[str, SourceCache] = field(default_factory=dict)
    columns: Columns | None = None

    def __call__(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """``pixel_values`` (B, 3, H, W), ``input_ids`` and ``attention_mask`` (B, L), ``image_present`` and
        ``text_present`` (B,) bool, ``labels``, the task's targets, where there are any. Of cached sources, where a
        sample of the batch has one: ``image_source`` (B, C, H, W), ``text_source`` (B, L, D), ``text_source_mask``
        (B, L). Of columns: what `cells_batch` makes."""
        batch: dict[str, Tensor] = {}
        for modality, cache in self.cached.items():
            batch.update(_cached(modality, cache, [item[f"{modality}_id"] for item in items]))
        if self.image is not None:
            blank = self.image.blank()
            pixels = [item["pixels"] for item in items]
            stacked = torch.stack([blank if one is None else one for one in pixels])
            batch["pixel_values"] = stacked.contiguous(memory_format=torch.channels_last)  # convolutions are faster
            batch["image_present"] = torch.tensor([one is not None for one in pixels])
        if self.text is not None:
            texts = [(item["text"] or "").strip() for item in items]
            batch.update(self.text(texts))
            batch["text_present"] = torch.tensor([bool(text) for text in texts])
        if self.columns is not None:
            batch.update(cells_batch(self.columns, [item.get("cells") for item in items]))
        labels = [item["label"] for item in items]
        if self.task is not None and all(label is not None for label in labels):
            batch["labels"] = torch.from_numpy(self.task.encode(labels))
        return batch


def _cached(modality: str, cache: SourceCache, samples: list[str | None]) -> dict[str, Tensor]:
    """The features of those samples that have any, zeros for the others."""
    present = torch.tensor([sample is not None and sample in cache for sample in samples])
    batch = {f"{modality}_present": present}
    if not present.any():
        return batch
    found = cache[[sample for sample in samples if sample is not None and sample in cache]]
    features = {f"{modality}_source": found.data}
    if found.mask is not None:
        features[f"{modality}_source_mask"] = found.mask
    for name, values in features.items():
        batch[name] = values.new_zeros(len(samples), *values.shape[1:])
        batch[name][present] = values
    return batch
