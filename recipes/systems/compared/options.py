"""Options of a system: the fields of its class, checked by name, type and range before anything is built."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mi2p_inject.core.registry import closest
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["check_least", "checked_options"]


def checked_options(system: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values, each of the type that the field of its name has.

    Args:
        system: a dataclass whose fields are options: bool, int, float, a `Literal`, each also with None.
        given: option -> value.

    Raises:
        RecipeError: an unknown name (the closest one is named), or a value of another type.
    """
    known = [one.name for one in fields(system)]
    hints = get_type_hints(system)
    for name, value in given.items():
        if name not in known:
            raise RecipeError(
                f"{system.__name__} has no option {name!r}",
                expected=f"some of {', '.join(known)}" if known else "no options",
                given=name,
                fix=closest(name, known) if known else "leave system_options out",
            )
        kinds = get_args(hints[name]) if get_origin(hints[name]) in (types.UnionType, Union) else (hints[name],)
        if not any(_is(value, kind) for kind in kinds):
            raise RecipeError(
                f"system_options.{name}={value!r} has the wrong type or is no choice",
                expected=" or ".join(map(_in_words, kinds)),
                given=repr(value),
                fix="correct the value",
            )
    return dict(given)


def check_least(name: str, value: float | None, least: float) -> None:
    """Raise `RecipeError` for a number below ``least``, infinity or NaN; None is a value."""
    if value is not None and not least <= value < math.inf:
        raise RecipeError(
            f"system_options.{name}={value} is out of range", expected=f"{least} or more", fix=f"give {least} or more"
        )


def _is(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is kind


def _in_words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(get_args(kind))
    return "none" if kind is types.NoneType else str(kind.__name__)
