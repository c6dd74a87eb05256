"""Unit, sites, rate and losses of an expanded model side by side: what its defaults were chosen by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mi2p_inject.recipes.experiments.experiment import Experiment, ExperimentSet
from mi2p_inject.recipes.experiments.sets.encoder_sets import ENCODERS

__all__ = ["DEFAULTS"]

_ROLES = {"vision": "densenet", "text": "bert"}
_ALL: dict[str, Any] = {"vision_layers": ["paper"]}
_NARROW: dict[str, Any] = {"unit": "mi2p", "unit_options": {"channel_embedding_dim": 12}}
_NO_NORM: dict[str, Any] = {"unit": "mi2p", "unit_options": {"source_norm": False}}
_NO_SHIFT: dict[str, Any] = {"unit": "mi2p", "unit_options": {"pooled_shift": False}}


def _vision(name: str, title: str, *, tuned: bool = False, **settings: Any) -> Experiment:
    """A choice for an image encoder beside the default one, which comes first."""
    read, base = ("{text} tuned on the task", "me-vision-tuned") if tuned else ("{text}", "me-vision")
    return _choice(
        name, f"ME {{vision}}, reads {read}: {title}", "me-vision", base, ("text",) if tuned else (), settings
    )


def _text(name: str, title: str, **settings: Any) -> Experiment:
    """A choice for a text encoder beside the default one, which comes first."""
    return _choice(name, f"ME {{text}}, reads {{vision}}: {title}", "me-text", "me-text", (), settings)


def _fused(name: str, title: str, model: str, base: str, **settings: Any) -> Experiment:
    """A choice for a concatenation of which one branch is expanded, beside the default one, which comes first."""
    expanded = "ME {vision} and {text}" if model.startswith("me-") else "{vision} and ME {text}"
    more = {"model": model, "fusion": "concat", **settings}
    return Experiment(name, f"concatenation of {expanded}: {title}", more, _ROLES, (base,))


def _choice(
    name: str, title: str, model: str, base: str, sources: tuple[str, ...], settings: Mapping[str, Any]
) -> Experiment:
    compared_with = (model.removeprefix("me-"),) if name == base else (base,)
    return Experiment(name, title, {"model": model, **settings}, _ROLES, compared_with, sources=sources)


DEFAULTS = ExperimentSet(
    name="table defaults",
    title="Unit, sites, rate and losses of an expanded model",
    experiments=(
        Experiment("vision", "{vision}", {"model": "vision"}, _ROLES),
        Experiment("text", "{text}", {"model": "text"}, _ROLES),
        _vision("me-vision", "by default, mi2p at the last third of its sites"),
        _vision("me-vision-no-norm", "mi2p without source_norm", **_NO_NORM),
        _vision("me-vision-no-shift", "mi2p without pooled_shift", **_NO_SHIFT),
        _vision("me-vision-narrow", "mi2p with channel_embedding_dim=12", **_NARROW),
        _vision("me-vision-film", "unit film", unit="film"),
        _vision("me-vision-cross-attention", "unit cross-attention", unit="cross-attention"),
        _vision("me-vision-paper-unit", "unit mi2p-paper", unit="mi2p-paper"),
        _vision("me-vision-all", "every default site", **_ALL),
        _vision("me-vision-film-all", "unit film at every default site", unit="film", **_ALL),
        _vision("me-vision-tuned", "by default", tuned=True),
        _vision("me-vision-tuned-no-norm", "mi2p without source_norm", tuned=True, **_NO_NORM),
        _vision("me-vision-tuned-all", "every default site", tuned=True, **_ALL),
        _vision("me-vision-tuned-film", "unit film", tuned=True, unit="film"),
        _text("me-text", "by default, mi2p at the last sixth of its sites, a third of the rate"),
        _text("me-text-no-shift", "mi2p without pooled_shift", **_NO_SHIFT),
        _text("me-text-narrow", "mi2p with channel_embedding_dim=12", **_NARROW),
        _text("me-text-film", "unit film", unit="film"),
        _text("me-text-cross-attention", "unit cross-attention", unit="cross-attention"),
        _text("me-text-all", "every default site", text_layers=["paper"]),
        _text("me-text-full-rate", "the rate of new parameters", unit_learning_rate=1e-3),
        _text(
            "me-text-all-full-rate",
            "every default site, the rate of new parameters",
            text_layers=["paper"],
            unit_learning_rate=1e-3,
        ),
        *(
            line
            for model, branch in (("me-vision+text", "me-vision"), ("vision+me-text", "me-text"))
            for line in (
                _fused(model, "by default, with a loss of each branch", model, branch),
                _fused(f"{model}-joint-loss", "the joint loss only", model, model, branch_loss=False),
            )
        ),
    ),
    encoders=ENCODERS,
    settings={"keep_weights": False, "new_learning_rate": 1e-3},
    notes=("To be chosen by on the validation split; the test figures stand beside and decide nothing.",),
)
