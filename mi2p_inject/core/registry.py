"""Named entries: built-in ones, and those of other distributions, which come by entry point and load when asked for."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from mi2p_inject.core.errors import Mi2pError

__all__ = ["Registry", "closest", "entry_points_of", "load_entry_point", "nearest"]

T = TypeVar("T")


class Registry(Generic[T]):
    """Name -> entry, over the built-in entries and an entry-point group.

    Names are read from the installed distributions' metadata once; an entry point is imported only when its name is
    looked up, so a broken distribution breaks nobody who does not use it.

    Args:
        what: what an entry is, for errors: "unit", "fusion".
        group: the entry-point group.
        error: the class of errors raised.
        accept: turns what an entry point names into an entry; None: it is none.
        expected: what an entry point must name, in words.
        built_in: name -> entry.

    Raises:
        Mi2pError: (of the class `error`) an unknown name, the closest one named; a name given twice; an entry point
            that cannot be loaded or names something else.

    Examples:
        >>> from mi2p_inject.core.errors import UnitError
        >>> from mi2p_inject.core.registry import Registry
        >>> sizes = Registry("size", "no.such.group", UnitError, lambda given: given, "a number", {"small": 1})
        >>> sizes["small"], list(sizes), "large" in sizes
        (1, ['small'], False)
    """

    def __init__(
        self,
        what: str,
        group: str,
        error: type[Mi2pError],
        accept: Callable[[Any], T | None],
        expected: str,
        built_in: Mapping[str, T],
    ) -> None:
        self.what, self.group, self.error, self.accept, self.expected = what, group, error, accept, expected
        self.entries = dict(built_in)

    def __iter__(self) -> Iterator[str]:
        return iter([*self.entries, *self._plugins()])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in list(iter(self))

    def __getitem__(self, name: str) -> T:
        plugins = self._plugins()
        if name in plugins:
            return self._loaded(plugins[name])
        if name not in self.entries:
            raise self.error(
                f"unknown {self.what} {name!r}",
                expected=f"one of {', '.join(self)}",
                given=repr(name),
                fix=f"{closest(str(name), list(self))}; one of another distribution is there once that is installed",
            )
        return self.entries[name]

    def register(self, name: str, entry: T) -> None:
        """Add an entry for this process, as an entry point does for every process.

        Raises:
            Mi2pError: (of the class `error`) the name is taken.
        """
        if name in self:
            raise self._twice([name])
        self.entries[name] = entry

    def _plugins(self) -> dict[str, EntryPoint]:
        found = entry_points_of(self.group)
        names = [*self.entries, *(one.name for one in found)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise self._twice(twice)
        return {one.name: one for one in found}

    def _loaded(self, entry_point: EntryPoint) -> T:
        given = load_entry_point(entry_point, self.error, self.expected)
        entry = self.accept(given)
        if entry is None:
            raise self.error(
                f"entry point {entry_point.name!r} gives something that is no {self.what}",
                expected=self.expected,
                given=repr(given),
                fix=f"correct {entry_point.value}, or uninstall its distribution",
            )
        return entry

    def _twice(self, names: list[str]) -> Mi2pError:
        return self.error(
            f"two {self.what}s share a name",
            expected="one of each name, those of other distributions included",
            given=", ".join(names),
            fix="rename or uninstall one of them",
        )


@cache
def entry_points_of(group: str) -> tuple[EntryPoint, ...]:
    """The entry points of a group, read once a process."""
    return tuple(entry_points(group=group))


def load_entry_point(entry_point: EntryPoint, error: type[Mi2pError], expected: str) -> Any:
    """What an entry point names, imported.

    Raises:
        Mi2pError: (of the class `error`) the import fails, whatever it raised.
    """
    try:
        return entry_point.load()
    except Exception as cause:
        raise error(
            f"entry point {entry_point.name!r} cannot be loaded",
            expected=expected,
            given=f"{type(cause).__name__}: {cause}",
            fix=f"correct {entry_point.value}, or uninstall its distribution",
        ) from cause


def closest(name: str, names: list[str]) -> str:
    """What to say to somebody who mistyped a name.

    Examples:
        >>> from mi2p_inject.core.registry import closest
        >>> closest("FiLMs", ["film", "mmtm"]), closest("x", ["film", "mmtm"])
        ("did you mean 'film'?", 'choose one of film, mmtm')
    """
    meant = nearest(name, names)
    return f"did you mean {meant!r}?" if meant is not None else f"choose one of {', '.join(names)}"


def nearest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The name that was probably meant, whatever its capitals; None where nothing is close.

    Args:
        name: as it was written.
        names: those that there are.
        cutoff: the least likeness, from 0 (anything) to 1 (the same).
    """
    lower = {one.lower(): one for one in names}
    close = difflib.get_close_matches(name.lower(), list(lower), n=1, cutoff=cutoff)
    return lower[close[0]] if close else None
