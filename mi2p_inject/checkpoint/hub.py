"""Where a checkpoint is: a local folder, or a repository of the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from mi2p_inject.checkpoint.schema import CONFIG_NAME
from mi2p_inject.core.errors import CheckpointError

__all__ = ["as_path", "local_folder"]


def as_path(folder: str | Path) -> Path:
    """A folder as a path.

    Raises:
        CheckpointError: it is neither a string nor a path.
    """
    if not isinstance(folder, (str, Path)):
        raise CheckpointError(
            "a folder is named by a string or a path", expected="str or Path", given=repr(folder), fix="pass a folder"
        )
    return Path(folder)


def local_folder(folder: str | Path) -> Path:
    """The folder itself, or where the repository of that name was downloaded to.

    Raises:
        CheckpointError: there is no such folder, nor a repository that can be reached.
    """
    path = as_path(folder)
    if path.is_dir():
        return path
    if path.exists() or isinstance(folder, Path) or str(folder).count("/") != 1 or str(folder).startswith((".", "/")):
        raise CheckpointError(
            "no checkpoint folder there",
            expected="a folder that save_pretrained wrote",
            given=str(folder),
            fix="check the path",
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(folder), allow_patterns=[CONFIG_NAME, "model-*.safetensors"]))
    except Exception as error:
        raise CheckpointError(
            f"neither a local folder nor a repository that can be reached: {type(error).__name__}: {error}",
            expected="a folder, or the id of a Hub repository",
            given=str(folder),
            fix="check the path, or the id and the network",
        ) from error
