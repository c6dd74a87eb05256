"""Log-loss and expected calibration error against scikit-learn and against loops that are obviously right."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss as of_sklearn

from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.metrics.metrics import bootstrap_metrics
from mi2p_inject.recipes.metrics.probability_metrics import (
    PROBABILITY_METRICS,
    expected_calibration_error,
    log_loss,
    resampled_probability_metrics,
)
from mi2p_inject.recipes.metrics.resampling import group_weights
from mi2p_inject.recipes.tasks import MultiLabel, SingleLabel, Task


def drawn(seed: int, multi_label: bool, count: int = 60, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and probabilities that know something of them."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(count, classes))
    if multi_label:
        true = (random.random((count, classes)) < 0.4).astype(np.int64)
        logits += true
    else:
        true = random.integers(0, classes, count)
        logits[np.arange(count), true] += 1
    return true, task(multi_label, classes).probabilities(logits.astype(np.float32))


def task(multi_label: bool, classes: int) -> Task:
    return (MultiLabel if multi_label else SingleLabel)(tuple(map(str, range(classes))))


def slow_ece(true: np.ndarray, probabilities: np.ndarray) -> float:
    """Every answer goes into its bin; a bin counts by how many answers it has."""
    answers = []
    for labels, scores in zip(true.tolist(), probabilities.tolist(), strict=True):
        if isinstance(labels, list):
            answers += list(zip(scores, labels, strict=True))
        else:
            answers.append((max(scores), float(scores.index(max(scores)) == labels)))
    total = 0.0
    for number in range(15):
        inside = [
            (confidence, right)
            for confidence, right in answers
            if number / 15 < confidence <= (number + 1) / 15 or (number == 0 and confidence == 0)
        ]
        if inside:
            accuracy = sum(right for _, right in inside) / len(inside)
            confidence = sum(one for one, _ in inside) / len(inside)
            total += len(inside) / len(answers) * abs(accuracy - confidence)
    return total


def test_probabilities() -> None:
    logits = np.array([[0, math.log(3)]], dtype=np.float32)
    assert task(False, 2).probabilities(logits)[0] == pytest.approx([0.25, 0.75])
    assert task(True, 2).probabilities(logits)[0] == pytest.approx([0.5, 0.75])
    assert task(False, 2).probabilities(np.array([[1000, -1000]], dtype=np.float32)).tolist() == [[1, 0]]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), multi_label=st.booleans(), count=st.integers(1, 40), classes=st.integers(2, 6))
def test_against_the_literal_form(seed: int, multi_label: bool, count: int, classes: int) -> None:
    true, probabilities = drawn(seed, multi_label, count, classes)
    assert expected_calibration_error(true, probabilities) == pytest.approx(slow_ece(true, probabilities))
    losses = []
    for labels, scores in zip(true.tolist(), probabilities.tolist(), strict=True):
        if multi_label:
            losses += [-math.log(p if yes else 1 - p) for yes, p in zip(labels, scores, strict=True)]
        else:
            losses.append(-math.log(scores[labels]))
    assert log_loss(true, probabilities) == pytest.approx(sum(losses) / len(losses))


def test_perfect_wrong_and_never_infinite() -> None:
    true = np.array([0, 1])
    assert log_loss(true, np.eye(2)) == pytest.approx(0, abs=1e-12)
    assert expected_calibration_error(true, np.eye(2)) == 0
    assert expected_calibration_error(true, 1 - np.eye(2)) == 1
    assert 30 < log_loss(true, 1 - np.eye(2)) < 40
    assert log_loss(true, 1 - np.eye(2)) == of_sklearn(true, 1 - np.eye(2), labels=[0, 1])


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_whole_set_and_each_resample_are_the_metrics(multi_label: bool) -> None:
    true, probabilities = drawn(0, multi_label)
    probabilities[0] = [1, 0, 0, 0]
    groups = np.arange(60) // 3
    found = resampled_probability_metrics(true, probabilities, groups, seed=3, resamples=5)
    assert found.names == PROBABILITY_METRICS
    weights = np.concatenate(list(group_weights(groups, seed=3, resamples=5))).astype(int)
    assert (weights[0] == 1).all()
    for counts, values in zip(weights, found.values, strict=True):
        samples = np.repeat(np.arange(60), counts)
        expected = [
            measure(true[samples], probabilities[samples]) for measure in (log_loss, expected_calibration_error)
        ]
        assert values == pytest.approx(expected)


def test_paired_with_the_other_metrics() -> None:
    """The same seed draws the same groups for decisions and probabilities."""
    true, probabilities = drawn(0, False)
    right = np.eye(4)[true]
    groups = np.arange(60) // 3
    half = np.where(np.arange(60)[:, None] % 2 == 0, right, 0.25)
    better, worse = (
        resampled_probability_metrics(true, one, groups, seed=0).intervals()["log_loss"]
        for one in (half, probabilities)
    )
    difference = resampled_probability_metrics(true, half, groups, seed=0) - resampled_probability_metrics(
        true, probabilities, groups, seed=0
    )
    gain = difference.intervals()["log_loss"]
    assert gain.value == pytest.approx(better.value - worse.value)
    assert gain.high - gain.low < better.high - better.low + worse.high - worse.low
    accuracy = bootstrap_metrics(task(False, 4), true, probabilities.argmax(axis=1), groups, seed=0)["accuracy"]
    drawn_again = [
        (weights * (probabilities.argmax(axis=1) == true)).sum(axis=1) / weights.sum(axis=1)
        for weights in group_weights(groups, seed=0)
    ]
    assert accuracy.low == pytest.approx(np.quantile(np.concatenate(drawn_again[1:]), 0.025))


@pytest.mark.parametrize(
    ("true", "probabilities", "words"),
    [
        (np.array([], dtype=np.int64), np.zeros((0, 2)), "one length"),
        (np.array([0, 1]), np.zeros((3, 2)), "one length"),
        (np.zeros((2, 3), dtype=np.int64), np.zeros((2, 2)), "do not fit"),
    ],
)
def test_refuses_arrays_that_do_not_fit(true: np.ndarray, probabilities: np.ndarray, words: str) -> None:
    for measure in (log_loss, expected_calibration_error):
        with pytest.raises(RecipeError, match=words):
            measure(true, probabilities)
    with pytest.raises(RecipeError, match=words):
        resampled_probability_metrics(true, probabilities, np.arange(len(true)), seed=0)
    with pytest.raises(RecipeError, match="at least one sample"):
        next(group_weights(np.array([], dtype=np.int64), seed=0))
