"""Training and answers from Python: `fit` and `load_run`; the command line is a door to the same."""

from __future__ import annotations

import html
import itertools
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.expansion.expanded_model import ExpandedModel
from mi2p_inject.recipes.config import make_config
from mi2p_inject.recipes.data.tables.in_memory import as_file
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.evaluation.answers import Answers
from mi2p_inject.recipes.evaluation.evaluate import evaluate_run, predict_file
from mi2p_inject.recipes.metrics.metric_info import info_of, metrics_of
from mi2p_inject.recipes.paths import home_path
from mi2p_inject.recipes.saving import saved as saving
from mi2p_inject.recipes.saving.hub import portable, push
from mi2p_inject.recipes.saving.run_folder import FINISHED
from mi2p_inject.recipes.saving.saved import SavedRun
from mi2p_inject.recipes.systems import SystemModel
from mi2p_inject.recipes.training.progress.bars import short_progress
from mi2p_inject.recipes.training.train import train_run

if TYPE_CHECKING:
    from mi2p_inject.recipes.evaluation.faithfulness.result import Faithfulness
    from mi2p_inject.recipes.explain.result import Explanation

__all__ = ["Run", "fit", "load_run"]


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
    found = saving.load_run(home_path(path), revision=revision, token=token)
    return Run(_Loaded(found.path, found.config, found.task, found.decision, found.numbers))


class _Loaded(SavedRun):
    """A saved run that builds its model once."""

    @cached_property
    def _built(self) -> tuple[SystemModel, Mapping[Modality, Encoder]]:
        return SavedRun.model(self)

    def model(self) -> tuple[SystemModel, Mapping[Modality, Encoder]]:
        return self._built


class Run:
    """A trained model with its data's classes, its numbers and its preprocessing.

    Args:
        saved: the run folder, read back.

    Attributes:
        path: the run folder.
        numbers: all of metrics.json.
        classes: names of the classes, in the order of probabilities.
    """

    def __init__(self, saved: SavedRun) -> None:
        self.saved, self.path, self.numbers, self.classes = saved, saved.path, saved.numbers, saved.task.classes

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

    def predict(self, data: Any, **options: Any) -> NDArray[Any]:
        """The label of each row; a list of labels where there may be several; None where there was nothing to read.

        Args:
            data: as for `fit`, without labels.
            **options: of `mi2p predict`, such as ``text_col="title"``.

        Returns:
            (N,) objects, in the order of the rows.

        Raises:
            RecipeError: the data have nothing that the model reads.
        """
        key = "labels" if self.saved.task.multi_label else "label"
        found = [answer[key] for answer in self._asked(data, options)]
        labels = np.empty(len(found), dtype=object)
        labels[:] = found
        return labels

    def predict_proba(self, data: Any, **options: Any) -> NDArray[np.float64]:
        """(N, classes) probabilities in the order of `classes`; NaN where there was nothing to read; as `predict`."""
        nothing = dict.fromkeys(self.classes, float("nan"))
        rows = [answer["probabilities"] or nothing for answer in self._asked(data, options)]
        return np.array([[row[name] for name in self.classes] for row in rows], dtype=np.float64)

    def evaluate(self, data: Any = None, *, split: str = "test", **options: Any) -> dict[str, Any]:
        """Metrics with intervals, as `mi2p eval`; None: on the data of the training.

        Raises:
            RecipeError: no such split, or data that do not fit the model.
        """
        path = None if data is None else self._file(data, options)
        with short_progress(Console(stderr=True, quiet=not _seen()), "evaluating") as on_step:
            return evaluate_run(self.saved, path, options, split, on_step)

    def embed(self, data: Any, **options: Any) -> NDArray[np.float32]:
        """The vector of each row that the classifier sees, (N, width): those of all branches side by side.

        A row with nothing to read has what the model makes of blank inputs. Arguments as for `predict`.

        Raises:
            RecipeError: the model has no branches.
        """
        answers = self._asked(data, options)
        vectors: list[Tensor] = []
        for batch in answers.batches():
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

    def _asked(self, data: Any, options: Mapping[str, Any]) -> Answers:
        return predict_file(self.saved, self._file(data, options), options, progress=_seen())

    def _file(self, data: Any, options: Mapping[str, Any]) -> str:
        return as_file(data, options.get("image_col", self.saved.config.data.image_col))

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


def _seen() -> bool:
    """Whether somebody looks on: in a terminal, or in a notebook."""
    return sys.stderr.isatty() or Console().is_jupyter


def _free(folder: Path, model: str) -> Path:
    """The first folder without a finished run: one that was interrupted goes on."""
    folders = (folder / f"{model}-{number}" for number in itertools.count(1))
    return next(one for one in folders if not (one / FINISHED).exists())
