"""What shrinking by field names gets wrong: fields of a configuration, by class or model type, in place of the rule's."""

from __future__ import annotations

from typing import Any

EXCEPTIONS: dict[str, dict[str, Any]] = {}
