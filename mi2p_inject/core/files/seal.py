"""A checksum of a JSON inside it: what is read is what was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

__all__ = ["SEAL", "sealed"]

SEAL = "sha256"


def sealed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON with a checksum of all that it says, in place of the one it has.

    Examples:
        >>> once = sealed({"a": 1})
        >>> sealed(once) == once, sealed({**once, "a": 2}) == {**once, "a": 2}
        (True, False)
    """
    rest = {key: value for key, value in config.items() if key != SEAL}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return {**rest, SEAL: hashlib.sha256(text.encode()).hexdigest()}
