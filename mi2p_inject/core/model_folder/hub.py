"""A repository of the Hugging Face hub as a local folder: the files that `checked_folder` reads, and no others."""

from __future__ import annotations

from pathlib import Path

from mi2p_inject.core.errors import ZooError
from mi2p_inject.core.model_folder.stage import DATA_FILES, JSON_FILES, WEIGHTS

__all__ = ["HubError", "hub_folder"]


class HubError(ZooError):
    """A repository that does not exist, or is out of reach."""


def hub_folder(repository: str, *, weights: bool) -> Path:
    """The snapshot of a repository in the hub's cache, downloaded if need be and allowed (``HF_HUB_OFFLINE``).

    Args:
        repository: ``organisation/name``, or an old name without an organisation.
        weights: safetensors, too.

    Raises:
        HubError: there is no such repository, or it is out of reach and not in the cache.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = [*JSON_FILES, *DATA_FILES, *(WEIGHTS if weights else ())]
    try:
        return Path(snapshot_download(repository, allow_patterns=wanted))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise HubError(
            f"the hub does not give {repository!r}: {first}",
            expected="a repository that can be reached, or is in the cache",
            given=repository,
            fix="check the name; without a network, give a local folder",
        ) from error
