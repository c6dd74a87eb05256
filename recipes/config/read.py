"""Options from a YAML file and from ``--set``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from mi2p_inject.core.files.read import read_regular
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["parse_assignments", "parse_value", "read_yaml"]

_MOST_BYTES = 2**20
"""Of a --config file."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml is untyped
    """YAML whose mappings name each key once: of two values for an option, nobody knows which was meant."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key!r} is given twice", node.value[place][0].start_mark
                )
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


def read_yaml(path: Path) -> dict[str, Any]:
    """The options of a YAML file, by name.

    Raises:
        RecipeError: the file cannot be read, is no mapping of names to values, or names one twice.
    """
    try:
        value = yaml.load(read_regular(path, _MOST_BYTES).decode("utf-8"), Loader=_Loader)
    except OSError as error:
        raise RecipeError(f"cannot read --config {path}: {error.strerror}", fix="check the path") from error
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:  # a date, a number, many levels
        fix = "remove one" if "given twice" in str(error) else "write lines such as `epochs: 5`"
        raise RecipeError(f"--config {path} is not YAML that can be used: {error}", fix=fix) from error
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise RecipeError(
            f"--config {path} is no mapping",
            expected="lines such as `epochs: 5`",
            given=type(value).__name__,
            fix="write one option a line",
        )
    return value


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """``["epochs=5", "vision_layers=[0, -1]"]`` as options; values are read as YAML.

    Raises:
        RecipeError: one is not of the form name=value.
    """
    values = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise RecipeError(f"--set takes name=value, got {assignment!r}", fix="such as --set epochs=5")
        values[name.strip()] = parse_value(value, f"--set {assignment}")
    return values


def parse_value(text: str, where: str) -> Any:
    """A value that was typed in a shell, read as YAML.

    Args:
        text: the value.
        where: what was typed, for the error.

    Raises:
        RecipeError: it is not YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise RecipeError(f"{where}: the value is not YAML: {error}", fix="quote it") from error
