"""What the compared systems have in common: both encoders, options as fields, learning rates, what is frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import nn

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.systems.base import OF_FUSION, Group, System, SystemModel
from mi2p_inject.recipes.systems.branch import freeze
from mi2p_inject.recipes.systems.compared.options import checked_options

if TYPE_CHECKING:
    from mi2p_inject.recipes.config import ModelConfig

__all__ = ["Compared", "ComparedModel", "freeze_encoders", "initialize"]


@dataclass(frozen=True)
class Compared(System):
    """A system of the literature that reads a picture and a text. The fields of a subclass are its options."""

    @property
    def reads(self) -> tuple[Modality, ...]:
        return ("image", "text")

    @property
    def unused(self) -> tuple[str, ...]:
        return (*super().unused, *OF_FUSION)

    def options(self) -> dict[str, Any]:
        return asdict(self)

    def configured(self, options: Mapping[str, Any]) -> System:
        return replace(self, **checked_options(type(self), options))


class ComparedModel(SystemModel):
    """Holds each encoder as ``<modality>.network``; all other parameters are new.

    Args:
        encoders: modality -> encoder.
        loss: of logits and targets.
    """

    def __init__(self, encoders: Mapping[Modality, Encoder], loss: nn.Module) -> None:
        super().__init__(loss)
        self._pretrained: dict[str, Group] = {
            f"{modality}.network.": "image" if modality == "image" else "text"
            for modality, encoder in encoders.items()
            if not encoder.random
        }

    def parameter_groups(self) -> dict[str, Group]:
        return {name: self._group(name) for name, _ in self.named_parameters()}

    def _group(self, name: str) -> Group:
        return next((group for start, group in self._pretrained.items() if name.startswith(start)), "new")


def freeze_encoders(encoders: Mapping[Modality, Encoder], config: ModelConfig) -> None:
    """Switch off what the configuration says does not train: the encoders as a whole, or parameters by name.

    Raises:
        RecipeError: a pattern that names no parameter.
    """
    patterns = {"image": config.vision_freeze, "text": config.text_freeze}
    for modality, encoder in encoders.items():
        freeze(encoder, patterns[modality] or ())
        if config.trainable == "units":
            encoder.model.requires_grad_(False)


def initialize(module: nn.Module, std: float = 0.02) -> nn.Module:
    """BERT's initial values: weights of linear layers from a normal distribution, biases 0; gives the module back.

    Args:
        module: with everything inside it.
        std: of the distribution.
    """
    for one in module.modules():
        if isinstance(one, nn.Linear):
            nn.init.normal_(one.weight, std=std)
            if one.bias is not None:
                nn.init.zeros_(one.bias)
    return module
