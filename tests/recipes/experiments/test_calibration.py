"""What docs/results.md says of temperatures is measured on validation samples that did not fit them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import log_loss

from benchmarks.calibration import DEFAULT_PRIOR, PRIORS, measured
from mi2p_inject.recipes.metrics.decisions import fit_temperature
from mi2p_inject.recipes.saving.saved import load_run


def test_it_is_the_loss_of_groups_that_did_not_fit(finished: tuple[Path, Path]) -> None:
    """This table has fewer than twenty groups to draw from, so that its three lines are one."""
    _, out = finished
    found = measured(out)
    assert found["runs"] == 4
    assert [line["groups"] for line in found["lines"]] == [20, 50, None]
    of_runs = [_by_hand(path.parent) for path in sorted(out.glob("experiments/*/*/metrics.json"))]
    plain, fitted = np.mean(of_runs, axis=0)
    for line in found["lines"]:
        assert line["log_loss"]["as trained"] == pytest.approx(plain, rel=1e-5)
        assert line["log_loss"][DEFAULT_PRIOR] == pytest.approx(fitted, rel=1e-5)
        assert line["better"][DEFAULT_PRIOR] == np.mean([after < before for before, after in of_runs])
        assert set(line["better"]) == set(PRIORS)


def _by_hand(folder: Path) -> tuple[float, float]:
    run = load_run(folder)
    found = {name: run.predictions()[f"validation_{name}"] for name in ("logits", "labels", "groups")}
    random, before, after = np.random.default_rng(0), [], []
    for _ in range(5):
        drawn = random.permutation(np.unique(found["groups"]))
        fits = np.isin(found["groups"], drawn[: len(drawn) * 4 // 5])
        temperature = fit_temperature(run.task, found["logits"][fits], found["labels"][fits])
        for at, losses in ((1.0, before), (temperature, after)):
            raw = np.exp(found["logits"][~fits].astype(np.float64) / at)
            likely = raw / raw.sum(axis=1, keepdims=True)
            losses.append(log_loss(found["labels"][~fits], likely, labels=[0, 1, 2]))
    return float(np.mean(before)), float(np.mean(after))
