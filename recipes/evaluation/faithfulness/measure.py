"""`measure_faithfulness`: deletion and insertion curves over a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from mi2p_inject.recipes.data import open_image
from mi2p_inject.recipes.data.samples import with_text
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.evaluation.evaluate import labelled_samples
from mi2p_inject.recipes.evaluation.faithfulness.orders import Order, SampleCurves, sample_curves
from mi2p_inject.recipes.evaluation.faithfulness.result import Curve, CurveName, Faithfulness, PieceCurves
from mi2p_inject.recipes.explain.loaded import Loaded, load_expanded
from mi2p_inject.recipes.explain.pieces import PieceKind, Pieces, pieces_of
from mi2p_inject.recipes.explain.sample import Sample
from mi2p_inject.recipes.metrics.resampling import Interval, Resampled, group_weights
from mi2p_inject.recipes.saving.saved import SavedRun
from mi2p_inject.recipes.systems.columns import cells_of
from mi2p_inject.recipes.tasks import Labels
from mi2p_inject.recipes.training.numbers import targets_of
from mi2p_inject.recipes.training.progress.bars import row_progress

__all__ = ["DRAWS", "LIMIT", "measure_faithfulness"]

Floats = NDArray[np.float64]

#: samples, and random orders of each
LIMIT, DRAWS = 100, 5
_SHARES = np.linspace(0, 1, 21)
_MEASURES = ("probability", "accuracy")
_ORDERS: tuple[Order, ...] = ("evidence", "lost")
_RANDOM: Order = "random"


@dataclass
class _Found:
    """What was measured of one kind of pieces."""

    order: str
    curves: list[SampleCurves] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    pieces: list[int] = field(default_factory=list)
    too_few: int = 0


def measure_faithfulness(
    run: SavedRun,
    data: str | None = None,
    options: Mapping[str, Any] | None = None,
    split: str = "test",
    *,
    limit: int = LIMIT,
    draws: int = DRAWS,
    console: Console | None = None,
) -> Faithfulness:
    """Whether taking away what an explanation names changes a run's answers sooner than a random order does.

    A sample's pieces are taken away (deletion), or given one after another to a model that has none of them
    (insertion), at ten steps or as many as there are pieces: words of the text that a picture model reads, windows of
    the picture that a text model reads, and the channels, or tokens, that its units attend to.

    Args:
        run: of an expanded model.
        data: as for `evaluate_run`.
        options: as for `evaluate_run`.
        split: as for `evaluate_run`.
        limit: samples at most, drawn from those with a picture and a text.
        draws: random orders of each.
        console: where progress is shown; None: nowhere.

    Raises:
        RecipeError: as `evaluate_run`; the run is not expanded; a limit or number of draws below 1; no sample has a
            picture and a text, or none has two pieces.
    """
    for name, number in (("limit", limit), ("draws", draws)):
        if number < 1:
            raise RecipeError(
                f"{name} is a number of 1 or more", expected="1 or more", given=str(number), fix=f"--{name} 10"
            )
    config, samples = labelled_samples(run, data, options or {}, split)
    loaded = load_expanded(run)
    rows, true = samples.splits[split], targets_of(run.task, samples, split)
    both = np.flatnonzero(with_text(rows))
    chosen = np.sort(np.random.default_rng(config.run.seed).permutation(both)[:limit]).astype(int)
    groups = np.unique(np.asarray(rows["group"][:], dtype=str), return_inverse=True)[1]
    found: dict[tuple[Any, PieceKind], _Found] = {}
    with row_progress(console or Console(quiet=True), "taking away pieces, sample by sample") as on_step:
        for number, row in enumerate(chosen):
            picture = open_image(rows[int(row)]["image"], on_bad="missing")
            if picture is not None:
                random = np.random.default_rng([config.run.seed, int(row)])
                sample = Sample.of(loaded, picture, rows[int(row)]["text"], cells_of(rows[int(row)]))
                _add(found, sample, true[row], int(groups[row]), draws, random)
            on_step(number + 1, len(chosen))
    if not any(one.curves for one in found.values()):
        raise RecipeError(
            f"no sample of {split} has pieces in an order",
            expected="samples with a picture, and a text of two words or more",
            given=f"{len(chosen)} samples with a text",
            fix="another split or data",
        )
    return Faithfulness(
        title=config.model.system.describe(config.model),
        data=config.data.data,
        split=split,
        drawn=len(chosen),
        of=len(both),
        draws=draws,
        shares=_SHARES,
        pieces=tuple(_summary(key, one, config.run.seed) for key, one in found.items() if one.curves),
    )


def _add(
    found: dict[tuple[Any, PieceKind], _Found],
    sample: Sample,
    true: Any,
    group: int,
    draws: int,
    random: np.random.Generator,
) -> None:
    """One sample's curves, of each expanded model and kind of pieces."""
    loaded = sample.loaded
    target = int(np.argmax(loaded.probabilities(sample.batch)[0]))
    for modality in loaded.expanded:
        given = sample.evidence(modality, target)
        for pieces in pieces_of(sample, given):
            attended = given.last is not None and pieces.kind != "places"
            order = f"gradient times {'attention' if attended else 'features'}"
            one = found.setdefault((modality, pieces.kind), _Found(order))
            if len(pieces) < 2:
                one.too_few += 1
                continue

            def measure(kept: NDArray[np.bool_], pieces: Pieces = pieces) -> Floats:
                return _numbers(loaded, pieces.logits(kept), target, true)

            one.curves.append(sample_curves(pieces.evidence, measure, draws=draws, random=random))
            one.groups.append(group)
            one.pieces.append(len(pieces))


def _numbers(loaded: Loaded, logits: NDArray[np.float32], target: int, true: Labels) -> Floats:
    """(S, 2): the probability of a class, and whether the answer is right."""
    decided, probabilities = loaded.run.task.answers(logits, loaded.run.decision)
    right = decided[:, target] == true[target] if decided.ndim == 2 else decided == true
    return np.stack([probabilities[:, target], right.astype(np.float64)], axis=1)


def _summary(key: tuple[Any, PieceKind], found: _Found, seed: int) -> PieceCurves:
    made: dict[str, dict[CurveName, Curve]] = {name: {} for name in _MEASURES}
    names: tuple[CurveName, ...] = ("deletion", "insertion")
    every = [order for order in _ORDERS if all(order in one.deletion for one in found.curves)]
    areas = {}
    for order in every:
        gains = np.array([one.gains(order) for one in found.curves])  # (samples, deletion and insertion, measures)
        for number, name in enumerate(names):
            areas[order, name] = _intervals(gains[:, number], np.array(found.groups), seed)
    for name in names:
        for place, measure in enumerate(_MEASURES):
            lines = {order: _mean(found.curves, name, order, place) for order in (*every, _RANDOM)}
            made[measure][name] = Curve(lines, {order: areas[order, name][measure] for order in every})
    return PieceCurves(
        modality=key[0],
        kind=key[1],
        order=found.order,
        samples=len(found.curves),
        too_few=found.too_few,
        pieces=float(np.mean(found.pieces)),
        probability=made["probability"],
        accuracy=made["accuracy"],
    )


def _mean(curves: list[SampleCurves], name: CurveName, order: Order, place: int) -> Floats:
    """Over samples, each between its own steps in straight lines."""
    lines = [np.interp(_SHARES, one.shares, getattr(one, name)[order][:, place]) for one in curves]
    return np.asarray(np.mean(lines, axis=0))


def _intervals(gains: Floats, groups: NDArray[np.int64], seed: int) -> dict[str, Interval]:
    """Mean areas of (N, measures) with intervals over groups."""
    chunks = [weights @ gains / weights.sum(axis=1, keepdims=True) for weights in group_weights(groups, seed=seed)]
    return Resampled(_MEASURES, np.concatenate(chunks)).intervals()
