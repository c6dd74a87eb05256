"""A repository of the Hugging Face hub as a local folder: the files that `checked_folder` reads, and no others."""

from __future__ import annotations

from pathlib import Path

from mi2p_inject.core.files.hub import snapshot
from mi2p_inject.core.model_folder.stage import DATA_FILES, JSON_FILES, WEIGHTS

__all__ = ["hub_folder"]


def hub_folder(repository: str, *, weights: bool) -> Path:
    """The snapshot of a repository in the hub's cache, downloaded if need be and allowed (``HF_HUB_OFFLINE``).

    Args:
        repository: ``organisation/name``, or an old name without an organisation.
        weights: safetensors, too.

    Raises:
        HubError: there is no such repository, or it is out of reach and not in the cache.
    """
    return snapshot(repository, [*JSON_FILES, *DATA_FILES, *(WEIGHTS if weights else ())])
