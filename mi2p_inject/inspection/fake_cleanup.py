"""Caches outside the model: what a dry run leaves of fake and meta tensors in functions and modules is taken out."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import CellType, FunctionType, ModuleType
from typing import Any

from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

__all__ = ["caches_cleared"]

_EMPTY = CellType()
_MISSING = object()
_PLAIN = frozenset(
    {type, FunctionType, ModuleType, str, int, float, bool, type(None), dict, list, tuple, set, property}
)
"""Kinds of most values, which have no cache: asking for an attribute that is not there takes ten times as long."""


@contextmanager
def caches_cleared(model: nn.Module) -> Iterator[None]:
    """Afterwards no cache of the model's code holds a tensor of the dry run; caches that it did not fill keep theirs.

    Looked at are the model's classes, their modules and the modules these import: functions with an `lru_cache`, and
    names, dicts and lists (one level deep).
    """
    owners = _owners(model)
    names = {id(owner): dict(vars(owner)) for owner in owners}
    tables = {id(table): _entries(table) for owner in owners for table in _tables(owner)}
    counts = {id(cache): _count(cache) for owner in owners for cache in _functions(owner)}
    try:
        yield
    finally:
        for owner in _owners(model):
            before = names.get(id(owner), {})
            for name, value in list(vars(owner).items()):
                if before.get(name) is value or isinstance(value, list) or not _is_fake(value):
                    continue  # what was there before is not ours to take; lists are tables
                if name in before and not _is_fake(before[name]):
                    setattr(owner, name, before[name])
                else:
                    delattr(owner, name)
            for table in _tables(owner):
                _without_fakes(table, tables.get(id(table), {}))
            for cache in _functions(owner):
                if _count(cache) != counts.get(id(cache), (0, 0)):
                    cache.cache_clear()


def _owners(model: nn.Module) -> list[Any]:
    """The model's classes, the modules they are defined in, and the modules these import from."""
    classes = {cls for module in model.modules() for cls in type(module).__mro__ if _is_users(cls.__module__)}
    homes = {cls.__module__ for cls in classes}
    names = set(homes)
    for home in homes & set(sys.modules):
        for value in list(vars(sys.modules[home]).values()):
            name = value.__name__ if isinstance(value, ModuleType) else getattr(type(value), "__name__", "")
            if not isinstance(value, ModuleType):
                plain = name in ("function", "type", "_lru_cache_wrapper")
                name = getattr(value, "__module__", None) if plain else None
            if isinstance(name, str) and _is_users(name):
                names.add(name)
    return [*classes, *(sys.modules[name] for name in sorted(names) if name in sys.modules)]


def _is_users(name: str) -> bool:
    top = name.partition(".")[0]
    if top == "__main__":
        return True
    return not top.startswith(("torch", "numpy")) and top not in sys.stdlib_module_names and top != "mi2p_inject"


def _functions(owner: Any) -> Iterator[Any]:
    """Functions with an `lru_cache`, those in the closure of a decorator's wrapper too."""
    for value in list(vars(owner).values()):
        function = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
        if _is_cache(type(function)):
            yield function
        elif type(function) is FunctionType and function.__closure__:
            for cell in function.__closure__:
                if cell != _EMPTY and _is_cache(type(cell.cell_contents)):
                    yield cell.cell_contents


def _is_cache(kind: type) -> bool:
    return kind not in _PLAIN and hasattr(kind, "cache_clear") and hasattr(kind, "cache_info")


def _count(cache: Any) -> tuple[int, int]:
    info = cache.cache_info()
    return int(info.misses), int(info.currsize)


def _tables(owner: Any) -> Iterator[Any]:
    for name, value in list(vars(owner).items()):
        if isinstance(value, (dict, list)) and not name.startswith("__"):
            yield value


def _entries(table: Any) -> dict[Any, Any]:
    """What a table really holds: a lazy mapping (transformers has some that import all models) is not asked."""
    return dict(dict.items(table)) if isinstance(table, dict) else dict(enumerate(list.__iter__(table)))


def _without_fakes(table: Any, before: dict[Any, Any]) -> None:
    fakes = [key for key, value in _entries(table).items() if before.get(key) is not value and _is_fake(value)]
    for key in reversed(fakes):  # from the end: the earlier indices of a list stay right
        kept = before.get(key, _MISSING)
        if kept is _MISSING or _is_fake(kept):
            del table[key]
        else:
            table[key] = kept


def _is_fake(value: Any) -> bool:
    values = value if type(value) in (tuple, list) else (value,)
    return any(isinstance(one, FakeTensor) or (isinstance(one, Tensor) and one.is_meta) for one in values)
