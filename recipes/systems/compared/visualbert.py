"""VisualBERT: cells of a CNN's map as tokens after the text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor, nn

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.systems.base import Batch, SystemModel
from mi2p_inject.recipes.systems.compared.base import Compared, ComparedModel, freeze_encoders, initialize
from mi2p_inject.recipes.systems.compared.image_grid import ImageGrid, cells_of
from mi2p_inject.recipes.systems.compared.text_stream import TextStream

if TYPE_CHECKING:
    from mi2p_inject.recipes.config import ModelConfig
    from mi2p_inject.recipes.tasks import Task

__all__ = ["VisualBERT", "VisualBERTModel"]


@final
@dataclass(frozen=True)
class VisualBERT(Compared):
    """``[CLS] text [SEP] regions`` through BERT.

    Source: Li et al., VisualBERT: A Simple and Performant Baseline for Vision and Language
    (https://arxiv.org/abs/1908.03557). The authors' regions come from an object detector, which this toolkit has not:
    here they are the cells of the image encoder's map, which is trained too.
    """

    def build(
        self, encoders: Mapping[Modality, Encoder], config: ModelConfig, task: Task, loss: nn.Module
    ) -> SystemModel:
        model = VisualBERTModel(encoders, task.outputs, loss, config.dropout)
        freeze_encoders(encoders, config)
        return model


class VisualBERTModel(ComparedModel):
    """BERT on a text's embeddings and on ``W r + p + t`` of each region r, both through BERT's own norm.

    p and t start as BERT's embeddings of position 0 and of token type 1, as copies: these are the rows of the visual
    tables that are ever read. A missing picture: its regions are masked. A missing text: [CLS] alone is read.

    Args:
        encoders: an image encoder with a map, a BERT.
        outputs: K.
        loss: of logits and targets.
        dropout: before the classifier.
    """

    def __init__(self, encoders: Mapping[Modality, Encoder], outputs: int, loss: nn.Module, dropout: float) -> None:
        super().__init__(encoders, loss)
        self.text = TextStream(encoders["text"], segments=True)
        self.image = ImageGrid(encoders["image"])
        self.projection = initialize(nn.Linear(self.image.channels, self.text.width))
        tables = self.text.network.embeddings
        self.position = nn.Parameter(tables.position_embeddings.weight[0].detach().clone())
        self.token_type = nn.Parameter(tables.token_type_embeddings.weight[1].detach().clone())
        self.dropout = nn.Dropout(dropout)
        self.head = initialize(nn.Linear(self.text.width, outputs))

    def logits(self, batch: Batch) -> Tensor:
        """(B, K)."""
        ids, mask = self.text.tokens(batch)
        regions = self.text.normalized(self.projection(cells_of(self.image(batch))) + self.position + self.token_type)
        seen = batch["image_present"].unsqueeze(1).expand(regions.shape[:2])
        hidden = torch.cat([self.text.embed(ids), regions], dim=1)
        hidden = self.text.layers(hidden, torch.cat([mask, seen], dim=1))
        logits: Tensor = self.head(self.dropout(self.text.pool(hidden)))
        return logits
