"""Multimodal Pathway: does a picture model gain from the weights of a text model? With a control."""

from __future__ import annotations

from typing import Any

from mi2p_inject.recipes.experiments.experiment import Experiment, ExperimentSet

__all__ = ["PATHWAY"]


def _vit(name: str, title: str, *compared_with: str, **roles: str) -> Experiment:
    """A line: the vision transformer, with the auxiliary that ``auxiliary`` names as a role."""
    settings: dict[str, Any] = {"model": "vision"}
    return Experiment(name, title, settings, {"vision": "vit", "text": "bert", **roles}, compared_with)


PATHWAY = ExperimentSet(
    name="table pathway",
    title="Multimodal Pathway: a vision transformer with the weights of a text model beside its own",
    experiments=(
        _vit("vit", "{vision}"),
        _vit(
            "vit-shuffled",
            "{vision} with the weights of MiniLM, each matrix's entries in random order",
            "vit",
            auxiliary="shuffled",
        ),
        _vit("vit-minilm", "{vision} with the weights of MiniLM", "vit", "vit-shuffled", auxiliary="bert"),
    ),
    encoders={"demo": {"vit": "tiny:vit-384", "bert": "demo", "shuffled": "tiny:minilm-shuffled"}},
    settings={"keep_weights": False},
    notes=(
        "The vision transformer (6 blocks, 384 wide, MLP 1536, 6 heads) starts at random. The auxiliary's weights "
        "train too, and are folded into it at the end. M2PT (https://arxiv.org/abs/2401.14405) starts from a "
        "pre-trained transformer.",
    ),
)
