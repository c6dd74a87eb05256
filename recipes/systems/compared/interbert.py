"""InterBERT: layers that both modalities share, then a stack of layers for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, final

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.systems.base import Batch, SystemModel
from mi2p_inject.recipes.systems.compared.base import Compared, ComparedModel, freeze_encoders, initialize
from mi2p_inject.recipes.systems.compared.image_grid import ImageGrid, cells_of
from mi2p_inject.recipes.systems.compared.options import check_least
from mi2p_inject.recipes.systems.compared.text_stream import TextStream, additive

if TYPE_CHECKING:
    from mi2p_inject.recipes.config import ModelConfig
    from mi2p_inject.recipes.tasks import Task

__all__ = ["InterBERT", "InterBERTModel", "boxes"]


@final
@dataclass(frozen=True)
class InterBERT(Compared):
    """``regions [CLS] text [SEP]`` through the first of BERT's layers, then each modality through layers of its own.

    The text's stack is the rest of BERT's layers. The image's stack, both poolers and the embedding of regions start at
    random. Regions are the cells of the image encoder's map, where the authors have those of an object detector.

    Source: Lin et al., InterBERT: Vision-and-Language Interaction for Multi-modal Pretraining
    (https://arxiv.org/abs/2003.13198).

    Attributes:
        shared_layers: how many of the text encoder's layers both modalities share; None: half of them.
        join: how the two pooled vectors become one.
        pooled_width: of a pooled vector.
        image_heads: attention heads of the image's stack.
        matching: also learn to tell pictures with another sample's text, half of each batch, from true pairs.
        matching_weight: of that loss.
    """

    shared_layers: int | None = None
    join: Literal["product", "sum"] = "product"
    pooled_width: int = 1024
    image_heads: int = 8
    matching: bool = False
    matching_weight: float = 1.0

    def __post_init__(self) -> None:
        check_least("shared_layers", self.shared_layers, 1)
        check_least("pooled_width", self.pooled_width, 1)
        check_least("image_heads", self.image_heads, 1)
        check_least("matching_weight", self.matching_weight, 0)

    def build(
        self, encoders: Mapping[Modality, Encoder], config: ModelConfig, task: Task, loss: nn.Module
    ) -> SystemModel:
        model = InterBERTModel(encoders, self, task.outputs, loss, config.dropout)
        freeze_encoders(encoders, config)
        return model


class InterBERTModel(ComparedModel):
    """Region embeddings ``LN(W r + U box)``, shared layers, two stacks, ReLU poolers, their product or sum.

    The first region is the mean of all, with the whole picture as its box. A missing modality is masked in the shared
    layers and leaves the other one's pooled vector as it is: it counts as ones in a product, as zeros in a sum. So the
    model serves as a model of one modality, too.

    Args:
        encoders: an image encoder with a map, a BERT or RoBERTa.
        system: the options.
        outputs: K.
        loss: of logits and targets.
        dropout: before the classifier.

    Raises:
        RecipeError: the numbers of layers or heads do not fit the text encoder.
    """

    def __init__(
        self, encoders: Mapping[Modality, Encoder], system: InterBERT, outputs: int, loss: nn.Module, dropout: float
    ) -> None:
        super().__init__(encoders, loss)
        self.text = TextStream(encoders["text"], pooled=False)
        self.image = ImageGrid(encoders["image"])
        width, depth = self.text.width, len(self.text.network.encoder.layer)
        self.shared = depth // 2 if system.shared_layers is None else system.shared_layers
        if not 1 <= self.shared < depth or width % system.image_heads:
            raise RecipeError(
                f"the options do not fit {encoders['text'].name}",
                expected=f"1 to {depth - 1} shared layers, and a number of image_heads that divides {width}",
                given=f"shared_layers={self.shared}, image_heads={system.image_heads}",
                fix="change system_options",
            )
        self.join = system.join
        self.features, self.boxes = nn.Linear(self.image.channels, width), nn.Linear(5, width)
        self.norm, self.region_dropout = nn.LayerNorm(width, eps=1e-12), nn.Dropout(0.1)
        self.image_layers = _layers(self.text.network.config, depth - self.shared, system.image_heads)
        self.poolers = nn.ModuleDict({one: nn.Linear(width, system.pooled_width) for one in ("image", "text")})
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(system.pooled_width, outputs)
        self.matching = nn.Linear(system.pooled_width, 2) if system.matching else None
        self.matching_weight = system.matching_weight
        for new in (self.features, self.boxes, self.image_layers, self.poolers, self.head, self.matching):
            if new is not None:
                initialize(new)

    def logits(self, batch: Batch) -> Tensor:
        """(B, K)."""
        return self._classified(self._joint(self._regions(batch), batch))

    def outputs(self, batch: Batch, labels: Tensor | None) -> dict[str, Tensor]:
        """As `SystemModel.outputs`; with `matching`, its loss too while training."""
        regions = self._regions(batch)
        logits = self._classified(self._joint(regions, batch))
        if labels is None:
            return {"logits": logits}
        loss = self.loss(logits, labels)
        if self.matching is not None and self.training:
            loss = loss + self.matching_weight * self._matching_loss(regions, batch)
        return {"loss": loss, "logits": logits}

    def _classified(self, joint: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(joint))
        return logits

    def _regions(self, batch: Batch) -> Tensor:
        """(B, 1 + H·W, width), the mean first."""
        features = self.image(batch)
        cells = cells_of(features)
        cells = torch.cat([cells.mean(1, keepdim=True), cells], dim=1)
        places = boxes(*features.shape[2:]).to(cells)
        regions: Tensor = self.region_dropout(self.norm(self.features(cells) + self.boxes(places)))
        return regions

    def _joint(self, regions: Tensor, batch: Batch) -> Tensor:
        """(B, pooled_width)."""
        ids, read = self.text.tokens(batch)
        image_present, text_present = batch["image_present"].unsqueeze(1), batch["text_present"].unsqueeze(1)
        read, seen = read & text_present, image_present.expand(regions.shape[:2])
        hidden = torch.cat([regions, self.text.embed(ids)], dim=1)
        hidden = self.text.layers(hidden, torch.cat([seen, read], dim=1), slice(self.shared))
        image, text = hidden.split([regions.shape[1], ids.shape[1]], dim=1)
        text = self.text.layers(text, read, slice(self.shared, None))
        bias = additive(seen, image)
        for layer in self.image_layers:
            given = layer(image, bias)
            image = given[0] if isinstance(given, tuple) else given
        nothing = 1.0 if self.join == "product" else 0.0
        one: Tensor = self.poolers["image"](image[:, 0]).relu().where(image_present, nothing)
        other: Tensor = self.poolers["text"](text[:, 0]).relu().where(text_present, nothing)
        return one * other if self.join == "product" else one + other

    def _matching_loss(self, regions: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of true pairs (class 0) and of pictures with the text of the sample before (class 1)."""
        own = torch.arange(len(regions), device=regions.device)
        taken = own.roll(1).where(torch.rand(len(regions), device=regions.device) < 0.5, own)
        texts = {name: batch[name][taken] for name in ("input_ids", "attention_mask", "text_present")}
        joint = self._joint(regions, {**batch, **texts})
        both = batch["image_present"] & texts["text_present"]
        assigned: Any = self.matching
        losses = cross_entropy(assigned(joint).float(), (taken != own).long(), reduction="none")
        return (losses * both).sum() / both.sum().clamp(min=1)


def boxes(height: int, width: int) -> Tensor:
    """Where the regions lie: the whole picture, then each cell, row by row.

    Args:
        height: of the map.
        width: of the map.

    Returns:
        (1 + H·W, 5): left, top, right, bottom and area as fractions of the picture.

    Examples:
        >>> boxes(1, 2).tolist()
        [[0.0, 0.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.5, 1.0, 0.5], [0.5, 0.0, 1.0, 1.0, 0.5]]
    """
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    left, top = columns.flatten().double() / width, rows.flatten().double() / height
    area = torch.full_like(left, 1 / (height * width))
    cells = torch.stack([left, top, left + 1 / width, top + 1 / height, area], dim=1)
    return torch.cat([cells.new_tensor([[0.0, 0.0, 1.0, 1.0, 1.0]]), cells])


def _layers(config: Any, count: int, heads: int) -> nn.ModuleList:
    """Layers like the text encoder's, with other heads and more dropout."""
    from transformers import BertConfig
    from transformers.models.bert.modeling_bert import BertLayer

    own = BertConfig(
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_attention_heads=heads,
        hidden_act=config.hidden_act,
        hidden_dropout_prob=0.2,
        attention_probs_dropout_prob=0.1,
        attn_implementation="sdpa",
    )
    return nn.ModuleList(BertLayer(own) for _ in range(count))
