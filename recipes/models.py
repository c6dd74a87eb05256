"""Classifiers as the training entry expects them: ``forward(**batch) -> {"loss", "logits"}``.

Each holds a network that may be a plain backbone or an expanded model; only the latter is given source features.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

__all__ = ["Classifier", "PictureClassifier", "TextClassifier", "mean_of_tokens"]


class Classifier(nn.Module):
    """Shared by the two: the loss, and which parameters are pre-trained.

    Args:
        network: the backbone or expanded model.
        head: the classifier on top of it; None where the network ends in one.
    """

    def __init__(self, network: nn.Module, head: nn.Module | None) -> None:
        super().__init__()
        self.network = network
        self.head = head

    def pretrained_parameters(self) -> Iterator[nn.Parameter]:
        """Trainable parameters that start from pre-trained values; the rest (units, head) start anew."""
        new = {id(parameter) for parameter in self.new_parameters()}
        return (p for p in self.parameters() if p.requires_grad and id(p) not in new)

    def new_parameters(self) -> list[nn.Parameter]:
        """Trainable parameters that start from nothing: the units' and the classifier's."""
        units = getattr(self.network, "units", None)
        parts = [part for part in (units, self.head) if isinstance(part, nn.Module)]
        return [p for part in parts for p in part.parameters() if p.requires_grad]

    def _run(self, source: Any, *args: Any, **kwargs: Any) -> Any:
        if source is None:
            return self.network(*args, **kwargs)
        return self.network(*args, source=source, **kwargs)

    @staticmethod
    def _answer(logits: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        if labels is None:
            return {"logits": logits}
        return {"loss": cross_entropy(logits, labels), "logits": logits}


class PictureClassifier(Classifier):
    """A timm network that ends in its own classifier, plain or expanded.

    Args:
        network: (B, 3, H, W) -> (B, K).

    Example:
        >>> from mi2p_inject.recipes.weights import efficientnet_lite0
        >>> PictureClassifier(efficientnet_lite0(9))(pixel_values=torch.zeros(2, 3, 96, 96))["logits"].shape
        torch.Size([2, 9])
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network, None)

    def new_parameters(self) -> list[nn.Parameter]:
        """The units' and the timm classifier's parameters."""
        backbone: Any = getattr(self.network, "backbone", self.network)
        head = [p for p in backbone.get_classifier().parameters() if p.requires_grad]
        return [*super().new_parameters(), *head]

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        source_data: Tensor | None = None,
        source_mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Logits (B, K), and the loss where labels (B,) are given."""
        return self._answer(self._run(source_of(source_data, source_mask), pixel_values), labels)


class TextClassifier(Classifier):
    """A Hugging Face text encoder, plain or expanded, with mean pooling and a linear classifier.

    Args:
        network: returns an output with ``last_hidden_state`` (B, L, width).
        width: of the hidden state.
        num_classes: K.
        dropout: before the classifier.
    """

    def __init__(self, network: nn.Module, width: int, num_classes: int, dropout: float = 0.1) -> None:
        super().__init__(network, nn.Sequential(nn.Dropout(dropout), nn.Linear(width, num_classes)))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor | None = None,
        source_data: Tensor | None = None,
        source_mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Logits (B, K), and the loss where labels (B,) are given."""
        source = source_of(source_data, source_mask)
        output = self._run(source, input_ids=input_ids, attention_mask=attention_mask)
        pooled = mean_of_tokens(output.last_hidden_state, attention_mask)
        head: nn.Module = self.get_submodule("head")
        return self._answer(head(pooled), labels)


def mean_of_tokens(hidden: Tensor, mask: Tensor) -> Tensor:
    """The mean over real tokens: (B, L, D), (B, L) -> (B, D); zeros for a row without any."""
    weights = mask.to(hidden.dtype).unsqueeze(-1)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def source_of(data: Tensor | None, mask: Tensor | None) -> Any:
    """The batch's two tensors as `SourceFeatures`, or None."""
    if data is None:
        return None
    from mi2p_inject import SourceFeatures

    return SourceFeatures(data=data, mask=None if mask is None else mask.to(torch.bool))
