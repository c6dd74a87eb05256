"""From rows of a data set to batches of tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from mi2p_inject.recipes.config import View
from mi2p_inject.recipes.weights import normalise

__all__ = ["Batcher", "FeatureCache", "augment", "picture_inputs", "text_inputs"]


@dataclass(frozen=True)
class FeatureCache:
    """Source features of a whole data set, computed once.

    Attributes:
        data: (N, L, D) tokens or (N, C, H, W) maps.
        mask: (N, L) bool, True = real token; None for maps.
    """

    data: Tensor
    mask: Tensor | None

    def rows(self, index: Tensor) -> dict[str, Tensor]:
        """The features of some rows, by the names that the classifiers' ``forward`` takes."""
        if self.mask is None:
            return {"source_data": self.data[index]}
        mask = self.mask[index]
        longest = max(int(mask.sum(dim=1).max()), 1)
        return {"source_data": self.data[index, :longest], "source_mask": mask[:, :longest]}


@dataclass
class Batcher:
    """The collator of every row of the comparison.

    Args:
        view: what the backbone reads.
        tokenizer: of the text model; only for ``view="text"``.
        source: cached features for an expanded model.
        augmented: shift, scale and flip the pictures (training only).
        seed: of the augmentation.
    """

    view: View
    tokenizer: Any = None
    source: FeatureCache | None = None
    augmented: bool = False
    seed: int = 0
    _generator: torch.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._generator = torch.Generator().manual_seed(self.seed)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """A batch: the inputs of the view, ``labels`` (B,), and the source features if there are any."""
        if self.view == "text":
            batch = text_inputs(self.tokenizer, [row["text"] for row in rows])
        else:
            pixels = picture_inputs([row["image"] for row in rows])
            batch = {"pixel_values": augment(pixels, self._generator) if self.augmented else pixels}
        batch["labels"] = torch.tensor([row["label"] for row in rows])
        if self.source is not None:
            batch.update(self.source.rows(torch.tensor([row["row"] for row in rows])))
        return batch


def picture_inputs(pictures: list[Any]) -> Tensor:
    """PIL pictures of one size -> (B, 3, H, W) float, normalised, channels last in memory (faster on a CPU)."""
    pixels = torch.from_numpy(np.stack([np.asarray(picture.convert("RGB")) for picture in pictures]))
    return normalise(pixels.permute(0, 3, 1, 2)).contiguous(memory_format=torch.channels_last)


def text_inputs(tokenizer: Any, texts: list[str]) -> dict[str, Tensor]:
    """``input_ids`` and ``attention_mask``, (B, L) int64, padded to the longest of the batch."""
    encoded = tokenizer(texts, padding=True, truncation=True, max_length=32, return_tensors="pt")
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}


def augment(pixels: Tensor, generator: torch.Generator, shift: float = 0.12, scale: float = 0.15) -> Tensor:
    """Each picture flipped with probability 1/2, scaled and shifted a little; the border repeats.

    Args:
        pixels: (B, 3, H, W).
        shift: at most this part of the half width and height.
        scale: at most this part larger or smaller.
    """
    count = len(pixels)
    noise = torch.rand(count, 4, generator=generator) * 2 - 1
    theta = torch.zeros(count, 2, 3)
    zoom = 1 + scale * noise[:, 0]
    theta[:, 0, 0] = zoom * torch.where(noise[:, 1] < 0, -1.0, 1.0)
    theta[:, 1, 1] = zoom
    theta[:, :, 2] = shift * noise[:, 2:]
    grid = affine_grid(theta, list(pixels.shape), align_corners=False)
    moved = grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    return moved.contiguous(memory_format=torch.channels_last)
