"""Unit, sites and rate of an expanded model side by side: what its defaults were chosen by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mi2p_inject.recipes.experiments.experiment import Experiment, ExperimentSet
from mi2p_inject.recipes.experiments.sets.paper_tables import ENCODERS

__all__ = ["DEFAULTS"]

_ROLES = {"vision": "densenet", "text": "bert"}
_LAST, _LATE, _ALL = ["4/4"], ["2/4", "3/4", "4/4"], ["paper"]

#: units under their names in a line
_UNITS: dict[str, dict[str, Any]] = {
    "mi2p": {"unit": "mi2p"},
    "mi2p without source_norm": {"unit": "mi2p", "unit_options": {"source_norm": False}},
    "film": {"unit": "film"},
    "cross-attention": {"unit": "cross-attention"},
    "mi2p-paper": {"unit": "mi2p-paper"},
}
_SITES = {"the last quarter of its sites": _LAST, "the last three quarters": _LATE, "every default site": _ALL}


def _vision(name: str, unit: str, sites: str, *, tuned: bool = False) -> Experiment:
    """A choice for an image encoder, compared with the same unit at the last sites, or that unit with mi2p."""
    read = "{text} tuned on the task" if tuned else "{text}"
    settings: Mapping[str, Any] = {"model": "me-vision", **_UNITS[unit], "vision_layers": _SITES[sites]}
    base = "me-vision-tuned" if tuned else "me-vision"
    return Experiment(
        name,
        f"ME {{vision}}, reads {read}: {unit} at {sites}",
        settings,
        _ROLES,
        ("vision", "text") if name == base else (base,),
        sources=("text",) if tuned else (),
    )


def _text(name: str, title: str, **settings: Any) -> Experiment:
    """A choice for a text encoder beside the default one, which comes first."""
    base = ("text",) if name == "me-text" else ("me-text",)
    return Experiment(name, f"ME {{text}}, reads {{vision}}: {title}", {"model": "me-text", **settings}, _ROLES, base)


_QUARTER, _THREE, _EVERY = _SITES
DEFAULTS = ExperimentSet(
    name="table defaults",
    title="Unit, sites and rate of an expanded model",
    experiments=(
        Experiment("vision", "{vision}", {"model": "vision"}, _ROLES),
        Experiment("text", "{text}", {"model": "text"}, _ROLES),
        _vision("me-vision", "mi2p", _QUARTER),
        _vision("me-vision-all", "mi2p", _EVERY),
        _vision("me-vision-three-quarters", "mi2p", _THREE),
        _vision("me-vision-no-norm", "mi2p without source_norm", _QUARTER),
        _vision("me-vision-no-norm-all", "mi2p without source_norm", _EVERY),
        _vision("me-vision-film", "film", _QUARTER),
        _vision("me-vision-film-all", "film", _EVERY),
        _vision("me-vision-cross-attention", "cross-attention", _QUARTER),
        _vision("me-vision-paper-unit", "mi2p-paper", _QUARTER),
        _vision("me-vision-tuned", "mi2p", _QUARTER, tuned=True),
        _vision("me-vision-tuned-all", "mi2p", _EVERY, tuned=True),
        _vision("me-vision-tuned-no-norm", "mi2p without source_norm", _QUARTER, tuned=True),
        _vision("me-vision-tuned-film-all", "film", _EVERY, tuned=True),
        _text("me-text", "by default, film at the last sixth of its sites, a third of the rate"),
        _text("me-text-mi2p", "unit mi2p", unit="mi2p"),
        _text("me-text-cross-attention", "unit cross-attention", unit="cross-attention"),
        _text("me-text-all-sites", "every default site", text_layers=_ALL),
        _text("me-text-full-rate", "the rate of new parameters", unit_learning_rate=1e-3),
        _text(
            "me-text-mi2p-all-full-rate",
            "unit mi2p at every default site, the rate of new parameters",
            unit="mi2p",
            text_layers=_ALL,
            unit_learning_rate=1e-3,
        ),
    ),
    encoders=ENCODERS,
    settings={"keep_weights": False, "new_learning_rate": 1e-3},
    notes=("To be chosen by on the validation split; the test figures stand beside and decide nothing.",),
)
