"""Training and answers from Python: `fit` and `load_run`; the command line is a door to the same."""

from __future__ import annotations

import html
import itertools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from mi2p_inject.expansion.expanded_model import ExpandedModel
from mi2p_inject.recipes.ask import Asked, read_run
from mi2p_inject.recipes.config import make_config
from mi2p_inject.recipes.data.tables.in_memory import as_file
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.evaluation.mean import MeanRun, mean_of
from mi2p_inject.recipes.metrics.metric_info import info_of, metrics_of
from mi2p_inject.recipes.paths import home_path
from mi2p_inject.recipes.saving.hub import portable, push
from mi2p_inject.recipes.saving.run_folder import FINISHED
from mi2p_inject.recipes.saving.saved import SavedRun
from mi2p_inject.recipes.systems import SystemModel
from mi2p_inject.recipes.training.train import train_run

if TYPE_CHECKING:
    from mi2p_inject.recipes.evaluation.faithfulness.result import Faithfulness
    from mi2p_inject.recipes.explain.result import Explanation

__all__ = ["MeanOfRuns", "Run", "fit", "load_mean", "load_run"]


def fit(
    data: Any,
    model: str = "me-vision",
    *,
    out: str | Path | None = None,
    preset: str = "practical",
    overwrite: bool = False,
    verbose: bool = True,
    **settings: Any,
) -> Run:
    """Train a model, as `mi2p train` does; a run that was interrupted goes on when it is called again alike.

    Args:
        data: a path or the name of a known set, a `pandas.DataFrame`, a `datasets.Dataset` (or a `DatasetDict` of its
            splits) or a list of mappings, with the columns image (paths or PIL pictures), text and label, or whatever
            ``image_col`` and so on name.
        model: the system: "vision", "text", "me-vision", "me-text", "late-fusion", … (`mi2p settings` lists them).
        out: the run folder; None: the first that is free of ``runs/<model>-<number>``.
        preset: "practical", or "paper".
        overwrite: replace an earlier run there.
        verbose: print progress.
        **settings: any option of `mi2p settings` by its name, such as ``vision="demo"``, ``epochs=5``.

    Returns:
        The finished run, with the model in memory.

    Raises:
        RecipeError: data or settings cannot be used (before any training), or the training cannot go on.

    Examples:
        >>> import tempfile, pandas
        >>> from mi2p_inject.recipes import fit
        >>> rows = [{"text": f"a {c} thing {i}", "label": c} for c in ("red", "blue") for i in range(20)]
        >>> out = f"{tempfile.mkdtemp()}/run"
        >>> run = fit(pandas.DataFrame(rows), "text", text="tiny:bert", epochs=1, out=out, verbose=False)
        >>> run.classes, run.predict([{"text": "a red thing"}]).shape
        (('blue', 'red'), (1,))
    """
    config = make_config(settings, {"model": model, "data": as_file(data, settings.get("image_col"))}, preset=preset)
    folder = home_path(out) if out is not None else _free(Path("runs"), model)
    train_run(config, folder, Console(quiet=not verbose), overwrite=overwrite)
    return load_run(folder)


def load_run(path: str | Path, *, revision: str | None = None, token: str | bool | None = None) -> Run:
    """A finished run of `fit` or `mi2p train`; its model is loaded when it is first needed, and stays.

    Args:
        path: the run folder, or the id of a Hugging Face Hub repository: ``organisation/name``.
        revision: of a repository: a branch, a tag or a commit.
        token: of a user who may read it; None: the one that ``hf auth login`` stored.

    Raises:
        RecipeError: no run, an unfinished one, or one whose files are not what the run wrote.
        HubError: no such repository or revision, or it cannot be read.
    """
    return Run(read_run(path, revision=revision, token=token))


def load_mean(*paths: str | Path) -> MeanOfRuns:
    """The mean of several finished runs, as `mi2p table` reports it of models that were trained apart.

    Each run's own probabilities are averaged. Runs of one data set and split, such as another system's or those of
    several seeds: then temperature and thresholds of the mean are chosen on its validation split, as the first run's
    options say.

    Args:
        paths: two run folders or more, or ids of Hugging Face Hub repositories.

    Raises:
        RecipeError: as for `load_run`; a run is given twice, or they have other classes.
        HubError: as for `load_run`.

    Examples:
        >>> import tempfile, pandas
        >>> from mi2p_inject.recipes import fit, load_mean
        >>> rows = [{"text": f"a {c} thing {i}", "label": c} for c in ("red", "blue") for i in range(20)]
        >>> data, options = pandas.DataFrame(rows), {"text": "tiny:bert", "epochs": 1, "verbose": False}
        >>> runs = [fit(data, "text", seed=seed, out=f"{tempfile.mkdtemp()}/run", **options) for seed in (0, 1)]
        >>> mean = load_mean(*(run.path for run in runs))
        >>> mean.predict_proba([{"text": "a red thing"}]).shape
        (1, 2)
    """
    found = mean_of([read_run(path) for path in paths]) if paths else None
    if not isinstance(found, MeanRun):
        raise RecipeError(
            "a mean is of two runs or more",
            given=", ".join(map(str, paths)) or "none",
            fix="load_run gives a single one",
        )
    return MeanOfRuns(found)


class Run(Asked):
    """A trained model with its data's classes, its numbers and its preprocessing.

    Args:
        saved: the run folder, read back.

    Attributes:
        path: the run folder.
        numbers: all of metrics.json.
        classes: names of the classes, in the order of probabilities.
    """

    def __init__(self, saved: SavedRun) -> None:
        super().__init__(saved)
        self.saved, self.path, self.numbers = saved, saved.path, saved.numbers

    @property
    def model(self) -> SystemModel:
        """The whole model in eval mode, called as in training: a batch as keywords -> a dict with ``logits``."""
        return self.saved.model()[0]

    @property
    def backbone(self) -> nn.Module:
        """The trained encoder alone, without units: for one's own use.

        Raises:
            RecipeError: the model has several, or none by itself.
        """
        branches = list(getattr(self.model, "branches", nn.ModuleDict()).values())
        if len(branches) != 1:
            raise RecipeError(
                f"model {self.saved.config.model.model!r} has no single backbone",
                expected="a model of one branch, such as me-vision",
                given=f"{len(branches)} branches",
                fix="take run.model apart",
            )
        network = cast(nn.Module, branches[0].network)
        return network.backbone if isinstance(network, ExpandedModel) else network

    def embed(self, data: Any, **options: Any) -> NDArray[np.float32]:
        """The vector of each row that the classifier sees, (N, width): those of all branches side by side.

        A row with nothing to read has what the model makes of blank inputs. Arguments as for `predict`.

        Raises:
            RecipeError: the model has no branches.
        """
        answers = self._asked(data, options)
        vectors: list[Tensor] = []
        for batch in answers.scores[0].batches():
            with torch.no_grad():
                vectors.append(self.model.vectors(batch).float().cpu())
        return torch.cat(vectors).numpy()

    def explain(self, image: Any, text: str, target: str | None = None, **options: Any) -> Explanation:
        """What the model takes from the other modality for one sample: maps of words, or words of channels.

        Args:
            image: a path or an open picture.
            text: one with a word or more.
            target: the class that the evidence is about; None: the likeliest one.
            **options: ``columns``, the cells of those that the run reads, by name; without it they are missing.

        Returns:
            Arrays, with ``figure()`` and ``save(path)``; docs/explain.md says what attention shows.

        Raises:
            RecipeError: the model is not expanded, or image or text cannot be read.
        """
        from mi2p_inject.recipes.explain.run import explain_run

        return explain_run(self.saved, image, text, target, **options)

    def push_to_hub(self, repo_id: str, *, card: Mapping[str, Any] | None = None, **options: Any) -> str:
        """Upload the run to a repository of the Hugging Face Hub, as one commit; `load_run` reads it from there.

        Weights, encoders, numbers and a model card leave; predictions, reports, logs, notes on the data and paths of
        this machine do not.

        Args:
            repo_id: ``organisation/name``; made if there is none.
            card: metadata of the model card, as of `huggingface_hub.ModelCardData`: ``{"license": "mit"}``.
            **options: ``private``, ``token``, ``revision`` and others of `ExpandedModel.push_to_hub`.

        Returns:
            The URL of the commit.

        Raises:
            RecipeError: the run kept no weights, is damaged, or something private would leave.
            HubError: no permission, no network, or a wrong id.
        """
        with portable(self.path, self.saved.config, self.numbers, card, repo_id) as ready:
            return push(ready, repo_id, **options)

    def faithfulness(
        self, data: Any = None, *, split: str = "test", limit: int = 100, draws: int = 5, **options: Any
    ) -> Faithfulness:
        """Whether taking away what an explanation names changes the answer sooner than a random order does.

        Args:
            data: as for `evaluate`, like split and options.
            limit: samples at most; each takes some dozens of forwards.
            draws: random orders of each sample.

        Raises:
            RecipeError: the model is not expanded, or the data do not fit it or have no sample with both.
        """
        from mi2p_inject.recipes.evaluation.faithfulness.measure import measure_faithfulness

        path = None if data is None else self._file(data, options)
        console = Console(stderr=True, quiet=not sys.stderr.isatty())
        return measure_faithfulness(self.saved, path, options, split, limit=limit, draws=draws, console=console)

    def __repr__(self) -> str:
        scores = ", ".join(f"{name} {value['value']:.3f}" for name, value in self._tested().items())
        return f"Run({str(self.path)!r}: {self._title()}; {scores})"

    def _repr_html_(self) -> str:
        """For notebooks."""
        rows = "".join(
            f"<tr><td>{html.escape(info_of(name).title)}</td><td>{value['value']:.3f}</td>"
            f"<td>{value['low']:.3f} to {value['high']:.3f}</td></tr>"
            for name, value in self._tested().items()
        )
        head = "<tr><th>test</th><th>value</th><th>95 % interval</th></tr>"
        return f"<b>{html.escape(self._title())}</b> in {html.escape(str(self.path))}<table>{head}{rows}</table>"

    def _title(self) -> str:
        config, read = self.saved.config.model, self.saved.config.data.column_names
        return f"{config.system.describe(config)} ({', '.join((*self.numbers['encoders'].values(), *read))})"

    def _tested(self) -> dict[str, dict[str, float]]:
        scores = self.numbers.get("test") or self.numbers.get("validation") or {}
        return {name: scores[name] for name in metrics_of(scores)}


class MeanOfRuns(Asked):
    """The mean of several runs: see `load_mean`.

    Args:
        mean: of two runs or more.

    Attributes:
        paths: of the runs.
        decision: what the mean is decided by: a temperature, and thresholds where there are several labels.
        notes: why these were not chosen on a validation split, or by whose options, where the runs' differ.
    """

    def __init__(self, mean: MeanRun) -> None:
        super().__init__(mean)
        self.paths = tuple(run.path for run in mean.runs)
        self.decision, self.notes = mean.decision, mean.notes

    def __repr__(self) -> str:
        return f"MeanOfRuns({', '.join(repr(str(path)) for path in self.paths)})"


def _free(folder: Path, model: str) -> Path:
    """The first folder without a finished run: one that was interrupted goes on."""
    folders = (folder / f"{model}-{number}" for number in itertools.count(1))
    return next(one for one in folders if not (one / FINISHED).exists())
