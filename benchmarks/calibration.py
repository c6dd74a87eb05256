"""`python -m benchmarks.calibration TABLE...`: log-loss of finished runs with and without a temperature.

Part of a run's validation split fits the temperature and the rest of it measures; the test split is not read.
docs/results.md shows what comes of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from mi2p_inject.core.files.atomic_write import write_file
from mi2p_inject.recipes.experiments.folder import finished_runs, folder_of
from mi2p_inject.recipes.experiments.results import public_data
from mi2p_inject.recipes.metrics.decisions import PRIOR, fit_temperature
from mi2p_inject.recipes.metrics.probability_metrics import log_loss
from mi2p_inject.recipes.saving.saved import SavedRun, load_run
from mi2p_inject.recipes.tasks import scaled_logits

__all__ = ["DEFAULT_PRIOR", "PRIORS", "main", "measured"]

#: standard deviation of the prior of the temperature's logarithm, under its name
PRIORS = {"no prior": 1e9, "prior 1": 1.0, "prior 0.5": 0.5, "prior 0.25": 0.25, "prior 0.125": 0.125}
DEFAULT_PRIOR = f"prior {PRIOR}"
_SHARES = (20, 50, None)
_REPEATS = 5


def main(
    tables: Annotated[list[Path], typer.Argument(help="Folders of finished tables (`mi2p table --out`).")],
    out: Annotated[Path, typer.Option(help="The JSON to write.")],
) -> None:
    """Measure what dividing logits by a temperature does to the log-loss of samples that did not choose it."""
    found = [measured(table) for table in tables]
    text = json.dumps(found, indent=1) + "\n"
    write_file(out, lambda path: path.write_text(text, encoding="utf-8"))


def measured(table: Path) -> dict[str, Any]:
    """Log-loss by how many groups of validation samples fit the temperature, averaged over a table's runs.

    Args:
        table: folder of a table.

    Returns:
        ``data``, the number of ``runs``, and ``lines``: of each number of groups the mean log-loss as trained and with
        each prior, and the share of runs whose log-loss falls.
    """
    runs = [load_run(folder_of(table, name, seed)) for name, seeds in finished_runs(table).items() for seed in seeds]
    lines = []
    for groups in _SHARES:
        of_runs = np.array([np.mean(list(_drawn(run, groups)), axis=0) for run in runs])
        lines.append(
            {
                "groups": groups,
                "log_loss": dict(zip(("as trained", *PRIORS), of_runs.mean(axis=0).tolist(), strict=True)),
                "better": dict(zip(PRIORS, (of_runs[:, 1:] < of_runs[:, :1]).mean(axis=0).tolist(), strict=True)),
            }
        )
    return {"data": public_data(runs[0].config), "runs": len(runs), "lines": lines}


def _drawn(run: SavedRun, groups: int | None) -> Iterator[list[float]]:
    """For some draws: the log-loss on the groups that did not fit, as trained and with each prior."""
    found = run.predictions()
    logits, true, of_group = (found[f"validation_{name}"] for name in ("logits", "labels", "groups"))
    random = np.random.default_rng(0)
    for _ in range(_REPEATS):
        drawn = random.permutation(np.unique(of_group))
        most = len(drawn) * 4 // 5
        fits = np.isin(of_group, drawn[: min(groups or most, most)])
        temperatures = [fit_temperature(run.task, logits[fits], true[fits], prior=one) for one in PRIORS.values()]
        yield [_loss(run, logits[~fits], true[~fits], one) for one in (1.0, *temperatures)]


def _loss(run: SavedRun, logits: NDArray[np.float32], true: NDArray[np.int64], temperature: float) -> float:
    return log_loss(true, run.task.probabilities(scaled_logits(logits, temperature)))


if __name__ == "__main__":
    typer.run(main)
