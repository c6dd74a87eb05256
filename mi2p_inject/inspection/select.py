"""Which modules: `layers=` as names, globs, regexes, indices or a callable, turned into paths of the backbone."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from mi2p_inject.core.errors import SelectionError

__all__ = ["Layer", "Layers", "Shapes", "closest", "glob_paths", "select"]

Layer = str | int | re.Pattern[str]
Layers = Layer | Sequence[Layer] | Callable[[str, nn.Module], bool]
Shapes = Callable[[Sequence[str]], dict[str, str]]
"""Paths -> a description of what each module gives, for error messages; costs a dry run, so only on demand."""


def glob_paths(pattern: str, paths: Iterable[str]) -> list[str]:
    """The paths a glob matches: `*` and `?` stay inside one dotted segment, `**` spans any number of them.

    Examples:
        >>> from mi2p_inject.inspection.select import glob_paths
        >>> glob_paths("layer.*", ["layer.0", "layer.0.attention", "layer.1"])
        ['layer.0', 'layer.1']
    """
    wanted = pattern.split(".")
    return [path for path in paths if _segments_match(path.split("."), wanted)]


def select(model: nn.Module, layers: Layers, default_sites: Sequence[str], shapes: Shapes) -> list[str]:
    """The paths that `layers` names, in the order of the backbone's modules, each once.

    Args:
        model: the backbone.
        layers: a name, a glob (`*`, `?`, `[…]`, `**`), a compiled regex (matched against the full path), an index into
            `default_sites` (negative ones count from the end), a list of these, or a callable (path, module) -> bool.
        default_sites: the adapter's sites, in firing order; empty where no adapter matches.
        shapes: describes modules for error messages.

    Raises:
        SelectionError: an unknown name (the closest ones are named with their shapes), a pattern that matches nothing,
            an index out of range, or nothing selected at all.
    """
    paths = [path for path, _ in model.named_modules() if path]
    if isinstance(layers, (nn.Module, type)):
        raise SelectionError(
            "layers= takes names, not modules or classes",
            expected="names, globs, compiled regexes, indices, or a function (path, module) -> bool",
            given=repr(layers)[:80],
            fix="name the module by its dotted path, or pass lambda path, module: isinstance(module, ...)",
        )
    if callable(layers):
        chosen = {path for path in paths if layers(path, model.get_submodule(path))}
    else:
        wanted = list(layers) if isinstance(layers, Sequence) and not isinstance(layers, str) else [layers]
        chosen = {path for layer in wanted for path in _resolve(model, layer, paths, default_sites, shapes)}
    if not chosen:
        raise SelectionError(
            "layers= selects nothing",
            expected="at least one module of the backbone",
            given=repr(layers),
            fix=f"name one of its sites: {', '.join(default_sites or paths[:8])}",
        )
    return [path for path in paths if path in chosen]


def _resolve(model: nn.Module, layer: Layer, paths: list[str], sites: Sequence[str], shapes: Shapes) -> list[str]:
    if isinstance(layer, bool) or not isinstance(layer, (str, int, re.Pattern)):
        raise SelectionError(
            "layers= holds something that names no module",
            expected="names, globs, compiled regexes or indices",
            given=repr(layer),
            fix="see help(mi2p_inject.inject)",
        )
    if isinstance(layer, int):
        if not -len(sites) <= layer < len(sites):
            raise SelectionError(
                f"site index {layer} is out of range"
                if sites
                else "an index needs an adapter, and this model has none",
                expected=f"{-len(sites)} to {len(sites) - 1}" if sites else "names, globs or a callable",
                given=str(layer),
                fix=f"the sites are {', '.join(sites)}" if sites else "name the modules",
            )
        return [sites[layer]]
    if isinstance(layer, re.Pattern):
        found = [path for path in paths if layer.fullmatch(path)]
    elif layer in paths:
        return [layer]
    elif layer in (aliases := _aliases(model)):
        return [aliases[layer]]
    else:
        found = glob_paths(layer, paths)
    if not found:
        name = layer if isinstance(layer, str) else layer.pattern
        close = closest(name, paths, sites)
        described = shapes(close)
        raise SelectionError(
            f"no module of the backbone is called (or matches) {name!r}",
            expected="a module's dotted path, or a pattern that matches some",
            given=name,
            fix="closest are " + "; ".join(f"{path} -> {described.get(path, 'not reached')}" for path in close),
        )
    return found


def _aliases(model: nn.Module) -> dict[str, str]:
    """Second names of modules that stand in the model twice, with the first name of each."""
    first = {id(module): path for path, module in model.named_modules()}
    every = model.named_modules(remove_duplicate=False)
    return {path: first[id(module)] for path, module in every if path and path != first[id(module)]}


def closest(name: str, paths: Sequence[str], sites: Sequence[str]) -> list[str]:
    """The paths nearest to a name, sites first on a tie."""
    found = difflib.get_close_matches(name, list(dict.fromkeys([*sites, *paths])), n=4, cutoff=0.5)
    tail = name.rsplit(".", 1)[-1]
    found += [path for path in paths if path.rsplit(".", 1)[-1] == tail]
    return list(dict.fromkeys(found))[:4] or list(sites)[:4] or list(paths)[:4]


def _segments_match(path: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(_segments_match(path[skip:], pattern[1:]) for skip in range(len(path) + 1))
    return bool(path) and fnmatchcase(path[0], pattern[0]) and _segments_match(path[1:], pattern[1:])
