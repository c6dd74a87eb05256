"""Sentences about differences, written from the numbers, so that no text claims more than was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mi2p_inject.recipes.experiments.picked import best_expanded, picking_metrics, strongest_fusion
from mi2p_inject.recipes.experiments.report import gains_of, significant

__all__ = ["gain_sentences", "pick_notes", "picked_sentence", "verdict"]

Numbers = Mapping[str, Any]


def gain_sentences(reports: Sequence[Numbers], metric: str = "") -> list[str]:
    """One sentence for each pair that every report compares: by how much, with how many seeds, and how certain.

    Args:
        reports: metrics.json of one set or of several, such as of runs with a split each.
        metric: the one that is reported; "": the first.

    Returns:
        Markdown, without a bullet.

    Examples:
        >>> gain = {"seeds": [0], "by_seed": {"f": [0.02]}, "test": {"f": {"value": 0.02, "low": -0.01, "high": 0.05}}}
        >>> info = {"title": "F1", "percent": True, "lower_is_better": False}
        >>> gain_sentences([{"metrics": {"f": info}, "experiments": {"a": {"gain": {"b": gain}}}}])
        ['**a minus b**: +2.0 points of F1 with seed 0; the 95 % interval [-1.0, 5.0] holds 0.']
    """
    metric = metric or next(iter(reports[0]["metrics"]))
    info = reports[0]["metrics"][metric]
    found = []
    for name, base, _ in gains_of(reports[0]):
        gains = [one["experiments"].get(name, {}).get("gain", {}).get(base) for one in reports]
        if all(gains):
            found.append(f"**{name} minus {base}**: {_sentence(gains, metric, info)}")
    return found


def verdict(reports: Sequence[Numbers], metric: str = "") -> dict[str, list[str]]:
    """Which differences are certain: "better", "worse" and "neither" -> "a than b (+2.9)".

    Args:
        reports: metrics.json of sets; each of their pairs counts once for each report.
        metric: the one that decides; "": the first of each report.
    """
    found: dict[str, list[str]] = {"better": [], "worse": [], "neither": []}
    for numbers in reports:
        name = metric or next(iter(numbers["metrics"]))
        info = numbers["metrics"][name]
        for experiment, base, gain in gains_of(numbers):
            one = gain["test"][name]
            kind = ("better" if _ahead(one["value"], info) else "worse") if significant(one) else "neither"
            found[kind].append(f"{experiment} than {base} ({_number(one['value'], info)})")
    return found


def picked_sentence(numbers: Numbers, by: str | None = None) -> str:
    """The best expanded system beside the strongest late fusion of plain encoders, both picked on the validation split.

    Args:
        numbers: metrics.json of a set.
        by: the metric that picks; None: the first one.

    Returns:
        Markdown; "" where the set has no such two, or does not compare them.
    """
    metric, lines = by or next(iter(numbers["metrics"])), numbers["experiments"]
    best, rival = best_expanded(lines, metric), strongest_fusion(lines, metric)
    if best is None or rival is None:
        return ""
    gain = lines[best]["gain"].get(rival)
    if not gain:
        return ""
    found = []
    for name in picking_metrics(numbers["metrics"]):
        info = numbers["metrics"][name]
        unit = f"{'points of ' if info['percent'] else 'in '}{info['title']}"
        found.append(f"{_number(gain['test'][name]['value'], info)} {unit}; {_interval(gain['test'][name], info)}")
    title = numbers["metrics"][metric]["title"]
    seeds = f"seed{'s' if len(gain['seeds']) > 1 else ''} {', '.join(map(str, gain['seeds']))}"
    return (
        f"Picked by {title} on the validation split, the best expanded system is **{best}** and the strongest late "
        f"fusion **{rival}**. On the test split, with {seeds}, {best} minus {rival}: {'. '.join(found)}."
    )


def pick_notes(numbers: Numbers) -> list[str]:
    """What a set's validation split picks, and how to answer with it; [] where nothing is to be picked.

    Args:
        numbers: metrics.json of a set.

    Returns:
        A sentence of Markdown each.
    """
    if numbers["smoke"]:
        return []
    found = [one for metric in picking_metrics(numbers["metrics"]) if (one := picked_sentence(numbers, metric))]
    best = best_expanded(numbers["experiments"], next(iter(numbers["metrics"])))
    if not found or best is None:
        return []
    line = numbers["experiments"][best]
    runs = " ".join(f"experiments/{name}/seed-{line['seeds'][0]}" for name in line["averages"] or [best])
    command = f"`mi2p predict {runs} --data new.csv` in the table's folder answers with {best}"
    kept = numbers["settings"]["keep_weights"]
    return [*found, f"{command}." if kept else f"Trained with `--set keep_weights=true`, {command}."]


def _sentence(gains: Sequence[Mapping[str, Any]], metric: str, info: Mapping[str, Any]) -> str:
    """Of one pair, from each report."""
    tested = [gain["test"][metric] for gain in gains]
    values = [value for gain in gains for value in gain["by_seed"].get(metric, [])]
    unit = f" {'points of ' if info['percent'] else 'in '}{info['title']}"
    if len(values) == 1:
        return f"{_number(values[0], info)}{unit} with seed {gains[0]['seeds'][0]}; {_interval(tested[0], info)}."
    extent = f"{_number(min(values), info)} to {_number(max(values), info)}" if values else ""
    if len(gains) == 1:
        mean = f"{_number(tested[0]['value'], info)}{unit} on average over {len(gains[0]['seeds'])} seeds"
        spread = f" ({extent}), {_where(values, info)}" if values else ""
        return f"{mean}{spread}; {_interval(tested[0], info)}."
    return f"{extent}{unit}, {_where(values, info)}; {_intervals(gains, tested)}."


def _where(values: Sequence[float], info: Mapping[str, Any]) -> str:
    """With how many seeds the first one is ahead."""
    count = len(values)
    ahead, behind = (sum(_ahead(sign * value, info) for value in values) for sign in (1, -1))
    if count in (ahead, behind):
        return f"{'ahead' if ahead else 'behind'} with each of {count} seeds"
    return f"ahead with {ahead} and behind with {behind} of {count} seeds"


def _interval(gain: Mapping[str, float], info: Mapping[str, Any]) -> str:
    scale, digits = (100, 1) if info["percent"] else (1, 3)
    low, high = (f"{scale * gain[end]:.{digits}f}" for end in ("low", "high"))
    return f"the 95 % interval [{low}, {high}] {'leaves 0 out' if significant(gain) else 'holds 0'}"


def _intervals(gains: Sequence[Mapping[str, Any]], tested: Sequence[Mapping[str, float]]) -> str:
    """Of several reports."""
    unsure = [gain["seeds"] for gain, one in zip(gains, tested, strict=True) if not significant(one)]
    if len(unsure) in (0, len(gains)):
        return f"each of the {len(gains)} intervals {'holds 0' if unsure else 'leaves 0 out'}"
    seeds = ", ".join(str(seed) for listed in unsure for seed in listed)
    return f"{len(unsure)} of the {len(gains)} intervals {'holds' if len(unsure) == 1 else 'hold'} 0 (seed {seeds})"


def _ahead(value: float, info: Mapping[str, Any]) -> bool:
    return value < 0 if info["lower_is_better"] else value > 0


def _number(value: float, info: Mapping[str, Any]) -> str:
    return f"{100 * value:+.1f}" if info["percent"] else f"{value:+.3f}"
