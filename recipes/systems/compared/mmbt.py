"""MMBT: cells of a CNN's map as words before the text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.systems.base import Batch, SystemModel
from mi2p_inject.recipes.systems.compared.base import Compared, ComparedModel, freeze_encoders
from mi2p_inject.recipes.systems.compared.image_grid import ImageGrid, cells_of
from mi2p_inject.recipes.systems.compared.text_stream import TextStream

if TYPE_CHECKING:
    from mi2p_inject.recipes.config import ModelConfig
    from mi2p_inject.recipes.tasks import Task

__all__ = ["MMBT", "MMBTModel"]

#: image tokens -> the grid that the map is pooled to
_GRIDS = {1: (1, 1), 2: (2, 1), 3: (3, 1), 4: (2, 2), 5: (5, 1), 6: (3, 2), 7: (7, 1), 8: (4, 2), 9: (3, 3)}


@final
@dataclass(frozen=True)
class MMBT(Compared):
    """Multimodal bitransformer: ``[CLS] image [SEP] text`` through BERT.

    Source: Kiela et al., Supervised Multimodal Bitransformers for Classifying Images and Text
    (https://arxiv.org/abs/1909.02950).

    Attributes:
        image_tokens: N, 1 to 9: the CNN's map is average-pooled to N cells.
    """

    image_tokens: int = 3

    def __post_init__(self) -> None:
        if self.image_tokens not in _GRIDS:
            raise RecipeError(
                f"system_options.image_tokens={self.image_tokens} is out of range", expected="1 to 9", fix="give 1 to 9"
            )

    def build(
        self, encoders: Mapping[Modality, Encoder], config: ModelConfig, task: Task, loss: nn.Module
    ) -> SystemModel:
        model = MMBTModel(encoders, self.image_tokens, task.outputs, loss, config.dropout)
        freeze_encoders(encoders, config)
        return model


class MMBTModel(ComparedModel):
    """``[CLS] image_1 .. image_N [SEP]`` with type 0 and positions from 0, then the text's word pieces without [CLS]
    and [SEP], with type 1 and positions from 0 again; BERT's layers and pooler; a linear classifier.

    A missing picture: its N tokens are masked. A missing text: all its tokens are masked.

    Args:
        encoders: an image encoder with a map, a BERT.
        image_tokens: N.
        outputs: K.
        loss: of logits and targets.
        dropout: before the classifier; the authors have none there.
    """

    def __init__(
        self, encoders: Mapping[Modality, Encoder], image_tokens: int, outputs: int, loss: nn.Module, dropout: float
    ) -> None:
        super().__init__(encoders, loss)
        self.text = TextStream(encoders["text"], segments=True)
        self.image = ImageGrid(encoders["image"])
        self.grid = _GRIDS[image_tokens]
        self.projection = nn.Linear(self.image.channels, self.text.width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.text.width, outputs)

    def logits(self, batch: Batch) -> Tensor:
        """(B, K)."""
        cells = self.projection(cells_of(adaptive_avg_pool2d(self.image(batch), self.grid)))
        ids, mask = self.text.tokens(batch)
        last = mask.long().cumsum(1) == mask.long().sum(1, keepdim=True)  # the final [SEP], and the padding after it
        ids, read = ids[:, 1:], (mask & ~last)[:, 1:]
        rows, count = cells.shape[:2]
        ends = ids.new_tensor([self.text.class_id, self.text.separator_id]).expand(rows, 2)
        ends = self.text.words(ends)
        embedded = torch.cat([ends[:, :1], cells, ends[:, 1:], self.text.words(ids)], dim=1)
        here, there = (torch.arange(length, device=ids.device) for length in (count + 2, ids.shape[1]))
        always = read.new_ones(rows, 1)
        output: Any = self.text.network(
            inputs_embeds=embedded,
            position_ids=torch.cat([here, there]).expand(rows, -1),
            token_type_ids=torch.cat([torch.zeros_like(here), torch.ones_like(there)]).expand(rows, -1),
            attention_mask=torch.cat(
                [always, batch["image_present"].unsqueeze(1).expand(rows, count), always, read], dim=1
            ).long(),
        )
        logits: Tensor = self.head(self.dropout(self.text.pool(output.last_hidden_state)))
        return logits
