"""Options of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.fusion import FUSIONS
from mi2p_inject.recipes.config.option import FRACTION, POSITIVE, Layer, Rule, between, option
from mi2p_inject.recipes.systems import SYSTEMS, System
from mi2p_inject.units import UNITS

__all__ = ["DEFAULT_UNIT", "ModelConfig"]

DEFAULT_UNIT = "mi2p"


@dataclass(frozen=True)
class ModelConfig:
    """What is trained."""

    model: str = option(
        "me-vision",
        "one encoder alone (vision, text), both fused (late-fusion), one expanded with the other's features "
        "(me-vision, me-text), both expanded and fused (me-fusion), one of them expanded and both fused, or a system "
        "of the literature to compare with",
        choices=lambda: tuple(SYSTEMS),
    )
    system_options: Mapping[str, Any] = option({}, "options of the model, such as system_options.image_tokens=1")
    fusion: str = option("score", "how a fused model joins its branches", choices=lambda: tuple(FUSIONS))
    fusion_options: Mapping[str, Any] = option({}, "options of the fusion, such as fusion_options.width=100")
    vision: str = option(
        "densenet121", "image encoder: a timm, transformers or open_clip name, a local folder, demo or tiny"
    )
    text: str = option(
        "bert-base-uncased", "text encoder: a transformers or open_clip name, a local folder, demo or tiny"
    )
    pretrained: bool = option(True, "load the encoders' weights; else they start at random")
    unit: str | None = option(
        None,
        "kind of unit of an expanded model; default: mi2p",
        choices=lambda: tuple(UNITS),
    )
    unit_options: Mapping[str, Any] = option({}, "options of the unit, such as unit_options.num_heads=4")
    zero_init: Literal["value_proj", "scalar", "channel", "none"] | None = option(
        None,
        "what of a unit starts at zero, so that the expanded model starts as its backbone; none is the paper's plain "
        "addition; default: the unit's own",
    )
    vision_layers: tuple[Layer, ...] | None = option(
        None,
        "sites in the image encoder: names, globs, indices of the default ones, 2/4 for their second quarter, or paper "
        "for all of them; default: their last third",
    )
    text_layers: tuple[Layer, ...] | None = option(
        None, "sites in the text encoder, named likewise; default: the last sixth of the default ones"
    )
    source: Literal["pretrained", "tuned"] = option(
        "pretrained",
        "weights of the frozen source encoder: as they are loaded, or first trained on this task by themselves",
    )
    source_run: tuple[Layer, ...] | None = option(
        None, "runs of `mi2p train --model text` or vision whose trained encoders are the sources; implies source=tuned"
    )
    source_folds: int = option(
        0,
        "encode each training sample by a tuned source that was trained without its fold, of so many; 0: by the one "
        "source that is trained on all",
        check=Rule("0, or 2 to 20", lambda value: value == 0 or 2 <= value <= 20),
    )
    auxiliary: str | None = option(
        None,
        "encoder of the other modality whose weights a model of one (vision, text) takes beside its own, each times a "
        "learned number (M2PT); a transformer of the same widths",
    )
    branch_loss: bool | None = option(
        None,
        "add the loss of each branch alone to that of a fused model; default: with score fusion and concatenation",
    )
    trainable: Literal["all", "units"] = option(
        "all", "train the pre-trained weights too, or only what is new: units, fusion and classifier"
    )
    vision_freeze: tuple[Layer, ...] | None = option(
        None, "parameters of a trained image encoder that stay as they are, as globs of their names"
    )
    text_freeze: tuple[Layer, ...] | None = option(None, "parameters of a trained text encoder that stay as they are")
    image_size: int | None = option(None, "side in pixels; default: the encoder's own", check=between(8, 4096))
    max_length: int = option(128, "most tokens of a text", check=POSITIVE)
    dropout: float = option(0.1, "before the classifier", check=FRACTION)

    @property
    def system(self) -> System:
        """What ``model`` names, with its options."""
        return SYSTEMS[self.model].configured(self.system_options)

    @property
    def encoder_names(self) -> dict[Modality, str]:
        """Modality -> name of the encoder, of all that the system reads."""
        return {one: self.vision if one == "image" else self.text for one in self.system.modalities}

    @property
    def tuned(self) -> bool:
        """Whether the sources are encoders that were trained on the task."""
        return self.source == "tuned" or self.source_run is not None

    @property
    def unit_kind(self) -> str:
        """The kind of unit in an expanded encoder."""
        return self.unit or DEFAULT_UNIT

    def options_of_unit(self) -> dict[str, Any]:
        """What `mi2p_inject.inject` gets as options of the unit: ``zero_init`` only where it was given."""
        given = dict(self.unit_options)
        if self.zero_init is not None:
            given["zero_init"] = None if self.zero_init == "none" else self.zero_init
        return given
