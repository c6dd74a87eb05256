"""The rows of the demo, and how each is trained. A new row is a line in `ROWS`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mi2p_inject.recipes.config import Config, make_config

__all__ = ["PAIRS", "ROWS", "Row", "config_of", "identity_of"]


@dataclass(frozen=True)
class Row:
    """One line of the demo's table.

    Attributes:
        name: how the command and the files call it.
        title: what it is, in words.
        settings: of the model that is trained; {} for a fusion.
        fuses: names of the rows whose probabilities are averaged; () for a trained row.
    """

    name: str
    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    fuses: tuple[str, ...] = ()


# Chosen on the validation part. An expanded row gets its unimodal row's schedule, so that only the units differ.
_PICTURE = {"epochs": 7, "learning_rate": 2e-3, "new_learning_rate": 2e-3}
_TEXT = {"epochs": 5, "learning_rate": 1e-4, "new_learning_rate": 1e-3}

ROWS = (
    Row("vision", "picture model alone", {"model": "vision", **_PICTURE}),
    Row("text", "text model alone", {"model": "text", **_TEXT}),
    Row("score", "both, score fusion", fuses=("vision", "text")),
    Row("me-vision", "ME picture model (hears the text)", {"model": "me-vision", **_PICTURE}),
    Row("me-text", "ME text model (sees the picture)", {"model": "me-text", **_TEXT}),
    Row("me-score", "both ME, score fusion", fuses=("me-vision", "me-text")),
)

#: expanded row -> the row that it must beat
PAIRS = {"me-vision": "vision", "me-text": "text", "me-score": "score"}

_SHARED = {
    "data": "openmoji",
    "vision": "demo",
    "text": "demo",
    "image_size": 96,
    "max_length": 32,
    "patience": 0,
    # The paper's plain addition. On validation it beat a start at zero with either model: in a few hundred steps a unit
    # that starts at zero has just begun to speak.
    "zero_init": "none",
    # One of MiniLM's six layers: each unit attends to 1,280 channels and costs more than the layer itself, and on
    # validation one scored best.
    "text_layers": ["encoder.layer.4"],
    # The stem and the first stages see edges and colours, and cost half the backward pass. Most words occur once:
    # tuning their embeddings learns nothing that carries over, and takes half of each step.
    "vision_freeze": ["conv_stem.*", "bn1.*", "blocks.[0-2].*"],
    "text_freeze": ["embeddings.word_embeddings.*"],
}


def config_of(row: Row, *, seed: int, smoke: bool, source_cache: str | None = None) -> Config:
    """The settings of a trained row; ``smoke`` is one short epoch."""
    short = {"epochs": 1} if smoke else {}
    own = {"seed": seed, "split_seed": seed, "source_cache": source_cache}
    return make_config(_SHARED, row.settings, short, own)


def identity_of(*, seed: int, smoke: bool) -> dict[str, Any]:
    """What two runs must have in common for the second to go on with the first, as JSON values."""
    from importlib.metadata import version

    rows = {row.name: config_of(row, seed=seed, smoke=smoke).to_json() for row in ROWS if row.settings}
    return {"recipe": "openmoji", "mi2p-inject": version("mi2p-inject"), "seed": seed, "smoke": smoke, "rows": rows}
