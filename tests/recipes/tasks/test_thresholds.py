"""Thresholds against every threshold there is, and the rule by which a class gets its own; average precision."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score

from mi2p_inject.recipes.tasks import MultiLabel
from mi2p_inject.recipes.tasks.average_precision import macro_average_precision
from mi2p_inject.recipes.tasks.thresholds import best_threshold, tune_thresholds


def drawn(count: int, rates: list[float], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and probabilities with ties that know something of them."""
    random = np.random.default_rng(seed)
    true = (random.random((count, len(rates))) < rates).astype(np.int64)
    logits = random.normal(size=true.shape) + 1.5 * true - 2 * np.arange(len(rates)) / len(rates)
    return true, (1 / (1 + np.exp(-logits))).round(2)


def best_f1(true: np.ndarray, probabilities: np.ndarray) -> float:
    """The literal search."""
    tried = np.unique([0, *probabilities.ravel(), 1.01])
    return max(f1_score(true.ravel(), probabilities.ravel() >= at, zero_division=0) for at in tried)


def test_the_best_threshold_is_the_best_there_is() -> None:
    true, probabilities = drawn(80, [0.1, 0.5, 0.3])
    for k in range(3):
        at = best_threshold(probabilities[:, k], true[:, k])
        found = f1_score(true[:, k], probabilities[:, k] >= at)
        assert found == pytest.approx(best_f1(true[:, k], probabilities[:, k]))
        assert found >= f1_score(true[:, k], probabilities[:, k] >= 0.5)
    assert best_threshold(probabilities[:, 0], np.zeros(80, dtype=np.int64)) == 0.5  # nothing to tune on


def test_one_threshold_for_all_where_samples_are_few() -> None:
    true, probabilities = drawn(30, [0.2, 0.5, 0.0])
    found = tune_thresholds(probabilities, true)
    assert found.of_classes.tolist() == [found.common] * 3
    micro = f1_score(true, probabilities >= found.common, average="micro")
    assert micro == pytest.approx(best_f1(true, probabilities))


@pytest.mark.parametrize("positives", [0, 1, 19, 20, 60, 200])
def test_a_class_moves_to_its_own_threshold_with_its_samples(positives: int) -> None:
    true, probabilities = drawn(400, [0.0, 0.4])
    true[:positives, 0] = 1
    own = best_threshold(probabilities[:, 0], true[:, 0])
    found = tune_thresholds(probabilities, true)
    expected = found.common
    if positives >= 20:
        expected += positives / (positives + 50) * (own - found.common)
    assert found.of_classes[0] == pytest.approx(expected)
    assert (found.of_classes[0] == found.common) == (positives < 20)


def test_on_few_samples_it_answers_as_many_labels_as_there_are() -> None:
    """What one threshold a class, tuned on few samples, does not: it answers rare labels all the time."""
    task, random = MultiLabel(tuple(map(str, range(19)))), np.random.default_rng(0)
    rates = np.clip(random.pareto(1.2, 19) * 0.05 + 0.01, 0.01, 0.6)
    true = (random.random((2063, 19)) < rates).astype(np.int64)
    logits = (np.log(rates / (1 - rates)) + random.normal(size=true.shape) + 0.5 * true).astype(np.float32)
    validation, test = slice(63), slice(63, None)
    decision = task.tune(logits[validation], true[validation])
    each = [best_threshold(task.probabilities(logits[validation])[:, k], true[validation, k]) for k in range(19)]
    tuned, wild = (task.decide(logits[test], one) for one in (decision, {"thresholds": each}))
    labels = true[test].sum(axis=1).mean()
    assert 0.5 * labels < tuned.sum(axis=1).mean() < 2 * labels
    assert wild.sum(axis=1).mean() > 2 * labels
    scores = [task.measure(true[test], one)["micro_f1"] for one in (tuned, wild)]
    assert scores[0] > scores[1] + 0.02


def slow_average_precision(true: np.ndarray, scores: np.ndarray) -> float:
    """The definition: from threshold to threshold, how much recall is new, times the precision there."""
    found, recall = 0.0, 0.0
    for at in sorted(set(scores.tolist()), reverse=True):
        answered = scores >= at
        new = true[answered].sum() / true.sum()
        found += (new - recall) * true[answered].mean()
        recall = new
    return found


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 40))
def test_average_precision_is_scikit_learns(seed: int, count: int) -> None:
    true, scores = drawn(count, [0.1, 0.5, 0.0, 0.9], seed)
    weights = np.random.default_rng(seed).integers(0, 3, (4, count))
    weights[0] = 1
    for drawn_weights, found in zip(weights, macro_average_precision(true, scores)(weights.astype(float)), strict=True):
        rows = np.repeat(np.arange(count), drawn_weights)
        there = [k for k in range(4) if true[rows, k].any()]
        if not there:
            assert found == 0
            continue
        assert found == pytest.approx(average_precision_score(true[rows][:, there], scores[rows][:, there]))
        assert found == pytest.approx(np.mean([slow_average_precision(true[rows, k], scores[rows, k]) for k in there]))


def test_a_constant_score_has_the_precision_of_chance() -> None:
    true = np.array([[1, 0], [0, 0], [1, 1], [0, 0]])
    assert MultiLabel(("a", "b")).measure_ranking(true, np.full((4, 2), 0.3)) == {
        "macro_average_precision": pytest.approx((1 / 2 + 1 / 4) / 2)
    }
