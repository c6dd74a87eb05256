"""Where a checkpoint is: a local folder, or a repository of the Hugging Face Hub; and its way there."""

from __future__ import annotations

import os
from pathlib import Path

from mi2p_inject.checkpoint.card import CARD_NAME, MARK
from mi2p_inject.checkpoint.schema import CONFIG_NAME
from mi2p_inject.core.errors import CheckpointError
from mi2p_inject.core.files.hub import is_repository, snapshot, upload

__all__ = ["as_path", "local_folder", "push_folder"]

_WEIGHTS = f"model-{'[0-9a-f]' * 12}*.safetensors"
"""Our names of weights files, and nobody else's."""


def as_path(folder: str | Path) -> Path:
    """A folder as a path.

    Raises:
        CheckpointError: it is neither a string nor a path, or an empty string, which would be the current folder.
    """
    if not isinstance(folder, (str, Path)) or not str(folder).strip():
        raise CheckpointError(
            "a folder is named by a string or a path", expected="str or Path", given=repr(folder), fix="pass a folder"
        )
    return Path(folder)


def local_folder(
    folder: str | Path, config_name: str = CONFIG_NAME, *, revision: str | None = None, token: str | bool | None = None
) -> Path:
    """The folder itself, or where the repository of that name was downloaded to.

    Args:
        folder: a path, or ``organisation/name``.
        config_name: the JSON of the checkpoint.
        revision: of a repository: a branch, a tag or a commit.
        token: of a user who may read it.

    Raises:
        CheckpointError: there is no such folder, or a revision of one.
        HubError: there is no such repository or revision, it may not be read, or the Hub is out of reach.
    """
    path = as_path(folder)
    if os.path.isdir(path):  # `Path.is_dir` raises about a name that is too long
        if revision is not None:
            raise CheckpointError(
                "a local folder has no revisions",
                expected="the id of a repository, or no revision=",
                given=f"{folder} at {revision}",
                fix="leave revision= out",
            )
        return path
    if not is_repository(folder):
        raise CheckpointError(
            "no checkpoint folder there",
            expected="a folder that save_pretrained wrote, or the id of a Hub repository",
            given=str(folder),
            fix="check the path",
        )
    return snapshot(str(folder), [config_name, _WEIGHTS], revision=revision, token=token)


def push_folder(
    folder: Path,
    repository: str,
    *,
    message: str,
    revision: str | None,
    token: str | bool | None,
    private: bool | None,
    create_pr: bool,
) -> str:
    """A folder that holds a checkpoint and its card, and nothing else, as one commit; returns its URL.

    Raises:
        HubError: no permission, no network, or a wrong id.
    """
    return upload(
        folder,
        repository,
        message=message,
        replaces=[CONFIG_NAME, _WEIGHTS],
        keeps={CARD_NAME: MARK},
        revision=revision,
        token=token,
        private=private,
        create_pr=create_pr,
    )
