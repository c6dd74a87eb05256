"""The one family of models that is trained: encoders, plain or expanded, under a late fusion."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.expansion.expanded_model import ExpandedModel
from mi2p_inject.expansion.inject import inject
from mi2p_inject.fusion import Fusion, build_fusion
from mi2p_inject.inspection.resolve import resolve
from mi2p_inject.recipes.config import Config, ModelConfig
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.systems.losses import ClassLoss
from mi2p_inject.sources.features import SourceFeatures

__all__ = ["Branch", "Classifier", "build_classifier"]

_RAW = {"image": "pixel_values", "text": "input_ids"}
_OTHER: dict[str, Modality] = {"image": "text", "text": "image"}


class Branch(nn.Module):
    """An encoder as a part of a classifier: a batch -> one vector a sample.

    An expanded branch whose own modality is missing reads a blank sample and still hears the other one; where the
    other one is missing it is exactly the plain encoder.

    Args:
        encoder: its model is trained.
        source: a frozen encoder of the other modality, of its own; None: the branch is not expanded.
        config: the units' options.
    """

    def __init__(self, encoder: Encoder, source: Encoder | None, config: ModelConfig) -> None:
        super().__init__()
        self.encoder, self.source = encoder, source
        self.network = encoder.model if source is None else _expand(encoder, source, config)

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(B, width) vectors, and (B,) whether there is anything to go by."""
        inputs = self.encoder.inputs(batch)
        args, kwargs = ((), inputs) if isinstance(inputs, dict) else ((inputs,), {})
        present = batch[f"{self.encoder.modality}_present"]
        if self.source is not None:
            heard = batch[f"{self.source.modality}_present"]
            present = present | heard
            if (source := self._source(batch)) is not None:
                kwargs = {**kwargs, "source": source, "source_mask": heard}
        return self.encoder.vector(self.network(*args, **kwargs), batch), present

    def _source(self, batch: Mapping[str, Tensor]) -> Any:
        """What the frozen encoder gave or is given; None where its features are cached and no sample has any."""
        if self.source is None:
            return None
        modality = self.source.modality
        if f"{modality}_source" in batch:
            return SourceFeatures(batch[f"{modality}_source"], batch.get(f"{modality}_source_mask"))
        return self.source.inputs(batch) if _RAW[modality] in batch else None


class Classifier(nn.Module):
    """Branches and the fusion on top of them; one branch under score fusion is a linear classifier.

    Args:
        branches: modality -> branch.
        fusion: of their vectors.
        loss: of logits and labels.
        dropout: of the vectors.
    """

    def __init__(self, branches: Mapping[str, Branch], fusion: Fusion, loss: ClassLoss, dropout: float) -> None:
        super().__init__()
        self.branches = nn.ModuleDict(branches)
        self.dropout = nn.Dropout(dropout)
        self.fusion = fusion
        self.loss = loss

    def forward(
        self,
        pixel_values: Tensor | None = None,
        image_present: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        text_present: Tensor | None = None,
        image_source: Tensor | None = None,
        text_source: Tensor | None = None,
        text_source_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """``logits`` (B, K), and ``loss`` where there are labels; arguments as `inputs.Collator` makes them."""
        given = {
            "pixel_values": pixel_values,
            "image_present": image_present,
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "text_present": text_present,
            "image_source": image_source,
            "text_source": text_source,
            "text_source_mask": text_source_mask,
        }
        batch = {name: value for name, value in given.items() if value is not None}
        read = [branch(batch) for branch in self.branches.values()]
        vectors = [self.dropout(vector) for vector, _ in read]
        logits = self.fusion(vectors, [present for _, present in read])
        if labels is None:
            return {"logits": logits}
        return {"loss": self.loss(logits, labels), "logits": logits}

    def new_parameters(self) -> set[str]:
        """Names of the parameters that start from nothing: the units' and the fusion's."""
        new = {f"fusion.{name}" for name, _ in self.fusion.named_parameters()}
        for modality, branch in self._branches():
            prefix, fresh = f"branches.{modality}.network", branch.network
            if isinstance(branch.network, ExpandedModel) and not branch.encoder.random:
                prefix, fresh = f"{prefix}.units", branch.network.units
            elif not branch.encoder.random:
                continue
            new |= {f"{prefix}.{name}" for name, _ in fresh.named_parameters()}
        return new

    def sources(self) -> dict[str, Encoder]:
        """Modality of a branch -> the frozen encoder that it hears."""
        return {modality: branch.source for modality, branch in self._branches() if branch.source is not None}

    def _branches(self) -> list[tuple[str, Branch]]:
        return [(modality, branch) for modality, branch in self.branches.items() if isinstance(branch, Branch)]


def build_classifier(
    config: Config, encoders: Mapping[str, Encoder], classes: int, multi_label: bool, weights: Tensor | None = None
) -> Classifier:
    """The model that a configuration asks for; new parameters take torch's random numbers.

    Args:
        config: model, fusion, units, loss.
        encoders: modality -> encoder, for `config.model.modalities`. With two expanded models each backbone is
            trained, and the other one attends to a frozen copy of it.
        classes: K.
        multi_label: a sample has any number of labels.
        weights: (K,) of the classes in the loss; None: all alike.
    """
    name = config.model.fusion if len(config.model.backbones) > 1 else "score"
    widths = [encoders[modality].width for modality in config.model.backbones]
    fusion = build_fusion(name, widths, classes, multi_label=multi_label)  # first: equal values with and without units
    copies = {modality: encoders[modality].frozen_copy() for modality in encoders} if config.model.expanded else {}
    branches = {
        modality: Branch(encoders[modality], copies.get(_OTHER[modality]), config.model)
        for modality in config.model.backbones
    }
    for modality, patterns in (("image", config.model.vision_freeze), ("text", config.model.text_freeze)):
        if patterns and modality in branches:
            _freeze(encoders[modality], patterns)
    if config.model.trainable == "units":
        for branch in branches.values():
            if branch.source is None:
                branch.network.requires_grad_(False)
    gamma = config.optimisation.focal_gamma if config.optimisation.loss == "focal" else 0.0
    loss = ClassLoss(multi_label=multi_label, gamma=gamma, weights=weights)
    return Classifier(branches, fusion, loss, config.model.dropout)


def _expand(encoder: Encoder, source: Encoder, config: ModelConfig) -> nn.Module:
    layers = config.vision_layers if encoder.modality == "image" else config.text_layers
    return inject(
        encoder.model,
        _sites(encoder.model, layers),
        source_encoder=source.model,
        unit=config.unit,
        trainable=config.trainable,
        example_inputs=encoder.inputs(encoder.example()),
        source_example_inputs=source.inputs(source.example()),
        **config.options_of_unit(),
    )


def _freeze(encoder: Encoder, patterns: tuple[str | int, ...]) -> None:
    for pattern in patterns:
        named = [p for name, p in encoder.model.named_parameters() if fnmatchcase(name, str(pattern))]
        if not named:
            raise RecipeError(
                f"{encoder.name} has no parameter {pattern!r} to freeze",
                expected="globs such as " + ", ".join(name for name, _ in list(encoder.model.named_parameters())[:3]),
            )
        for parameter in named:
            parameter.requires_grad_(False)


def _sites(model: nn.Module, layers: tuple[str | int, ...] | None) -> list[str | int] | None:
    """The layers as `inject` takes them; ``"2/4"`` is the second quarter of the default sites."""
    if layers is None:
        return None
    sites: list[str | int] = []
    for layer in layers:
        part, slash, parts = str(layer).partition("/")
        if not (slash and part.isdigit() and parts.isdigit()):
            sites.append(layer)
            continue
        count, which, of = len(resolve(model, required=False).default_paths), int(part), int(parts)
        if not 1 <= which <= of <= count:
            raise RecipeError(
                f"layers {layer!r}: no such part of the {count} default sites",
                expected=f"1/n to n/n with n at most {count}",
            )
        sites += range(count * (which - 1) // of, count * which // of)
    return sites
