"""What another distribution needs to add a compared system and a task: two small classes, and two lines of metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.recipes.config import ModelConfig, OptimisationConfig
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.systems import Batch, FrozenSource, Group, System, SystemModel
from mi2p_inject.recipes.tasks import Decision, Floats, Labels, Logits, Scorer, Task
from mi2p_inject.sources.encoder import Source
from mi2p_inject.sources.features import SourceFeatures


@final
class Gated(System):
    """The picture's vector, scaled by the mean of a frozen text encoder's features."""

    reads: tuple[Modality, ...] = ("image",)
    source_modalities: tuple[Modality, ...] = ("text",)

    def build(
        self, encoders: Mapping[Modality, Encoder], config: ModelConfig, task: Task, loss: nn.Module
    ) -> SystemModel:
        return GatedModel(encoders["image"], encoders["text"], task.outputs, loss)


class GatedModel(SystemModel):
    def __init__(self, image: Encoder, text: Encoder, outputs: int, loss: nn.Module) -> None:
        super().__init__(loss)
        source = Source(text.model, text.inputs(text.example()))
        source.freeze()
        self._image, self._text = image, FrozenSource(text, source)
        self.network = image.model
        self.gate = nn.Linear(source.spec.vector, image.width)
        self.head = nn.Linear(image.width, outputs)

    def logits(self, batch: Batch) -> Tensor:
        inputs = self._image.inputs(batch)
        output = self.network(**inputs) if isinstance(inputs, dict) else self.network(inputs)
        vector = self._image.vector(output, batch) * batch["image_present"].unsqueeze(1)
        logits: Tensor = self.head(vector * (1 + self._gate(batch) * batch["text_present"].unsqueeze(1)))
        return logits

    def _gate(self, batch: Batch) -> Tensor:
        if "text_source" in batch:
            features = SourceFeatures(batch["text_source"], batch.get("text_source_mask"))
        elif "input_ids" in batch:
            features = self._text.source.encode(self._text.encoder.inputs(batch))
        else:  # cached, and no sample of the batch has a text
            return torch.zeros_like(self.head.weight[:1])
        mask = torch.ones(features.data.shape[:2]) if features.mask is None else features.mask.float()
        mean = (features.data * mask.unsqueeze(2)).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        gate: Tensor = self.gate(mean)
        return gate

    def parameter_groups(self) -> dict[str, Group]:
        own: Group = "new" if self._image.random else "image"
        return {name: own if name.startswith("network.") else "new" for name, _ in self.named_parameters()}

    def sources(self) -> dict[Modality, FrozenSource]:
        return {"text": self._text}


class OrdinalLoss(nn.Module):
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        steps = torch.arange(logits.shape[1], device=logits.device)
        return binary_cross_entropy_with_logits(logits.float(), (labels.unsqueeze(1) > steps).float())


@final
@dataclass(frozen=True)
class Ordinal(Task):
    """One of K ordered classes: a yes-or-no question for each step between two of them."""

    name: ClassVar[str] = "ordinal"
    independent: ClassVar[bool] = True
    metrics: ClassVar[tuple[str, ...]] = ("closeness", "accuracy")
    selection_metric: ClassVar[str] = "closeness"

    @property
    def outputs(self) -> int:
        return len(self.classes) - 1

    def encode(self, labels: Sequence[Any]) -> Labels:
        return np.asarray(labels, dtype=np.int64)

    def loss(self, config: OptimisationConfig, targets: Labels | None = None) -> nn.Module:
        return OrdinalLoss()

    def decide(self, logits: Logits, decision: Decision) -> Labels:
        return np.asarray((logits > decision["cut"]).sum(axis=1), dtype=np.int64)

    def tune(self, logits: Logits, true: Labels) -> Decision:
        cuts = (-0.5, 0.0, 0.5)
        return {"cut": max(cuts, key=lambda cut: self.measure(true, self.decide(logits, {"cut": cut}))["closeness"])}

    def usual_decision(self) -> Decision:
        return {"cut": 0.0}

    def scorer(self, true: Labels, predicted: Labels) -> Scorer:
        close, right = 1 - abs(true - predicted) / self.outputs, (true == predicted).astype(np.float64)
        return lambda weights: np.stack([weights @ close, weights @ right], axis=1) / weights.sum(axis=1, keepdims=True)

    def baseline(self, targets: Labels) -> Labels:
        return np.asarray(np.median(targets), dtype=np.int64)

    def probabilities(self, logits: Logits) -> Floats:
        above = np.pad(1 / (1 + np.exp(-logits.astype(np.float64))), ((0, 0), (1, 1)), constant_values=(1, 0))
        above[:, -1] = 0
        likely: Floats = np.maximum(above[:, :-1] - above[:, 1:], 0)
        return likely

    def answer(self, decided: Labels, probabilities: Floats) -> dict[str, Any]:
        return {"level": int(decided), "label": self.text(decided), "probabilities": self.named(probabilities)}

    def text(self, decided: Labels) -> str:
        return self.classes[int(decided)]


GATED = Gated()
