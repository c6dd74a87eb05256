"""A unimodal model that trains with the weights of an encoder of the other modality beside its own (M2PT)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.encoders.load import load_encoder
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.reparam import Pathway, pathway

if TYPE_CHECKING:
    from mi2p_inject.recipes.config import ModelConfig

__all__ = ["add_auxiliary", "check_auxiliary", "load_auxiliary"]

_OTHER: dict[str, Modality] = {"vision": "text", "text": "image"}


def check_auxiliary(config: ModelConfig) -> None:
    """Raise `RecipeError` for an auxiliary encoder of a model that is not unimodal."""
    if config.auxiliary is not None and config.model not in _OTHER:
        raise RecipeError(
            "auxiliary is for a model of one modality, whose weights it joins",
            expected=" or ".join(f"model={name}" for name in _OTHER),
            given=f"model={config.model}",
            fix="leave auxiliary out",
        )


def load_auxiliary(config: ModelConfig) -> Encoder | None:
    """The auxiliary encoder, of the other modality; None where none is named.

    Raises:
        RecipeError: it cannot be loaded.
    """
    if config.auxiliary is None:
        return None
    return load_encoder(config.auxiliary, _OTHER[config.model], pretrained=config.pretrained)


def add_auxiliary(
    encoders: Mapping[Modality, Encoder], auxiliary: Encoder | None, config: ModelConfig
) -> Pathway | None:
    """Re-parameterise the one encoder of a built model; `Pathway.fold` gives it back plain, with what was learned.

    Args:
        encoders: of the model.
        auxiliary: None: nothing happens.
        config: with trainable=units the weights of both stay, and only the scales train.

    Raises:
        PathwayError: the widths of the two differ, or one of them is no transformer whose blocks are described.
    """
    if auxiliary is None:
        return None
    (own,) = encoders.values()
    return pathway(own.model, auxiliary=auxiliary.model, train_auxiliary=config.trainable == "all")
