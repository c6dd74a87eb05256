"""Metrics against numbers computed by hand and by scikit-learn; the bootstrap's contract."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.evaluation.metrics import (
    METRICS_OF_SEVERAL,
    bootstrap_difference,
    bootstrap_metrics,
    decide,
    f1_of_classes,
    measure,
    tune_thresholds,
)

TRUE = np.array([0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 0, 1, 1, 2, 2])


def random_labels(seed: int, count: int = 200, classes: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    true = random.integers(0, classes, count)
    return true, np.where(random.random(count) < 0.6, true, random.integers(0, classes, count)), np.arange(count)


def test_by_hand() -> None:
    # class 0: precision 2/2, recall 2/3, F1 4/5; class 1: 1/2, 1/2, 1/2; class 2: 1/2, 1/1, 2/3
    macro = (4 / 5 + 1 / 2 + 2 / 3) / 3
    weighted = (3 * 4 / 5 + 2 * 1 / 2 + 1 * 2 / 3) / 6
    assert f1_of_classes(TRUE, PREDICTED, 3) == pytest.approx([4 / 5, 1 / 2, 2 / 3])
    assert list(measure(TRUE, PREDICTED, 3).values()) == pytest.approx([4 / 6, macro, weighted])
    measured = bootstrap_metrics(TRUE, PREDICTED, np.arange(6), 3, seed=0)
    assert [measured[name].value for name in ("accuracy", "macro_f1", "weighted_f1")] == pytest.approx(
        [4 / 6, macro, weighted]
    )


@pytest.mark.parametrize("classes", [5, 7])  # 7: two classes that never occur
@pytest.mark.parametrize("seed", range(3))
def test_as_scikit_learn(seed: int, classes: int) -> None:
    true, predicted, groups = random_labels(seed)
    measured = bootstrap_metrics(true, predicted, groups, classes, seed=0, resamples=2)
    every = list(range(classes))
    assert measured["accuracy"].value == pytest.approx(accuracy_score(true, predicted))
    for name, average in (("macro_f1", "macro"), ("weighted_f1", "weighted")):
        expected = f1_score(true, predicted, labels=every, average=average, zero_division=0)
        assert measured[name].value == pytest.approx(expected)


def test_same_seed_same_interval_other_seed_other() -> None:
    data = random_labels(0)
    first, again, other = (bootstrap_metrics(*data, 5, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_interval_has_the_width_of_the_binomial() -> None:
    true, predicted, groups = random_labels(0, count=400)
    accuracy = bootstrap_metrics(true, predicted, groups, 5, seed=0)["accuracy"]
    sigma = np.sqrt(accuracy.value * (1 - accuracy.value) / 400)
    assert accuracy.low < accuracy.value < accuracy.high
    assert accuracy.high - accuracy.low == pytest.approx(2 * 1.96 * sigma, rel=0.15)


def test_groups_widen_the_interval() -> None:
    true, predicted, _ = random_labels(0, count=50)
    true, predicted = np.repeat(true, 8), np.repeat(predicted, 8)  # eight copies of each: no more is known
    alone = bootstrap_metrics(true, predicted, np.arange(400), 5, seed=0)["accuracy"]
    grouped = bootstrap_metrics(true, predicted, np.repeat(np.arange(50), 8), 5, seed=0)["accuracy"]
    assert grouped.value == alone.value
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def test_paired_difference() -> None:
    true, predicted, groups = random_labels(0)
    better = np.where(np.arange(200) % 4 == 0, true, predicted)
    none = bootstrap_difference(true, predicted, predicted, groups, 5, seed=0)["accuracy"]
    assert (none.value, none.low, none.high) == (0, 0, 0)
    gain = bootstrap_difference(true, better, predicted, groups, 5, seed=0)["accuracy"]
    separate = [bootstrap_metrics(true, labels, groups, 5, seed=0)["accuracy"] for labels in (better, predicted)]
    assert gain.value == pytest.approx(separate[0].value - separate[1].value)
    assert gain.low > 0  # paired, 15 corrected errors and no new one are certain ...
    assert separate[0].low < separate[1].high  # ... though the two intervals overlap


@pytest.mark.parametrize("arrays", [([], [], []), ([0, 1], [0], [0, 1])])
def test_refuses_arrays_that_do_not_fit(arrays: tuple[list[int], ...]) -> None:
    with pytest.raises(RecipeError, match="one length"):
        bootstrap_metrics(*(np.array(array, dtype=np.int64) for array in arrays), 2, seed=0)


def several_labels(seed: int, rows: int = 60, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    true = (random.random((rows, classes)) < 0.4).astype(np.int64)
    return true, np.where(random.random(true.shape) < 0.7, true, 1 - true)


@pytest.mark.parametrize("seed", range(3))
def test_several_labels_as_scikit_learn(seed: int) -> None:
    true, predicted = several_labels(seed)
    true[:, 3] = predicted[:, 3] = 0  # a class that never occurs
    true[0] = predicted[0] = 0  # a sample without labels, rightly
    measured = bootstrap_metrics(true, predicted, np.arange(60), 4, seed=0, resamples=50)
    assert {name: one.value for name, one in measured.items()} == pytest.approx(measure(true, predicted, 4))
    for name in METRICS_OF_SEVERAL:
        expected = f1_score(true, predicted, average=name.removesuffix("_f1"), zero_division=0)
        assert measured[name].value == pytest.approx(expected)
        assert measured[name].low < expected < measured[name].high


def test_a_resample_is_scikit_learns_metric_of_the_drawn_samples() -> None:
    for true, predicted in (random_labels(1, 40)[:2], several_labels(1, 40)):
        measured = bootstrap_metrics(true, predicted, np.arange(40), 5, seed=3, resamples=1)
        drawn = np.random.default_rng(3).multinomial(40, np.full(40, 1 / 40))
        rows = np.repeat(np.arange(40), drawn)
        expected = measure(true[rows], predicted[rows], 5)
        assert {name: one.low for name, one in measured.items()} == pytest.approx(expected)


def test_the_mean_over_seeds() -> None:
    true, first, groups = random_labels(0)
    second = np.roll(first, 1)
    mean = bootstrap_metrics(true, [first, second], groups, 5, seed=0)["accuracy"]
    single = [bootstrap_metrics(true, one, groups, 5, seed=0)["accuracy"].value for one in (first, second)]
    assert mean.value == pytest.approx(sum(single) / 2)
    gain = bootstrap_difference(true, [first, first], [second], groups, 5, seed=0)["accuracy"]
    assert gain.value == pytest.approx(single[0] - single[1])


def test_tuned_thresholds_are_the_best_there_are() -> None:
    random = np.random.default_rng(0)
    true = (random.random((80, 3)) < [0.1, 0.5, 0.0]).astype(np.int64)
    logits = (random.normal(size=true.shape) + 1.5 * true - [2, 0, 0]).astype(np.float32).round(1)
    thresholds = tune_thresholds(logits, true)
    best = f1_of_classes(true, decide(logits, thresholds), 3)
    for k in range(2):
        tried = [
            f1_of_classes(true[:, [k]], decide(logits[:, [k]], np.array([at])), 1)[0] for at in np.linspace(0, 1, 999)
        ]
        assert best[k] == pytest.approx(max(tried), abs=1e-9)
    assert thresholds[2] == 0.5  # nothing to tune on
    assert (best[:2] > f1_of_classes(true, decide(logits, np.full(3, 0.5)), 3)[:2] - 1e-9).all()


def test_one_label_is_the_likeliest() -> None:
    assert decide(np.array([[0.1, 0.3], [2, -1]], dtype=np.float32)).tolist() == [1, 0]
