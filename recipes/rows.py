"""The rows of the comparison, and how each is trained. A new row is a line in `ROWS`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

from mi2p_inject.recipes.config import TrainConfig, View

__all__ = ["PAIRS", "ROWS", "Row", "config_of", "identity_of"]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: how the command and the files call it.
        title: what it is, in words.
        view: what the trained model's backbone reads; None for a fusion.
        expanded: whether the backbone is expanded with units that hear the other modality.
        fuses: names of the rows whose probabilities are averaged; () for a trained row.
    """

    name: str
    title: str
    view: View | None = None
    expanded: bool = False
    fuses: tuple[str, ...] = ()


ROWS = (
    Row("vision", "picture model alone", "picture"),
    Row("text", "text model alone", "text"),
    Row("score", "both, score fusion", fuses=("vision", "text")),
    Row("me-vision", "ME picture model (hears the text)", "picture", expanded=True),
    Row("me-text", "ME text model (sees the picture)", "text", expanded=True),
    Row("me-score", "both ME, score fusion", fuses=("me-vision", "me-text")),
)

#: expanded row -> the row that it must beat
PAIRS = {"me-vision": "vision", "me-text": "text", "me-score": "score"}

# Chosen on the validation part. An expanded row gets its unimodal row's schedule, so that only the units differ.
_SCHEDULES = {
    "picture": TrainConfig(epochs=7, rate_pretrained=2e-3, rate_new=2e-3),
    "text": TrainConfig(epochs=5, rate_pretrained=1e-4, rate_new=1e-3),
}


def config_of(row: Row, *, seed: int, smoke: bool) -> TrainConfig:
    """The schedule of a trained row; ``smoke`` is one short epoch."""
    config = replace(_SCHEDULES[str(row.view)], seed=seed)
    return replace(config, epochs=1) if smoke else config


def identity_of(*, seed: int, smoke: bool) -> dict[str, Any]:
    """What two runs must have in common for the second to go on with the first, as JSON values."""
    schedules = {row.name: asdict(config_of(row, seed=seed, smoke=smoke)) for row in ROWS if row.view}
    return {
        "recipe": "openmoji",
        "mi2p-inject": version("mi2p-inject"),
        "seed": seed,
        "smoke": smoke,
        "schedules": schedules,
    }
