"""One option of a training: a dataclass field with its meaning, choices and range; values from YAML or a shell."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mi2p_inject.recipes.config.names import closest
from mi2p_inject.recipes.errors import RecipeError

__all__ = [
    "AT_LEAST_THREE",
    "FRACTION",
    "NOT_NEGATIVE",
    "POSITIVE",
    "Layer",
    "Option",
    "Rule",
    "between",
    "option",
    "options_of",
]

Layer = str | int
Choices = Callable[[], tuple[str, ...]]
_METADATA = "option"
_EXAMPLES: dict[type, str] = {dict: "{num_heads: 4}", bool: "true", int: "4", float: "0.1", str: "text"}
_WORDS: dict[type, str] = {tuple: "list", dict: "mapping", bool: "true | false", str: "text"}


@dataclass(frozen=True)
class Rule:
    """Which values of the right type are allowed.

    Attributes:
        words: for the error and the docs.
        holds: whether a value is allowed.
    """

    words: str
    holds: Callable[[Any], bool]


POSITIVE = Rule("more than 0", lambda value: value > 0)
NOT_NEGATIVE = Rule("0 or more", lambda value: value >= 0)
AT_LEAST_THREE = Rule("3 or more", lambda value: value >= 3)
FRACTION = Rule("0 up to 1, 1 left out", lambda value: 0 <= value < 1)


def between(low: int, high: int) -> Rule:
    """A whole number from ``low`` to ``high``, both allowed."""
    return Rule(f"{low} to {high}", lambda value: low <= value <= high)


def option(default: Any, help: str, *, check: Rule | None = None, choices: Choices | None = None) -> Any:
    """A dataclass field that is an option.

    Its type says what values it takes: str, int, float, bool, a `Literal`, a tuple of layers or a mapping, each also
    with None.

    Args:
        default: where nothing is given.
        help: one sentence for `mi2p settings`, ``--help`` and the docs.
        check: the allowed range.
        choices: names of a table, read when they are needed, so that what is registered later counts.

    Examples:
        >>> from mi2p_inject.recipes.config.option import options_of
        >>> @dataclass(frozen=True)
        ... class Group:
        ...     epochs: int = option(10, "passes over the training split", check=POSITIVE)
        >>> options_of(Group)["epochs"].read("5")
        Traceback (most recent call last):
        ...
        mi2p_inject.recipes.errors.RecipeError: epochs='5' has the wrong type
          expected: int
          given: str
          fix: write it such as epochs=4
    """
    metadata = {_METADATA: (help, check, choices)}
    if isinstance(default, Mapping):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Option:
    """What a field of a group says about its option.

    Attributes:
        name: of the field, of the YAML key and, with hyphens, on the command line.
        kind: str, int, float, bool, tuple or dict.
        optional: None is a value.
        default: where nothing is given.
        help: what it means.
        check: the allowed range.
        table: gives the choices; None: any value of the type.
    """

    name: str
    kind: type
    optional: bool
    default: Any
    help: str
    check: Rule | None
    table: Choices | None

    @property
    def choices(self) -> tuple[str, ...]:
        """The names that it takes; () for any value of its type."""
        return self.table() if self.table else ()

    @property
    def values(self) -> str:
        """What it takes, in words.

        Examples:
            >>> from mi2p_inject.recipes.config import OPTIONS
            >>> OPTIONS["image_size"].values
            'int, 8 to 4096'
        """
        if self.choices:
            return " | ".join(self.choices)
        words = _WORDS.get(self.kind, self.kind.__name__)
        return f"{words}, {self.check.words}" if self.check else words

    def read(self, value: Any) -> Any:
        """The value in the option's type; YAML reads ``1e-4`` as text, and a list where a tuple is kept.

        Raises:
            RecipeError: it is of another type, out of range or no choice; the closest choice is named.
        """
        if value is None and self.optional:
            return None
        found = self._chosen(value) if self.table else self._converted(value)
        if self.check is not None and not self.check.holds(found):
            raise RecipeError(
                f"{self.name}={value} is out of range",
                expected=self.check.words,
                given=str(value),
                fix=f"give {self.check.words}",
            )
        return found

    def _chosen(self, value: Any) -> str:
        if value is False and "none" in self.choices:  # a shell's or YAML's way to say none
            return "none"
        if not isinstance(value, str) or value not in self.choices:
            raise RecipeError(
                f"{self.name}={value!r} is not a choice",
                expected=", ".join(self.choices),
                given=str(value),
                fix=closest(str(value), self.choices),
            )
        return value

    def _converted(self, value: Any) -> Any:
        if self.kind is tuple:
            return self._layers(value)
        if self.kind is dict:
            if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
                return dict(value)
        elif self.kind is float and not isinstance(value, bool):
            try:
                return float(value)
            except (TypeError, ValueError):
                pass
        elif type(value) is self.kind:
            return value
        expected = "a mapping such as {num_heads: 4}" if self.kind is dict else self.kind.__name__
        raise RecipeError(
            f"{self.name}={value!r} has the wrong type",
            expected=expected,
            given=type(value).__name__,
            fix=f"write it such as {self.name}={_EXAMPLES[self.kind]}",
        )

    def _layers(self, value: Any) -> tuple[Layer, ...]:
        listed = value if isinstance(value, (list, tuple)) else [value]
        if len(listed) > 0 and all(isinstance(one, (str, int)) and not isinstance(one, bool) for one in listed):
            return tuple(listed)
        raise RecipeError(
            f"{self.name}={value!r}",
            expected="a list with one entry or more",
            given=repr(value),
            fix=f"write {self.name}={'[0, -1], or names' if self.name.endswith('_layers') else '[first, second]'}",
        )


def options_of(group: type) -> dict[str, Option]:
    """The options of a group, by name, in the order of its fields."""
    hints = get_type_hints(group)
    return {field.name: _described(field, hints[field.name]) for field in dataclasses.fields(group)}


def _described(field: Any, hint: Any) -> Option:
    kinds = get_args(hint) if get_origin(hint) in (types.UnionType, Union) else (hint,)
    kind = next(one for one in kinds if one is not types.NoneType)
    help_, check, table = field.metadata[_METADATA]
    origin = get_origin(kind)
    if origin is Literal:
        names = get_args(kind)
        table = lambda: names  # noqa: E731  # a table of fixed names
        kind = str
    elif origin is not None:
        kind = {tuple: tuple}.get(origin, dict)
    default = field.default_factory() if field.default is dataclasses.MISSING else field.default
    return Option(field.name, kind, types.NoneType in kinds, default, help_, check, table)
