"""The reading check: what a trained model scores without a modality, or with another sample's, beside what it scores.

A source that is worth nothing is often one that the model has not learned to attend to: the numbers of a run do not
show that, since they are those of the backbone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mi2p_inject.recipes.config import Config, DataConfig
from mi2p_inject.recipes.data.samples import present
from mi2p_inject.recipes.metrics.metric_info import info_of
from mi2p_inject.recipes.metrics.metrics import resampled_answers
from mi2p_inject.recipes.metrics.resampling import Resampled
from mi2p_inject.recipes.systems import System, SystemModel
from mi2p_inject.recipes.systems.columns import COLUMNS
from mi2p_inject.recipes.systems.inputs import Collator, ImageTextDataset
from mi2p_inject.recipes.tasks import Task
from mi2p_inject.recipes.training.progress.bars import OnStep, no_progress
from mi2p_inject.recipes.training.trainer import predict

__all__ = [
    "PERMUTATIONS",
    "checked_modalities",
    "mean_reading",
    "reading_numbers",
    "reading_remarks",
    "shuffled_rows",
]

PERMUTATIONS = 3
_SPLIT = "validation"


def checked_modalities(system: System, data: DataConfig | None = None) -> tuple[str, ...]:
    """The modalities that a model could ignore: those of its sources, and all where it reads more than one.

    Args:
        system: that reads.
        data: may name columns that it attends to besides; they are checked as one.

    Examples:
        >>> from mi2p_inject.recipes.systems import SYSTEMS
        >>> {name: checked_modalities(SYSTEMS[name]) for name in ("vision", "me-vision", "late-fusion")}
        {'vision': (), 'me-vision': ('text',), 'late-fusion': ('image', 'text')}
    """
    read = system.reads if len(system.reads) > 1 else ()
    checked = tuple(one for one in system.modalities if one in read or one in system.source_modalities)
    return (*checked, COLUMNS) if data is not None and data.column_names else checked


def reading_numbers(
    model: SystemModel,
    config: Config,
    task: Task,
    data: Mapping[str, ImageTextDataset],
    collator: Collator,
    predictions: Mapping[str, NDArray[Any]],
    numbers: Mapping[str, Any],
    metric: str,
    on_step: OnStep = no_progress,
) -> dict[str, Any]:
    """The metric and the log-loss on the validation split as it is, with a modality withheld, and with it shuffled.

    Args:
        model: the trained one.
        config: what was trained; its seed is that of the permutations and of the bootstrap.
        task: what was learned.
        data: split -> samples.
        collator: items -> batch, with cached sources where there are any.
        predictions: of `mi2p_inject.recipes.training.numbers.predict_splits`.
        numbers: of the training so far: what the task decides by, and remarks.
        metric: the one that chose the checkpoint.
        on_step: called after each batch of each prediction.

    Returns:
        What the check adds to the numbers: nothing where it is not asked for or a model reads one modality only; else
        ``remarks`` and ``reading``, JSON values, None without a validation split. Its ``modalities`` has for
        each ``withheld`` and ``shuffled`` (the metric), the paired differences of "as is" to both in the metric and in
        ``log_loss``, and as ``worth`` the smaller difference in the metric. ``shuffled`` is None with fewer than two
        samples that have the modality.
    """
    checked = checked_modalities(config.model.system, config.data)
    if not config.answers.reading_check or not checked:
        return {}
    if f"{_SPLIT}_logits" not in predictions:
        said = ["no reading check: there is no validation split"]
        return {"reading": None, "remarks": [*numbers["remarks"], *said]}
    true, groups = predictions[f"{_SPLIT}_labels"], predictions[f"{_SPLIT}_groups"]
    given = data[_SPLIT]

    def measured(logits: NDArray[np.float32]) -> Resampled:
        decided, likely = task.answers(logits, numbers["decision"])
        found = resampled_answers(task, true, decided, likely, groups, seed=config.run.seed)
        return found.only(list(dict.fromkeys([metric, "log_loss"])))

    def exchanged(modality: str, rows: Sequence[int | None]) -> Resampled:
        other = ImageTextDataset(given.rows, given.spec, exchanged={modality: rows})
        return measured(predict(model, other, collator, config, on_step))

    as_is = measured(predictions[f"{_SPLIT}_logits"])
    modalities, unchecked = {}, []
    for modality in checked:
        having = _rows_with(given.rows, modality)
        if not len(having):
            unchecked.append(f"no reading check of the {modality}: no {_SPLIT} sample has any")
            continue
        kinds = {"withheld": exchanged(modality, [None] * len(given))}
        orders = [shuffled_rows(len(given), having, (config.run.seed, one)) for one in range(PERMUTATIONS)]
        if len(having) > 1:
            kinds["shuffled"] = Resampled.mean([exchanged(modality, order) for order in orders])
        modalities[modality] = {"samples": len(having), **_compared(as_is, kinds, metric)}
    reading = {
        "metric": metric,
        "split": _SPLIT,
        "samples": len(given),
        "permutations": PERMUTATIONS,
        "as_is": dict(zip(as_is.names, as_is.values[0].tolist(), strict=True)),
        "modalities": modalities,
    }
    return {"reading": reading, "remarks": [*numbers["remarks"], *reading_remarks(reading, config), *unchecked]}


def shuffled_rows(count: int, having: NDArray[np.int64], seed: Sequence[int]) -> list[int | None]:
    """Whose modality each sample gets: another's, among the samples that have it; the others go on having none.

    Args:
        count: samples.
        having: rows of those that have the modality.
        seed: the same seed gives the same order.

    Examples:
        >>> found = shuffled_rows(4, np.array([0, 1, 3]), (0,))
        >>> found[2], sorted(one for one in found if one is not None)
        (None, [0, 1, 3])
    """
    order = np.random.default_rng(list(seed)).permutation(having)
    rows: list[int | None] = [None] * count
    for taker, giver in zip(order, np.roll(order, -1), strict=True):  # one circle: nobody keeps its own
        rows[int(taker)] = int(giver)
    return rows


def mean_reading(readings: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Reading checks of several seeds as one: modality -> means, and with how many seeds it is worth something.

    Args:
        readings: of each seed, as `reading_numbers` gives them.

    Returns:
        ``metric``, ``as_is``, ``withheld``, ``shuffled`` (None where a seed has none), ``worth`` (means), ``seeds`` and
        ``above`` (seeds whose interval lies above 0).
    """
    found: dict[str, dict[str, Any]] = {}
    for modality in dict.fromkeys(name for one in readings for name in one["modalities"]):
        own = [one for one in readings if modality in one["modalities"]]
        checks = [one["modalities"][modality] for one in own]
        shuffled = [one["shuffled"] for one in checks]
        found[modality] = {
            "metric": own[0]["metric"],
            "as_is": float(np.mean([one["as_is"][one["metric"]] for one in own])),
            "withheld": float(np.mean([one["withheld"] for one in checks])),
            "shuffled": None if None in shuffled else float(np.mean(shuffled)),
            "worth": float(np.mean([one["worth"]["value"] for one in checks])),
            "seeds": len(checks),
            "above": sum(one["worth"]["low"] > 0 for one in checks),
        }
    return found


def reading_remarks(reading: Mapping[str, Any], config: Config) -> list[str]:
    """What the reading check found, in sentences, and what to try where a modality is not surely worth anything.

    Args:
        reading: what `reading_numbers` gave.
        config: what was trained.
    """
    info = info_of(reading["metric"])
    found = []
    for modality, one in reading["modalities"].items():
        worth, be = one["worth"], "are" if modality == COLUMNS else "is"
        kinds = [f"withheld {100 * one['withheld']:.1f}"]
        kinds += [f"another sample's {100 * one['shuffled']:.1f}"] if one["shuffled"] is not None else []
        line = (
            f"reading check, {reading['samples']} {reading['split']} samples: the {modality} {be} worth "
            f"{100 * worth['value']:+.1f} points of {info.title} [{100 * worth['low']:.1f}, {100 * worth['high']:.1f}] "
            f"(as is {100 * reading['as_is'][reading['metric']]:.1f}, {', '.join(kinds)})"
        )
        if worth["low"] <= 0:
            without = (
                "without it" if worth == one["as_is_minus_withheld"][reading["metric"]] else "with another sample's"
            )
            better = f"worth nothing, the answers are better {without}"
            what = better if worth["high"] < 0 else "not surely worth anything, the interval holds 0"
            line += f": {what}{_but(one)}; try {_advice(modality, config)}"
        found.append(line)
    return found


def _but(one: Mapping[str, Any]) -> str:
    """Log-loss sees smaller differences than decisions do."""
    differences = [one[f"as_is_minus_{kind}"]["log_loss"] for kind in ("withheld", "shuffled") if one[kind] is not None]
    if all(difference["high"] < 0 for difference in differences):
        return f", though it lowers the log-loss by {min(-each['value'] for each in differences):.3f}"
    return ""


def _advice(modality: str, config: Config) -> str:
    if modality == COLUMNS:
        sites = " or ".join(_SITES[one] for one in config.model.system.source_modalities)
        return f"more steps (epochs, min_steps), other sites ({sites}), or other columns"
    if modality not in config.model.system.source_modalities:
        return f"more steps (epochs, min_steps), or a higher {_RATES[modality]}"
    tuned = "" if config.model.tuned else ", or a source that is tuned on the task (source=tuned)"
    return f"more steps (epochs, min_steps), other sites ({_SITES[modality]}){tuned}"


_RATES: dict[str, str] = {"image": "vision_learning_rate", "text": "text_learning_rate"}
_SITES: dict[str, str] = {"image": "text_layers", "text": "vision_layers"}


def _compared(as_is: Resampled, kinds: Mapping[str, Resampled], metric: str) -> dict[str, Any]:
    found: dict[str, Any] = {"withheld": None, "shuffled": None}
    for kind, one in kinds.items():
        differences = (as_is - one).intervals()
        found[kind] = float(one.values[0, one.names.index(metric)])
        found[f"as_is_minus_{kind}"] = {name: asdict(interval) for name, interval in differences.items()}
    found["worth"] = min((found[f"as_is_minus_{kind}"][metric] for kind in kinds), key=lambda each: each["value"])
    return found


def _rows_with(rows: Any, modality: str) -> NDArray[np.int64]:
    """Numbers of the samples that have a modality."""
    if modality == COLUMNS:
        return np.arange(len(rows))
    return np.flatnonzero(present(rows, modality))
