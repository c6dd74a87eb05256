"""How good the probabilities are, not only the decisions: log-loss and expected calibration error, lower is better."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.metrics.resampling import RESAMPLES, Resampled, group_weights

__all__ = [
    "PROBABILITY_METRICS",
    "confidence_bins",
    "expected_calibration_error",
    "log_loss",
    "resampled_probability_metrics",
]

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]

PROBABILITY_METRICS = ("log_loss", "expected_calibration_error")
_BINS = 15


def log_loss(true: Labels, probabilities: Floats) -> float:
    """The mean negative logarithm of the probability given to what is true, by scikit-learn; 0 is perfect.

    Args:
        true: (N,) class numbers, or (N, K) zeros and ones where a sample has several labels: then the mean over all
            N · K yes-or-no answers.
        probabilities: (N, K).

    Raises:
        RecipeError: the arrays are empty or do not fit.

    Examples:
        >>> round(log_loss(np.array([0, 1]), np.array([[0.5, 0.5], [0.5, 0.5]])), 4)
        0.6931
    """
    from sklearn.metrics import log_loss as of_sklearn

    _check(true, probabilities)
    if true.ndim == 2:
        return float(of_sklearn(true.ravel(), probabilities.ravel(), labels=[0, 1]))
    return float(of_sklearn(true, probabilities, labels=list(range(probabilities.shape[1]))))


def expected_calibration_error(true: Labels, probabilities: Floats) -> float:
    """How far confidence and accuracy are apart, averaged over 15 equal-width bins of the confidence; 0 is perfect.

    The confidence is the highest class probability, and the bins are (0, 1/15], (1/15, 2/15], … (Guo et al. 2017, "On
    Calibration of Modern Neural Networks", equation 3). Where a sample has several labels, each of the N · K
    probabilities is one, compared with how often the label is there.

    Args:
        true: as in `log_loss`.
        probabilities: as in `log_loss`.

    Raises:
        RecipeError: the arrays are empty or do not fit.

    Examples:
        >>> round(expected_calibration_error(np.array([0, 1]), np.array([[0.75, 0.25], [0.75, 0.25]])), 4)
        0.25
    """
    _check(true, probabilities)
    return float(np.abs(_gaps(true, probabilities).sum(axis=0)).sum() / len(true))


def resampled_probability_metrics(
    true: Labels, probabilities: Floats, groups: Labels, *, seed: int, resamples: int = RESAMPLES
) -> Resampled:
    """Both metrics on the test set and on its resamples; the difference of two is paired.

    Each resample adds noise to the bins, so the interval of a small calibration error lies somewhat above its value.

    Args:
        true: as in `log_loss`.
        probabilities: as in `log_loss`.
        groups: (N,) group of each sample; whole groups are drawn.
        seed: the same seed draws the same resamples, here and for every other metric.
        resamples: R.

    Raises:
        RecipeError: the arrays are empty or do not fit.

    Examples:
        >>> y, p = np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]])
        >>> resampled_probability_metrics(y, p, np.arange(2), seed=0).values.shape
        (2001, 2)
    """
    _check(true, probabilities, groups)
    losses, gaps = _losses(true, probabilities), _gaps(true, probabilities)
    lines = []
    for weights in group_weights(groups, seed=seed, resamples=resamples):
        total = weights.sum(axis=1)
        lines.append(np.stack([weights @ losses / total, np.abs(weights @ gaps).sum(axis=1) / total], axis=1))
    return Resampled(PROBABILITY_METRICS, np.concatenate(lines))


def _check(true: Labels, *others: Labels | Floats) -> None:
    if len(true) == 0 or any(len(other) != len(true) for other in others):
        lengths = [len(true), *map(len, others)]
        raise RecipeError(
            f"labels, probabilities and groups must have one length > 0, got {lengths}", fix="give one of each a sample"
        )
    if true.ndim == 2 and true.shape != others[0].shape:
        raise RecipeError(
            f"labels {true.shape} do not fit probabilities {others[0].shape}",
            fix="give (N,) class numbers, or (N, K) of 0 and 1",
        )


def _losses(true: Labels, probabilities: Floats) -> Floats:
    """(N,) each sample's part of the log-loss, clipped as scikit-learn does."""
    tiny = np.finfo(np.float64).eps
    likely = np.clip(probabilities, tiny, 1 - tiny)
    if true.ndim == 2:
        binary: Floats = -np.where(true == 1, np.log(likely), np.log1p(-likely)).mean(axis=1)
        return binary
    losses: Floats = -np.log(likely[np.arange(len(true)), true])
    return losses


def _gaps(true: Labels, probabilities: Floats) -> Floats:
    """(N, bins) accuracy minus confidence, in the bin of the confidence; of several labels a sample the mean."""
    if true.ndim == 2:
        confidence, right = probabilities, true
    else:
        confidence = probabilities.max(axis=1, keepdims=True)
        right = (probabilities.argmax(axis=1) == true)[:, None]
    bins = confidence_bins(confidence)
    return np.stack([((right - confidence) * (bins == one)).mean(axis=1) for one in range(_BINS)], axis=1)


def confidence_bins(confidence: Floats) -> Labels:
    """The number of the bin of each confidence, from 0: (0, 1/15], (1/15, 2/15], ...; 0 is in the first."""
    return np.clip(np.digitize(confidence, np.linspace(0, 1, _BINS + 1), right=True) - 1, 0, _BINS - 1)
