"""The one writer of checkpoints: safetensors files of a new name, then the JSON that names them.

The JSON is replaced last, so a crash at any moment leaves either the old checkpoint or the new one, whole. Nothing in a
checkpoint is ever executed or unpickled.
"""

from __future__ import annotations

import contextlib
import json
import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from mi2p_inject.checkpoint.schema import WEIGHTS_NAME
from mi2p_inject.core.errors import CheckpointError, InjectionWarning
from mi2p_inject.core.files.atomic_write import write_file
from mi2p_inject.core.files.lock import LockHeldError, WriterLock

__all__ = ["LOCK_NAME", "shards", "write_checkpoint"]

LOCK_NAME = ".mi2p.lock"
LOCK_SECONDS = 600.0
"""How long a save waits for another one into the same folder."""


def write_checkpoint(
    folder: Path, name: str, config: Mapping[str, Any], files: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Write a folder's checkpoint anew; weights that its JSON does not name are removed.

    Args:
        folder: created if needed. Other files there are left alone; where another process is saving, this one waits.
        name: of the JSON.
        config: what it holds, sealed.
        files: as `shards` gives them.

    Raises:
        CheckpointError: the folder cannot be written. What was there before is still whole.
    """
    from safetensors import SafetensorError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _only_saver(folder):
            _write(folder, name, config, files)
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"cannot write a checkpoint: {error}",
            expected="a writable folder",
            given=str(folder),
            fix="choose another folder, or make room; a checkpoint that was there before is still whole",
        ) from error


def shards(tensors: Mapping[str, Tensor], max_shard_size: int | str = "5GB") -> dict[str, dict[str, Tensor]]:
    """Name of each weights file, new for every save -> its tensors.

    Args:
        tensors: all that is saved, without tied ones.
        max_shard_size: of a file, in bytes or as "5GB".

    Raises:
        CheckpointError: a size that is none.
    """
    from huggingface_hub import split_torch_state_dict_into_shards

    pattern = f"model-{uuid.uuid4().hex[:12]}{{suffix}}.safetensors"
    try:
        split = split_torch_state_dict_into_shards(
            dict(tensors), filename_pattern=pattern, max_shard_size=max_shard_size
        )
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"max_shard_size= is wrong: {error}",
            expected='bytes, or a size such as "5GB"',
            given=repr(max_shard_size),
            fix="change max_shard_size=",
        ) from error
    return {str(file): {key: tensors[key] for key in keys} for file, keys in split.filename_to_tensors.items()}


def _write(folder: Path, name: str, config: Mapping[str, Any], files: Mapping[str, Mapping[str, Tensor]]) -> None:
    """The weights files, then the JSON; then what it does not name is removed: of an older save, or of a killed one."""
    from safetensors.torch import save_file

    text = json.dumps(config, indent=2) + "\n"
    named = _weights_files(folder)
    try:
        for file, tensors in files.items():
            write_file(folder / file, partial(save_file, dict(tensors), metadata={"format": "pt"}))
        write_file(folder / name, lambda path: path.write_text(text, encoding="utf-8"))
    except BaseException:
        ours = (folder / name).is_file() and (folder / name).read_text(encoding="utf-8") == text
        if not ours:  # the JSON may have been replaced before something failed
            _remove(folder, files)
        raise
    _remove(folder, named - files.keys())


def _weights_files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if WEIGHTS_NAME.fullmatch(path.name)}


def _remove(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        with contextlib.suppress(OSError):  # no harm in it: the next save tries again
            (folder / name).unlink()


@contextlib.contextmanager
def _only_saver(folder: Path) -> Iterator[None]:
    """Two saves into one folder would remove each other's weights: the second one waits."""
    lock = WriterLock(folder / LOCK_NAME)
    try:
        lock.acquire()
    except LockHeldError as error:
        warnings.warn(f"{error}: waiting until it has saved its checkpoint", InjectionWarning, stacklevel=5)
        lock.acquire(LOCK_SECONDS)
    try:
        yield
    finally:
        lock.release()
