"""The defaults of an expanded model and the choices beside them: unit, sites and rate, one changed at a time."""

from __future__ import annotations

from typing import Any

from mi2p_inject.recipes.experiments.experiment import Experiment, ExperimentSet
from mi2p_inject.recipes.experiments.sets.paper_tables import ENCODERS

__all__ = ["DEFAULTS"]

_ROLES = {"vision": "densenet", "text": "bert"}


def _try(name: str, title: str, model: str, **settings: Any) -> Experiment:
    """A choice beside the default one, which comes first and is what it is compared with."""
    expanded = "ME {vision}, reads {text}" if model == "me-vision" else "ME {text}, reads {vision}"
    base = () if name == model else (model,)
    return Experiment(name, f"{expanded}: {title}", {"model": model, **settings}, _ROLES, base)


DEFAULTS = ExperimentSet(
    name="table defaults",
    title="Unit, sites and rate of an expanded model, one changed at a time",
    experiments=(
        _try("me-vision", "by default, mi2p at the last third of its sites", "me-vision"),
        _try("me-vision-paper-unit", "unit mi2p-paper", "me-vision", unit="mi2p-paper"),
        _try("me-vision-film", "unit film", "me-vision", unit="film"),
        _try("me-vision-cross-attention", "unit cross-attention", "me-vision", unit="cross-attention"),
        _try("me-vision-all-sites", "every default site", "me-vision", vision_layers=["paper"]),
        _try("me-vision-last-site", "the last site", "me-vision", vision_layers=[-1]),
        _try("me-text", "by default, film at the last sixth of its sites, a third of the rate", "me-text"),
        _try("me-text-mi2p", "unit mi2p", "me-text", unit="mi2p"),
        _try("me-text-cross-attention", "unit cross-attention", "me-text", unit="cross-attention"),
        _try("me-text-all-sites", "every default site", "me-text", text_layers=["paper"]),
        _try("me-text-full-rate", "the rate of new parameters", "me-text", unit_learning_rate=1e-3),
        _try(
            "me-text-mi2p-all-full-rate",
            "unit mi2p at every default site, the rate of new parameters",
            "me-text",
            unit="mi2p",
            text_layers=["paper"],
            unit_learning_rate=1e-3,
        ),
    ),
    encoders=ENCODERS,
    settings={"keep_weights": False, "new_learning_rate": 1e-3},
    notes=("To be chosen by on the validation split; the test figures stand beside and decide nothing.",),
)
