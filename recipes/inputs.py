"""From rows of a data set to batches of tensors: pictures are opened in the loader's processes, one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mi2p_inject.recipes.data.images import open_image
from mi2p_inject.recipes.preprocess import ImageSpec, TextSpec

if TYPE_CHECKING:
    import datasets

__all__ = ["Collator", "Item", "Pictures"]

Item = dict[str, Any]


class Pictures(Dataset[Item]):
    """Rows with opened pictures. Augmentation depends on seed, epoch and row alone, so a resumed run repeats it.

    Args:
        rows: with the columns image, text, and label where there are labels.
        spec: of the pictures; None: they are not read.
        augment: crop and mirror them at random.
        seed: of the augmentation.
    """

    def __init__(self, rows: datasets.Dataset, spec: ImageSpec | None, *, augment: bool = False, seed: int = 0) -> None:
        self.rows, self.spec, self.augment, self.seed, self.epoch = rows, spec, augment, seed, 0
        self._transform = spec.transform(augment) if spec else None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Item:
        """``pixels`` (3, H, W) or None, ``text`` or None, ``label`` or None."""
        row = self.rows[index]
        return {"pixels": self._pixels(row["image"], index), "text": row["text"], "label": row.get("label")}

    def _pixels(self, image: Any, index: int) -> Tensor | None:
        if self.spec is None or self._transform is None:
            return None
        enough = round(max(self.spec.size) / self.spec.crop_pct)
        picture = open_image(image, on_bad="missing", at_least=2 * enough if self.augment else enough)
        if picture is None:
            return None
        if not self.augment:
            return cast(Tensor, self._transform(picture))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(hash((self.seed, self.epoch, index)) % 2**63)
            return cast(Tensor, self._transform(picture))


@dataclass(frozen=True)
class Collator:
    """Items -> a batch, with only what the model reads.

    Args:
        image: makes pixels; None: no ``pixel_values``.
        text: makes token ids; None: no ``input_ids``.
        classes: number of classes.
        multi_label: labels become rows of zeros and ones.
    """

    image: ImageSpec | None
    text: TextSpec | None
    classes: int
    multi_label: bool

    def __call__(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """``pixel_values`` (B, 3, H, W), ``input_ids`` and ``attention_mask`` (B, L), ``image_present`` and
        ``text_present`` (B,) bool, ``labels`` (B,) or (B, K) where there are any."""
        batch: dict[str, Tensor] = {}
        if self.image is not None:
            blank = self.image.blank()
            pixels = [item["pixels"] for item in items]
            batch["pixel_values"] = torch.stack([blank if one is None else one for one in pixels])
            batch["image_present"] = torch.tensor([one is not None for one in pixels])
        if self.text is not None:
            texts = [(item["text"] or "").strip() for item in items]
            batch.update(self.text(texts))
            batch["text_present"] = torch.tensor([bool(text) for text in texts])
        labels = [item["label"] for item in items]
        if all(label is not None for label in labels):
            batch["labels"] = self._labels(labels)
        return batch

    def _labels(self, labels: list[Any]) -> Tensor:
        if not self.multi_label:
            return torch.tensor(labels)
        rows = torch.zeros(len(labels), self.classes)
        for row, numbers in zip(rows, labels, strict=True):
            row[list(numbers)] = 1
        return rows
