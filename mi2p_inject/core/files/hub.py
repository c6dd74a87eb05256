"""The Hugging Face Hub: a repository as a local folder, a local folder as a repository, and why it cannot be."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mi2p_inject.core.errors import HubError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["check_repository", "is_repository", "snapshot", "upload"]

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_NO_NETWORK = ("ConnectError", "ConnectionError", "TransportError", "Timeout")


def is_repository(name: str | Path) -> bool:
    """Whether a name that is no local path may be the id of a repository: ``organisation/name``.

    Examples:
        >>> is_repository("me/model"), is_repository("model"), is_repository("./model"), is_repository("a/b/c")
        (True, False, False, False)
    """
    return isinstance(name, str) and bool(_ID.fullmatch(name)) and not os.path.exists(name)


def check_repository(name: str) -> None:
    """Refuse what cannot be the id of a repository to write to, such as a path, before anything is made for it.

    Raises:
        HubError: it is none.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise _explained(error, name, None, "written") from error


def snapshot(
    repository: str, patterns: Sequence[str], *, revision: str | None = None, token: str | bool | None = None
) -> Path:
    """The snapshot of a repository in the Hub's cache, downloaded if need be and allowed (``HF_HUB_OFFLINE``).

    Args:
        repository: ``organisation/name``, or an old name without an organisation.
        patterns: of the files that are wanted; no others are downloaded.
        revision: a branch, a tag or a commit; None: the newest of the main branch.
        token: of the user; None: the one that ``hf auth login`` stored.

    Raises:
        HubError: there is no such repository or revision, it may not be read, or the Hub is out of reach and the cache
            has none.
    """
    from huggingface_hub import snapshot_download

    try:
        found = Path(snapshot_download(repository, allow_patterns=list(patterns), revision=revision, token=token))
    except Exception as error:
        raise _explained(error, repository, revision, "read") from error
    if not found.is_dir():
        raise HubError(
            f"the repository {repository!r} has none of the files that are read",
            expected=", ".join(patterns[:3]),
            given=repository if revision is None else f"{repository} at {revision}",
            fix="check the id and the revision",
        )
    return found


def upload(
    folder: Path,
    repository: str,
    *,
    message: str,
    replaces: Sequence[str],
    keeps: Mapping[str, str],
    revision: str | None = None,
    token: str | bool | None = None,
    private: bool | None = None,
    create_pr: bool = False,
) -> str:
    """A folder as one commit to a repository, which is made if there is none.

    Args:
        folder: every file in it is uploaded.
        repository: ``organisation/name``.
        message: of the commit.
        replaces: patterns of files that an earlier upload may have left; those that are not in the folder are deleted.
        keeps: file -> text that it has where it was uploaded in this way; another one in the repository stays.
        revision: the branch, made if there is none; None: the main branch.
        token: of a user who may write there; None: the one that ``hf auth login`` stored.
        private: a new repository is; None: as the organisation has it.
        create_pr: open a pull request instead.

    Returns:
        The URL of the commit.

    Raises:
        HubError: no such id, no permission, or the Hub is out of reach; at most a new and empty repository is there.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi(token=token)
        name = api.create_repo(repository, private=private, exist_ok=True).repo_id
        if revision is not None and not create_pr:
            api.create_branch(name, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=name,
            folder_path=folder,
            commit_message=message,
            revision=revision,
            create_pr=create_pr,
            delete_patterns=list(replaces),
            ignore_patterns=[file for file, text in keeps.items() if _is_others(api, name, file, text, revision)],
        )
    except Exception as error:
        raise _explained(error, repository, revision, "written") from error
    return str(commit.pr_url if create_pr else commit.commit_url)


def _is_others(api: HfApi, repository: str, file: str, text: str, revision: str | None) -> bool:
    """Whether a repository has a file without this text."""
    from huggingface_hub.errors import EntryNotFoundError

    try:
        path = api.hf_hub_download(repository, file, revision=revision)
    except EntryNotFoundError:
        return False
    return text not in Path(path).read_text(encoding="utf-8", errors="replace")


def _explained(error: Exception, repository: str, revision: str | None, done: str) -> HubError:
    """Our error for one of huggingface_hub's; by names of classes, which its releases have in different places."""
    chain: list[Any] = [error]
    while (before := chain[-1].__cause__ or chain[-1].__context__) is not None and before not in chain:
        chain.append(before)
    kinds = [kind.__name__ for one in chain for kind in type(one).__mro__]
    status = next((one.response.status_code for one in chain if getattr(one, "response", None) is not None), None)
    given = repository if revision is None else f"{repository} at {revision}"
    where = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    login = "check the id; a private one needs `hf auth login`, or token="
    if "HFValidationError" in kinds:
        what, fix = f"{repository!r} is no id of a repository", "write organisation/name"
    elif "OfflineModeIsEnabled" in kinds or _offline():
        what = "the Hub is not asked: HF_HUB_OFFLINE is set"
        fix = "unset HF_HUB_OFFLINE" if done == "written" else "unset HF_HUB_OFFLINE, or give a local folder"
    elif "GatedRepoError" in kinds:
        what, fix = f"{repository!r} is open to those who agreed to its conditions", "agree on its page, then log in"
    elif "RevisionNotFoundError" in kinds:
        what, fix = (
            f"the repository {repository!r} has no revision {revision!r}",
            "check revision=: a branch, tag or commit",
        )
    elif "LocalTokenNotFoundError" in kinds or (status == 401 and done == "written"):
        what, fix = (
            f"{repository!r} cannot be {done}: not logged in",
            "`hf auth login`, or token= with the right to write",
        )
    elif status == 403:
        what, fix = f"{repository!r} may not be {done} by this user", "ask its owner, or take a token with that right"
    elif "RepositoryNotFoundError" in kinds or status in (401, 404):
        what, fix = f"the Hub has no repository {repository!r}, or it is private", login
    elif any(name in kinds for name in _NO_NETWORK):
        what = f"the Hub at {where} is out of reach" + (", and its cache has none" if done == "read" else "")
        fix = "check the network" if done == "written" else "check the network, or give a local folder"
    else:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        what, fix = f"{repository!r} cannot be {done}: {first}", "try again later"
    if done == "read":
        what = f"there is no folder {repository!r}, and {what}"
    return HubError(what, expected=f"a repository that can be {done}", given=given, fix=fix)


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)
