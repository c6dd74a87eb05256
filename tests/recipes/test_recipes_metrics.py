"""Metrics against numbers computed by hand and by scikit-learn; the bootstrap's contract."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.experiments.report import shown_gain, significant
from mi2p_inject.recipes.metrics.metrics import bootstrap_difference, bootstrap_metrics
from mi2p_inject.recipes.metrics.resampling import Resampled
from mi2p_inject.recipes.tasks import MultiLabel, SingleLabel, Task

TRUE = np.array([0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 0, 1, 1, 2, 2])


def single(classes: int) -> Task:
    return SingleLabel(tuple(map(str, range(classes))))


def multi(classes: int) -> Task:
    return MultiLabel(tuple(map(str, range(classes))))


def of_average(task: Task, true: np.ndarray, predicted: np.ndarray, average: str) -> float:
    """With one label a sample scikit-learn's default: a class that is nowhere does not count. With several, as told."""
    nowhere = np.nan if task.multi_label and average == "macro" else 0
    return float(f1_score(true, predicted, average=average, zero_division=nowhere))


def of_scikit_learn(task: Task, true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    averages = {name: name.removesuffix("_f1") for name in task.metrics if name.endswith("_f1")}
    found = {name: of_average(task, true, predicted, average) for name, average in averages.items()}
    return found if task.multi_label else {"accuracy": accuracy_score(true, predicted), **found}


def random_labels(seed: int, count: int = 200, classes: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    true = random.integers(0, classes, count)
    return true, np.where(random.random(count) < 0.6, true, random.integers(0, classes, count)), np.arange(count)


def test_by_hand() -> None:
    # class 0: precision 2/2, recall 2/3, F1 4/5; class 1: 1/2, 1/2, 1/2; class 2: 1/2, 1/1, 2/3
    macro = (4 / 5 + 1 / 2 + 2 / 3) / 3
    weighted = (3 * 4 / 5 + 2 * 1 / 2 + 1 * 2 / 3) / 6
    task = single(3)
    assert task.f1_of_classes(TRUE, PREDICTED) == pytest.approx({"0": 4 / 5, "1": 1 / 2, "2": 2 / 3})
    assert list(task.measure(TRUE, PREDICTED).values()) == pytest.approx([4 / 6, macro, weighted])
    assert set(single(4).f1_of_classes(TRUE, PREDICTED)) == {"0", "1", "2"}  # the last is nowhere
    measured = bootstrap_metrics(single(3), TRUE, PREDICTED, np.arange(6), seed=0)
    assert [measured[name].value for name in ("accuracy", "macro_f1", "weighted_f1")] == pytest.approx(
        [4 / 6, macro, weighted]
    )


@pytest.mark.parametrize("classes", [5, 7])  # 7: two classes that never occur
@pytest.mark.parametrize("seed", range(3))
def test_as_scikit_learn(seed: int, classes: int) -> None:
    true, predicted, groups = random_labels(seed)
    measured = bootstrap_metrics(single(classes), true, predicted, groups, seed=0, resamples=2)
    assert measured["accuracy"].value == pytest.approx(accuracy_score(true, predicted))
    for name, average in (("macro_f1", "macro"), ("weighted_f1", "weighted")):
        expected = of_average(single(classes), true, predicted, average)
        assert measured[name].value == pytest.approx(expected)


def test_same_seed_same_interval_other_seed_other() -> None:
    data = random_labels(0)
    first, again, other = (bootstrap_metrics(single(5), *data, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_interval_has_the_width_of_the_binomial() -> None:
    true, predicted, groups = random_labels(0, count=400)
    accuracy = bootstrap_metrics(single(5), true, predicted, groups, seed=0)["accuracy"]
    sigma = np.sqrt(accuracy.value * (1 - accuracy.value) / 400)
    assert accuracy.low < accuracy.value < accuracy.high
    assert accuracy.high - accuracy.low == pytest.approx(2 * 1.96 * sigma, rel=0.15)


def test_groups_widen_the_interval() -> None:
    true, predicted, _ = random_labels(0, count=50)
    true, predicted = np.repeat(true, 8), np.repeat(predicted, 8)  # eight copies of each: no more is known
    alone = bootstrap_metrics(single(5), true, predicted, np.arange(400), seed=0)["accuracy"]
    grouped = bootstrap_metrics(single(5), true, predicted, np.repeat(np.arange(50), 8), seed=0)["accuracy"]
    assert grouped.value == alone.value
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def test_paired_difference() -> None:
    true, predicted, groups = random_labels(0)
    better = np.where(np.arange(200) % 4 == 0, true, predicted)
    none = bootstrap_difference(single(5), true, predicted, predicted, groups, seed=0)["accuracy"]
    assert (none.value, none.low, none.high) == (0, 0, 0)
    gain = bootstrap_difference(single(5), true, better, predicted, groups, seed=0)["accuracy"]
    separate = [
        bootstrap_metrics(single(5), true, labels, groups, seed=0)["accuracy"] for labels in (better, predicted)
    ]
    assert gain.value == pytest.approx(separate[0].value - separate[1].value)
    assert gain.low > 0  # paired, 15 corrected errors and no new one are certain ...
    assert separate[0].low < separate[1].high  # ... though the two intervals overlap


@pytest.mark.parametrize("arrays", [([], [], []), ([0, 1], [0], [0, 1])])
def test_refuses_arrays_that_do_not_fit(arrays: tuple[list[int], ...]) -> None:
    with pytest.raises(RecipeError, match="one length"):
        bootstrap_metrics(single(2), *(np.array(array, dtype=np.int64) for array in arrays), seed=0)


def several_labels(seed: int, rows: int = 60, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    true = (random.random((rows, classes)) < 0.4).astype(np.int64)
    return true, np.where(random.random(true.shape) < 0.7, true, 1 - true)


@pytest.mark.parametrize("seed", range(3))
def test_several_labels_as_scikit_learn(seed: int) -> None:
    true, predicted = several_labels(seed)
    true[:, 3] = predicted[:, 3] = 0  # a class that never occurs
    true[0] = predicted[0] = 0  # a sample without labels, rightly
    measured = bootstrap_metrics(multi(4), true, predicted, np.arange(60), seed=0, resamples=50)
    assert {name: one.value for name, one in measured.items()} == pytest.approx(multi(4).measure(true, predicted))
    for name in MultiLabel.metrics:
        expected = of_average(multi(4), true, predicted, name.removesuffix("_f1"))
        assert measured[name].value == pytest.approx(expected)
        assert measured[name].low < expected < measured[name].high


def test_a_resample_is_scikit_learns_metric_of_the_drawn_samples() -> None:
    rare = random_labels(1, 40, classes=30)[:2]  # of many classes nothing is drawn
    cases = ((single(5), *random_labels(1, 40)[:2]), (single(30), *rare), (multi(4), *several_labels(1, 40)))
    for task, true, predicted in cases:
        measured = bootstrap_metrics(task, true, predicted, np.arange(40), seed=3, resamples=1)
        drawn = np.random.default_rng(3).multinomial(40, np.full(40, 1 / 40))
        rows = np.repeat(np.arange(40), drawn)
        expected = of_scikit_learn(task, true[rows], predicted[rows])
        assert {name: one.low for name, one in measured.items()} == pytest.approx(expected)


def test_the_mean_over_seeds() -> None:
    true, first, groups = random_labels(0)
    second = np.roll(first, 1)
    mean = bootstrap_metrics(single(5), true, [first, second], groups, seed=0)["accuracy"]
    each = [bootstrap_metrics(single(5), true, one, groups, seed=0)["accuracy"].value for one in (first, second)]
    assert mean.value == pytest.approx(sum(each) / 2)
    gain = bootstrap_difference(single(5), true, [first, first], [second], groups, seed=0)["accuracy"]
    assert gain.value == pytest.approx(each[0] - each[1])


def test_equal_means_of_seeds_have_no_difference() -> None:
    """Their sums differ in the last bit, with the order of the seeds: that is no difference, and not a sure one."""

    def mean(*values: float) -> Resampled:
        return Resampled.mean([Resampled(("accuracy",), np.full((9, 1), value)) for value in values])

    for first, second in [((0.1, 0.2, 0.3), (0.3, 0.2, 0.1)), ((0.3, 0.2, 0.1), (0.1, 0.2, 0.3))]:
        gain = asdict((mean(*first) - mean(*second)).intervals()["accuracy"])
        assert not significant(gain)
        assert shown_gain(gain, {"percent": True}) == "+0.0 [0.0, 0.0]"
