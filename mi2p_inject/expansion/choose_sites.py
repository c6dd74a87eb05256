"""`layers=` to sites: which modules each source gets units at, proven by the dry runs of `find_sites`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from mi2p_inject.adapters.recommended import PAPER, recommended
from mi2p_inject.core.errors import ProbeError, SelectionError
from mi2p_inject.core.inputs import Inputs
from mi2p_inject.core.layout import Layout, describe
from mi2p_inject.core.site import Site, View
from mi2p_inject.inspection.probe import probe
from mi2p_inject.inspection.resolve import ResolvedModel
from mi2p_inject.inspection.select import Layers, select
from mi2p_inject.inspection.sites import find_sites

__all__ = ["Choice", "choose_paths", "choose_sites"]


@dataclass(frozen=True)
class Choice:
    """The modules chosen for one source: those that are named, or the default ones."""

    paths: tuple[str, ...]
    defaults: bool
    """Nobody named them."""
    few: bool
    """Of the default ones the recommended few."""


def choose_paths(resolved: ResolvedModel, layers: Layers | None) -> Choice:
    """The modules that `layers=` of `inject` names.

    Raises:
        SelectionError: it names nothing, or something the backbone does not have.
    """
    if layers is None or (isinstance(layers, str) and layers == PAPER and not hasattr(resolved.model, PAPER)):
        few = layers is None and resolved.match is not None
        return Choice(tuple(_default_paths(resolved)), defaults=True, few=few)
    model = resolved.model
    named = select(model, layers, resolved.default_paths, lambda some: _shapes(model, some, resolved.inputs))
    return Choice(tuple(named), defaults=False, few=False)


def choose_sites(
    resolved: ResolvedModel,
    choices: Mapping[str, Choice],
    view: View,
    layout: Layout | Mapping[str, Layout] | None,
) -> tuple[list[Site], dict[str, tuple[str, ...]], list[str]]:
    """The sites of all sources, found in one dry run for those that are named and one for default ones.

    Args:
        resolved: the backbone.
        choices: by the sources' names.
        view: see `find_sites`.
        layout: see `find_sites`.

    Returns:
        Each site once, in the order of the backbone's modules; the paths of each source's sites; default sites that
        were left out.
    """
    found: dict[str, Site] = {}
    left_out: list[str] = []
    usable: dict[bool, list[Site]] = {}
    kinds = sorted({choice.defaults for choice in choices.values()})
    for defaults in kinds:
        paths = _once(path for one in choices.values() if one.defaults == defaults for path in one.paths)
        given = layout
        if isinstance(layout, Mapping) and len(kinds) > 1:
            elsewhere = {path for one in choices.values() if one.defaults != defaults for path in one.paths}
            given = {path: one for path, one in layout.items() if path in paths or path not in elsewhere}
        usable[defaults], ignored = find_sites(resolved, paths, view, given, defaults)
        left_out += ignored
        found |= {site.path: site for site in usable[defaults]}
    of_source: dict[str, tuple[str, ...]] = {}
    for name, choice in choices.items():
        sites: Sequence[Site] = [site for site in usable[choice.defaults] if site.path in choice.paths]
        if choice.few and resolved.match is not None:
            sites = recommended(sites, resolved.match.adapter.modality)
        of_source[name] = tuple(site.path for site in sites)
    used = {path for paths in of_source.values() for path in paths}
    if len(kinds) == 1:
        return [site for site in found.values() if site.path in used], of_source, left_out
    order = [path for path, _ in resolved.model.named_modules() if path in used]
    return [found[path] for path in order], of_source, [path for path in left_out if path not in used]


def _once(paths: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(paths))


def _default_paths(resolved: ResolvedModel) -> list[str]:
    model, match = resolved.model, resolved.match
    if not resolved.default_paths:
        raise SelectionError(
            f"the adapter {match.adapter.name!r} finds none of its sites in this {type(model).__name__}"
            if match
            else f"no adapter matches {type(model).__name__}, so it has no default sites",
            expected=" or ".join(match.site_patterns(model)) or "a list of layers" if match else "layers=[...]",
            given="no layers named",
            fix="name the modules to inject at: layers=[...]; `mi2p layers MODEL --all` lists them",
        )
    return list(resolved.default_paths)


def _shapes(model: nn.Module, paths: Sequence[str], inputs: Inputs) -> dict[str, str]:
    """What some modules give, for error messages."""
    try:
        seen, _ = probe(model, paths, inputs, stop=True)
    except ProbeError:
        return {}
    return {path: describe(one.output) for path, one in seen.items() if one.times}
