"""Lines of the paper's tables: a densenet and a bert, or whatever else is named."""

from __future__ import annotations

from typing import Any

from mi2p_inject.recipes.experiments.experiment import Experiment

__all__ = ["apart", "line"]


def line(
    name: str, title: str, paper_title: str, model: str, *compared_with: str, fusion: str = "", **more: Any
) -> Experiment:
    """An experiment with a densenet and a bert, or whatever ``vision`` and ``text`` name as roles."""
    roles = {"vision": more.pop("vision", "densenet"), "text": more.pop("text", "bert")}
    sources = more.pop("sources", ())
    settings = {"model": model, **({"fusion": fusion} if fusion else {}), **more}
    return Experiment(name, title, settings, roles, compared_with, sources=sources, paper_title=paper_title)


def apart(name: str, title: str, *averages: str, compared_with: tuple[str, ...] = ()) -> Experiment:
    """The mean of the probabilities of models that were trained apart."""
    return Experiment(name, title, compared_with=compared_with, averages=averages)
