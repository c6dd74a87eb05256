"""A run on the Hugging Face Hub: what leaves of a run folder, and a run folder from a repository."""

from __future__ import annotations

import difflib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mi2p_inject.checkpoint.card import CARD_NAME, MARK, write_card
from mi2p_inject.core.errors import HubError
from mi2p_inject.core.files.hub import check_repository, is_repository, snapshot, upload
from mi2p_inject.recipes.config import Config, make_config
from mi2p_inject.recipes.data.tables.in_memory import IN_MEMORY, called
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.saving.card import card_of, data_name, plain_name, without_paths
from mi2p_inject.recipes.saving.checksums import CHECKSUMS, check_files, check_weights, checksums_of, read_json
from mi2p_inject.recipes.saving.run_folder import FINISHED, IDENTITY, runs_in
from mi2p_inject.recipes.systems.columns import COLUMNS_FILE

__all__ = ["Portable", "local_run", "portable", "push"]

_MODEL, _HISTORY = "model", "history.json"
_READ = (
    IDENTITY,
    FINISHED,
    CHECKSUMS,
    _HISTORY,
    f"{_MODEL}/*.safetensors",
    f"{_MODEL}/{COLUMNS_FILE}",
    f"{_MODEL}/encoders/*",
)
_REPLACED = (IDENTITY, FINISHED, CHECKSUMS, _HISTORY, f"{_MODEL}/*")
_LEAST_SECRET = 6


def local_run(path: str | Path, *, revision: str | None = None, token: str | bool | None = None) -> Path:
    """The folder of a run, downloaded first where it is the id of a repository.

    Args:
        path: a run folder, or ``organisation/name``.
        revision: of a repository: a branch, a tag or a commit.
        token: of a user who may read it.

    Raises:
        HubError: there is no such repository or revision, or it cannot be read.
        RecipeError: a revision of a local folder.
    """
    name = path if isinstance(path, str) else path.as_posix()
    if is_repository(name):
        try:
            return snapshot(name, _READ, revision=revision, token=token)
        except HubError as error:
            if close := difflib.get_close_matches(Path(name).name, runs_in(Path(name).parent), n=1):
                here = Path(name).with_name(close[0])
                raise HubError(error.what, given=name, fix=f"did you mean the run in {here}?") from error
            raise
    if revision is not None:
        raise RecipeError("a local run folder has no revisions", given=f"{name} at {revision}", fix="leave it out")
    return Path(path)


@dataclass(frozen=True)
class Portable:
    """What leaves of a run.

    Attributes:
        folder: where it is ready.
        files: paths in it, with their sizes in bytes.
    """

    folder: Path
    files: dict[str, int]


@contextmanager
def portable(
    path: Path, config: Config, numbers: Mapping[str, Any], card: Mapping[str, Any] | None = None, place: str = ""
) -> Iterator[Portable]:
    """A folder with what another machine needs of a run, for the time of a block, and with a model card.

    Weights, encoders, numbers and settings are in it. Predictions, reports, logs, checkpoints, the runs of sources and
    notes on the data are not; paths of this machine are cut down to their last part.

    Args:
        path: of the run folder.
        config: of the run.
        numbers: its metrics.json.
        card: further metadata of the model card.
        place: how the run is named when it is loaded.

    Raises:
        RecipeError: the run kept no weights, is damaged, or a path or a secret of this machine would leave.
        CheckpointError: metadata that a model card cannot hold.
        HubError: `place` is no id of a repository.
    """
    if place:
        check_repository(place)
    check_weights(path)
    check_files(path, _MODEL)
    options = make_config(_without_places(config)).to_json()
    identity = {**read_json(path / IDENTITY), "config": options}
    kept = {**without_paths(dict(numbers)), "config": options, "classes": numbers["classes"], "notes": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            shutil.copytree(path / _MODEL, folder / _MODEL, copy_function=_linked)
            if (path / _HISTORY).is_file():
                shutil.copyfile(path / _HISTORY, folder / _HISTORY)
        except OSError as error:  # a full disk, which `copytree` tells as a list of its own
            raise RecipeError(
                f"what leaves cannot be put together: {error}"[:500],
                expected="room for the run's weights, beside the run or in the folder of temporary files",
                given=name,
                fix="make room, or set TMPDIR",
            ) from error
        texts = {IDENTITY: _json(identity), FINISHED: _json(kept)}
        texts[CHECKSUMS] = _json(checksums_of(folder, [_MODEL, _HISTORY], texts))
        for file, text in texts.items():
            (folder / file).write_text(text, encoding="utf-8")
        write_card(folder, card_of(make_config(options), kept, card, *([place] if place else [])))
        found = sorted(file for file in folder.rglob("*") if file.is_file())
        _check_nothing_private(folder, found, [path, *_places(config)])
        yield Portable(folder, {file.relative_to(folder).as_posix(): file.stat().st_size for file in found})


def push(
    ready: Portable,
    repository: str,
    *,
    commit_message: str = "Upload a trained run",
    revision: str | None = None,
    token: str | bool | None = None,
    private: bool | None = None,
    create_pr: bool = False,
) -> str:
    """Upload what `portable` gives as one commit; an earlier run in the repository is replaced, other files stay.

    Returns:
        The URL of the commit, or of the pull request.

    Raises:
        HubError: no permission, no network, or a wrong id.
    """
    return upload(
        ready.folder,
        repository,
        message=commit_message,
        replaces=_REPLACED,
        keeps={CARD_NAME: MARK},
        revision=revision,
        token=token,
        private=private,
        create_pr=create_pr,
    )


def _without_places(config: Config) -> dict[str, Any]:
    """The options, without those that say where something is here."""
    options = config.to_json()
    gone = {"image_root": None, "source_cache": None, "source_run": None, "log": None}
    names = {one: plain_name(options[one]) for one in ("vision", "text", "auxiliary") if options[one]}
    kept: dict[str, Any] = without_paths(options)
    data = options["data"]
    no_file = ":" in data or called(Path(data)) == IN_MEMORY
    return {**kept, **gone, **names, "data": data_name(data) if no_file else Path(data).name}


def _places(config: Config) -> list[Path]:
    runs = config.model.source_run or ()
    listed = [runs] if isinstance(runs, str) else [str(one) for one in runs]
    given = (config.data.data.rpartition(":")[2], config.data.image_root, *listed)
    return [Path(one) for one in given if one]


def _check_nothing_private(folder: Path, files: list[Path], paths: list[Path]) -> None:
    """The last look before something leaves: no path of this machine, no token, in any text of ours.

    Raises:
        RecipeError: names the file.
    """
    from huggingface_hub import get_token

    places = [str(path.absolute()) for path in paths] + [str(Path.home()), os.getcwd()]
    secrets = [get_token(), *(value for name, value in os.environ.items() if name.endswith(("_TOKEN", "_API_KEY")))]
    private = [one for one in (*places, *secrets) if one and len(one) >= _LEAST_SECRET]
    for file in files:
        if file.suffix not in (".json", ".md") or ("encoders" in file.parts and file.name != "encoder.json"):
            continue
        text = file.read_text(encoding="utf-8")
        if any(one in text for one in private):
            raise RecipeError(
                f"{file.relative_to(folder).as_posix()} holds a path or a secret of this machine",
                expected="names and numbers only",
                given="not shown",
                fix="look for it in run.json and metrics.json of the run folder; name data and columns otherwise",
            )


def _linked(source: str, target: str) -> str:
    """Copy a file, weights as a link: they are large, and only read."""
    if source.endswith(".safetensors"):
        try:
            os.symlink(os.path.realpath(source), target)
            return target
        except OSError:  # a file system, or a user, without links
            pass
    return str(shutil.copyfile(source, target))


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
