"""PixelBERT: pixels of a CNN's last map as tokens after the text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.systems.base import Batch, SystemModel
from mi2p_inject.recipes.systems.compared.base import Compared, ComparedModel, freeze_encoders, initialize
from mi2p_inject.recipes.systems.compared.image_grid import ImageGrid, cells_of
from mi2p_inject.recipes.systems.compared.options import check_least
from mi2p_inject.recipes.systems.compared.text_stream import TextStream

if TYPE_CHECKING:
    from mi2p_inject.recipes.config import ModelConfig
    from mi2p_inject.recipes.tasks import Task

__all__ = ["PixelBERT", "PixelBERTModel"]


@final
@dataclass(frozen=True)
class PixelBERT(Compared):
    """``[CLS] text [SEP] pixels`` through BERT's layers, the CNN trained from end to end.

    This is our reading: the authors published no code. As when they fine-tune, all pixels are read; their random
    100 belong to pre-training, which is not repeated here.

    Source: Huang et al., Pixel-BERT: Aligning Image Pixels with Text by Deep Multi-Modal Transformers
    (https://arxiv.org/abs/2004.00849).

    Attributes:
        pool: side of the maximum pooling over the map, and its stride; 1: none. At 224 pixels the authors' 2 leaves 3 x
            3 pixels of a 7 x 7 map.
    """

    pool: int = 2

    def __post_init__(self) -> None:
        check_least("pool", self.pool, 1)

    def build(
        self, encoders: Mapping[Modality, Encoder], config: ModelConfig, task: Task, loss: nn.Module
    ) -> SystemModel:
        model = PixelBERTModel(encoders, self.pool, task.outputs, loss, config.dropout)
        freeze_encoders(encoders, config)
        return model


class PixelBERTModel(ComparedModel):
    """BERT's layers on a text's embeddings and on ``W v + s`` of each pixel v of the pooled map.

    s is one learned vector for all pixels; they have no position. A missing picture: its pixels are masked. A missing
    text: [CLS] alone is read.

    Args:
        encoders: an image encoder with a map, a BERT or RoBERTa.
        pool: side and stride of the maximum pooling.
        outputs: K.
        loss: of logits and targets.
        dropout: before the classifier.

    Raises:
        RecipeError: the map is smaller than `pool`.
    """

    def __init__(
        self, encoders: Mapping[Modality, Encoder], pool: int, outputs: int, loss: nn.Module, dropout: float
    ) -> None:
        super().__init__(encoders, loss)
        self.text = TextStream(encoders["text"])
        self.image = ImageGrid(encoders["image"])
        self.pool = pool
        if min(self.image.grid) < pool:
            raise RecipeError(
                "the map is smaller than what is pooled",
                expected=f"at least {pool} x {pool}",
                given=" x ".join(map(str, self.image.grid)),
                fix="larger pictures (image_size), or system_options.pool=1",
            )
        self.projection = initialize(nn.Linear(self.image.channels, self.text.width))
        self.semantic = nn.Parameter(0.02 * torch.randn(self.text.width))
        self.dropout = nn.Dropout(dropout)
        self.head = initialize(nn.Linear(self.text.width, outputs))

    def logits(self, batch: Batch) -> Tensor:
        """(B, K)."""
        ids, mask = self.text.tokens(batch)
        pixels = self.projection(cells_of(max_pool2d(self.image(batch), self.pool))) + self.semantic
        seen = batch["image_present"].unsqueeze(1).expand(pixels.shape[:2])
        hidden = torch.cat([self.text.embed(ids), pixels], dim=1)
        hidden = self.text.layers(hidden, torch.cat([mask, seen], dim=1))
        logits: Tensor = self.head(self.dropout(self.text.pool(hidden)))
        return logits
