"""Tasks: losses and class weights by hand, decisions, thresholds, trivial baselines, answers; each of the table."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.dummy import DummyClassifier
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor

from mi2p_inject.recipes.config import make_config
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.tasks import TASKS, MultiLabel, SingleLabel, Task, task_of
from mi2p_inject.recipes.tasks.multi_label import MultiLabelLoss
from mi2p_inject.recipes.tasks.single_label import SingleLabelLoss

CLASSES = ("a", "b", "c")
#: a label column as the data have it
LABELS = {False: [0, 2, 1, 2, 2], True: [[0, 1], [], [2], [0, 1], [1]]}


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest) -> Task:
    return TASKS[request.param](CLASSES)


class TestEveryTask:
    def test_its_name_is_the_tables(self, task: Task) -> None:
        assert type(TASKS[task.name](CLASSES)) is type(task)
        assert task.selection_metric in (*task.metrics, *task.ranking_metrics)
        assert task_of(task.name, CLASSES, multi_label=task.multi_label) == task

    def test_targets_have_a_loss_with_a_gradient(self, task: Task) -> None:
        targets = task.encode(LABELS[task.multi_label])
        config = make_config({"data": "-", "class_weights": True}).optimisation
        logits = torch.zeros(len(targets), task.outputs, requires_grad=True)
        loss = task.loss(config, targets)(logits, torch.from_numpy(targets))
        loss.backward()
        assert loss.item() > 0
        assert logits.grad is not None
        assert logits.grad.abs().sum() > 0

    def test_perfect_answers_score_one_and_resampling_twice_changes_nothing(self, task: Task) -> None:
        targets = task.encode(LABELS[task.multi_label])
        assert task.measure(targets, targets)[task.metrics[0]] == 1
        sure = targets if task.multi_label else np.eye(len(CLASSES))[targets]
        assert task.measure_ranking(targets, sure.astype(float)) == dict.fromkeys(task.ranking_metrics, 1.0)
        wrong = np.roll(targets, 1, axis=0)
        scores = task.scorer(targets, wrong)
        once, twice = np.ones((1, len(targets))), np.full((1, len(targets)), 2.0)
        assert scores(once) == pytest.approx(scores(twice))
        assert scores(once).shape == (1, len(task.metrics))

    def test_decisions_have_the_shape_of_targets(self, task: Task) -> None:
        targets = task.encode(LABELS[task.multi_label])
        logits = np.random.default_rng(0).normal(size=(len(targets), task.outputs)).astype(np.float32)
        for decision in (task.usual_decision(), task.tune(logits, targets)):
            decided = task.decide(logits, decision)
            assert decided.shape == targets.shape
            answer = task.answer(decided[0], task.probabilities(logits)[0])
            assert list(answer["probabilities"]) == list(CLASSES)
            assert task.text(decided[0])

    def test_the_baseline_is_the_commonest_target(self, task: Task) -> None:
        targets = task.encode(LABELS[task.multi_label])
        counted = Counter(tuple(np.atleast_1d(one)) for one in targets)
        assert tuple(np.atleast_1d(task.baseline(targets))) == counted.most_common(1)[0][0]


def test_the_baseline_is_scikit_learns() -> None:
    labels = np.random.default_rng(0).integers(0, 3, 50)
    dummy = DummyClassifier(strategy="most_frequent").fit(np.zeros((50, 1)), labels)
    assert SingleLabel(CLASSES).baseline(labels) == dummy.predict(np.zeros((1, 1)))[0]


def test_mistakes_are_named() -> None:
    with pytest.raises(RecipeError, match="did you mean 'multi-label'"):
        task_of("multi_label", CLASSES, multi_label=True)
    with pytest.raises(RecipeError, match="does not fit"):
        task_of("multi-label", CLASSES, multi_label=False)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30))
def test_weights_are_those_of_scikit_learn(labels: list[int]) -> None:
    targets, seen = np.array(labels), np.unique(labels)
    found = SingleLabel(("a", "b", "c", "d")).class_weights(targets)
    assert found[seen] == pytest.approx(compute_class_weight("balanced", classes=seen, y=targets))
    assert not found[np.setdiff1d(np.arange(4), seen)].any()
    assert found[targets].mean() == pytest.approx(1)


def test_weights_of_several_labels() -> None:
    targets = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0]])
    assert MultiLabel(CLASSES).class_weights(targets).tolist() == [1 / 3, 3, 0]
    assert MultiLabel(CLASSES).class_weights(targets[:3]).tolist() == [1, 2, 0]  # all have the first


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 1.0, 2.0])])
class TestLosses:
    def test_one_label(self, gamma: float, weights: Tensor | None) -> None:
        logits, labels = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 2, 1])
        expected = []
        for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
            p = math.exp(row[label]) / sum(map(math.exp, row))
            weight = 1 if weights is None else weights[label].item()
            expected.append(-weight * (1 - p) ** gamma * math.log(p))
        loss = SingleLabelLoss(gamma=gamma, weights=weights)(logits, labels)
        assert loss.item() == pytest.approx(sum(expected) / 5, rel=1e-5)

    def test_several_labels(self, gamma: float, weights: Tensor | None) -> None:
        logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
        labels = torch.tensor([[0, 1, 1], [0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 0, 1]])
        expected = []
        for row, answers in zip(logits.tolist(), labels.tolist(), strict=True):
            for k, (logit, yes) in enumerate(zip(row, answers, strict=True)):
                p = 1 / (1 + math.exp(-logit if yes else logit))
                weight = weights[k].item() if weights is not None and yes else 1
                expected.append(-weight * (1 - p) ** gamma * math.log(p))
        loss = MultiLabelLoss(gamma=gamma, weights=weights)(logits, labels)
        assert loss.item() == pytest.approx(sum(expected) / 15, rel=1e-5)


def test_one_label_is_the_likeliest() -> None:
    assert SingleLabel(("a", "b")).decide(np.array([[0.1, 0.3], [2, -1]], dtype=np.float32), {}).tolist() == [1, 0]


def test_a_constant_answer_of_several_labels_cannot_score_higher_in_training() -> None:
    task = MultiLabel(tuple("abcd"))
    random = np.random.default_rng(0)
    for _ in range(20):
        targets = (random.random((12, 4)) < random.random(4)).astype(np.int64)
        constants = [np.array([number >> k & 1 for k in range(4)]) for number in range(1, 16)]
        scores = [task.measure(targets, np.tile(one, (12, 1)))["micro_f1"] for one in constants]
        found = task.measure(targets, np.tile(task.baseline(targets), (12, 1)))["micro_f1"]
        assert found == pytest.approx(max(scores))


def test_the_prior_is_how_common_each_class_is(task: Task) -> None:
    targets = task.encode(LABELS[task.multi_label])
    counted = [sum(k in np.atleast_1d(one) for one in LABELS[task.multi_label]) for k in range(3)]
    assert task.prior(targets).tolist() == pytest.approx([count / 5 for count in counted])


def test_classes_that_are_never_answered(task: Task) -> None:
    true = task.encode(LABELS[task.multi_label])
    assert task.unanswered(true, true) == ()
    without = task.encode([[0], [], [0], [0], [0]] if task.multi_label else [0] * 5)
    assert task.unanswered(true, without) == ("b", "c")
    assert task.unanswered(without, true) == ()  # a class that no sample has is not missed


def test_a_temperature_changes_probabilities_and_no_likeliest_class() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(200, 3)).astype(np.float32)
    logits[:, 1] = np.nextafter(logits[:, 0], np.inf)  # one step of float32 apart
    task = SingleLabel(CLASSES)
    for temperature in (0.05, 1 / 3, 1.0, 3.3, 20.0):
        decided, probabilities = task.answers(logits, {"temperature": temperature})
        assert decided.tolist() == logits.argmax(axis=1).tolist()
        assert probabilities == pytest.approx(task.probabilities((logits / temperature).astype(np.float32)), abs=1e-4)
    several = MultiLabel(CLASSES)
    decision = {"thresholds": [0.5, 0.3, 0.7], "temperature": 2.0}
    decided, probabilities = several.answers(logits, decision)
    assert probabilities == pytest.approx(1 / (1 + np.exp(-logits.astype(float) / 2)))
    assert (decided == (probabilities >= [0.5, 0.3, 0.7])).all()


@pytest.mark.parametrize("temperature", [0, -1, float("nan"), float("inf"), "1", None])
def test_a_temperature_that_is_none_is_an_error(task: Task, temperature: object) -> None:
    with pytest.raises(ValueError, match="temperature"):
        task.answers(np.zeros((1, 3), dtype=np.float32), {**task.usual_decision(), "temperature": temperature})
