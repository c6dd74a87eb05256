"""JSON values from a file: which may reach a loader, and within which ranges."""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from mi2p_inject.core.errors import ZooError

__all__ = ["check_regular", "checked_fields", "clean", "is_word", "read_json"]

_MAX_JSON = 2**26  # bytes: 64 MiB; a large vocabulary is in files of its own
_MAX_INTEGER = 2**24
_MAX_LAYERS = 1024
_MAX_ITEMS = 4096
_MAX_DEPTH = 6
_LAYERS = re.compile(r"(^|_)(layers?|depths?|blocks?|stages?)$")
_WORD = re.compile(r"(?!\.)[\w.+\- ]{0,64}")

#: keys that run code or load another model, whatever their value
_CODE = re.compile(
    r"auto_map|trust_remote_code|custom_(pipelines|generate|code|objects?)|\w*attn_implementation\w*"
    r"|\w*experts_implementation\w*|\w*kernel_config|fusion_config|quantization_config|transformers_weights"
    r"|configuration_files|fast_tokenizer_files|init_inputs|backbone|use_\w*backbone|backbone_kwargs|\w*name_or_path"
    r"|(sp_model|mecab|sudachi|jumanpp)_kwargs"
)
#: keys that name a file, an address or a repository, if their value is a text
_FILES = re.compile(
    r"(\w*_)?(files?|filename|paths?|dirs?|urls?|repo|repo_id|hub_id|model_id|checkpoint|dataset|cache_dir)"
)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of at most 64 MiB.

    Raises:
        ZooError: no regular file, too large, no JSON, or no object.
    """
    check_regular(path, _MAX_JSON)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ZooError(
            f"{path} cannot be read: {type(error).__name__}",
            expected="a JSON object in UTF-8",
            given=str(error)[:200],
            fix="copy the folder again",
        ) from error
    if not isinstance(value, dict):
        raise ZooError(
            f"{path} holds no JSON object", expected="{...}", given=type(value).__name__, fix="copy it again"
        )
    return value


def check_regular(path: Path, most: int) -> None:
    """Refuse what is no regular file (a pipe blocks for ever, a device never ends) and what is larger than ``most``.

    Raises:
        ZooError: also where there is no such file.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise ZooError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}",
            expected="a regular file",
            given="none",
            fix="name the folder that save_pretrained wrote",
        ) from error
    if not stat.S_ISREG(status.st_mode) or status.st_size > most:
        regular = stat.S_ISREG(status.st_mode)
        raise ZooError(
            f"{path} is {'too large' if regular else 'no regular file'}",
            expected=f"a regular file of at most {most:,} bytes",
            given=f"{status.st_size:,} bytes" if regular else "a folder, a pipe or a device",
            fix="name the folder that save_pretrained wrote",
        )


def is_word(value: object) -> bool:
    """Whether a value is a short name: no separators of paths, addresses or repositories."""
    return isinstance(value, str) and _WORD.fullmatch(value) is not None


def clean(
    value: Mapping[str, Any],
    known: Callable[[str], bool],
    where: str,
    dropped: list[str],
    depth: int = 0,
) -> dict[str, Any]:
    """The part of a configuration that can name neither code nor files.

    Numbers, bools and null may have any key; words need a known one; nested lists and objects follow the same rules.

    Args:
        value: from JSON.
        known: whether a key is one that the library documents.
        where: for messages.
        dropped: the names of what was left out are appended.

    Raises:
        ZooError: a number is out of range; the value is nested too deeply or too long.
    """
    if depth > _MAX_DEPTH or len(value) > _MAX_ITEMS:
        raise ZooError(
            f"{where} is nested or listed beyond reason",
            expected=f"{_MAX_DEPTH} levels of at most {_MAX_ITEMS} entries",
            given=f"level {depth}, {len(value)} entries",
            fix="copy the folder again",
        )
    kept = {}
    for key, one in value.items():
        name = f"{where}: {key}"
        named = _CODE.fullmatch(str(key)) or (isinstance(one, (str, list, dict)) and _FILES.fullmatch(str(key)))
        if not is_word(key) or named or not _allowed(one, known(key), name, depth):
            dropped.append(str(key)[:64])
        else:
            below = (lambda _: True) if known(key) else known
            kept[key] = _nested(one, below, name, dropped, depth + 1)
    return kept


def _nested(value: Any, known: Callable[[str], bool], name: str, dropped: list[str], depth: int) -> Any:
    """A value with every object in it cleaned, those in lists too."""
    if isinstance(value, dict):
        return clean(value, known, name, dropped, depth)
    if isinstance(value, list):
        return [_nested(one, known, name, dropped, depth + 1) for one in value]
    return value


def _allowed(value: Any, known: bool, name: str, depth: int) -> bool:
    """Whether the value may stay under its key; checks the ranges of its numbers."""
    if isinstance(value, list):
        if len(value) > _MAX_ITEMS or depth > _MAX_DEPTH:
            raise ZooError(
                f"{name} is too long",
                expected=f"at most {_MAX_ITEMS} entries",
                given=str(len(value)),
                fix="copy the folder again",
            )
        return all(_allowed(one, known, name, depth + 1) for one in value)
    if isinstance(value, dict):
        return known or not any(isinstance(one, str) for one in value.values())
    if isinstance(value, str):
        return known and is_word(value)
    check_number(value, name)
    return True


def check_number(value: Any, name: str) -> None:
    """Refuse numbers that no model has: a billion layers would be built before anything notices.

    Raises:
        ZooError: out of range.
    """
    if isinstance(value, bool) or value is None:
        return
    key = name.rpartition(": ")[2]
    most = _MAX_LAYERS if _LAYERS.search(key) else 2**53 if key.endswith("theta") else _MAX_INTEGER
    fine = abs(value) <= most if isinstance(value, int) else isinstance(value, float) and not math.isnan(value)
    if not fine:
        raise ZooError(
            f"{name} is out of range", expected=f"a number up to {most:,}", given=str(value)[:40], fix="copy it again"
        )


def checked_fields(
    value: Any, fields: Mapping[str, Callable[[Any], bool]], where: str, needed: Collection[str] = ()
) -> Any:
    """A JSON object with known fields only, each passed by its check.

    Args:
        value: from JSON.
        fields: name -> whether a value is right.
        where: for messages.
        needed: fields that must be there.

    Raises:
        ZooError: no object, an unknown or a missing field, a wrong value.
    """
    if not isinstance(value, dict):
        raise ZooError(f"{where} is no object", expected="{...}", given=type(value).__name__, fix="copy it again")
    wrong = [str(key) for key in value if key not in fields] + [f"no {name}" for name in needed if name not in value]
    wrong += [f"{name}={one!r}"[:120] for name, one in value.items() if name in fields and not fields[name](one)]
    if wrong:
        raise ZooError(
            f"{where} has fields that are unknown, missing or out of range",
            expected=", ".join(fields),
            given=", ".join(wrong)[:300],
            fix="take it from where it was written; such a field could name other code or files",
        )
    return value
