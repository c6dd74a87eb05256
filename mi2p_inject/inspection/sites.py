"""Sites: the chosen modules with their layout and view, proven by a dry run to fire once and to reach the output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from mi2p_inject.core.errors import LayoutError, SelectionError, SiteError
from mi2p_inject.core.layout import Layout
from mi2p_inject.core.registry import closest
from mi2p_inject.core.site import Site, View
from mi2p_inject.core.views import ViewSpec
from mi2p_inject.inspection.infer import infer_layouts
from mi2p_inject.inspection.patch_effect import ignored_patches
from mi2p_inject.inspection.probe import Observation, probe
from mi2p_inject.inspection.resolve import ResolvedModel

__all__ = ["IgnoredPatchesError", "examine", "find_sites"]


class IgnoredPatchesError(SiteError):
    """The model reads a site's prefix tokens and ignores its patches, so a map view has no effect."""


def find_sites(
    resolved: ResolvedModel,
    paths: Sequence[str],
    view: View = "auto",
    layout: Layout | Mapping[str, Layout] | None = None,
    defaults: bool = False,
) -> tuple[list[Site], list[str]]:
    """The sites at some paths of a backbone.

    Args:
        resolved: the backbone; it is not touched.
        paths: chosen modules.
        view: see `examine`.
        layout: see `examine`.
        defaults: nobody named these paths: those whose patches the model ignores are left out instead of refused, and
            so is any site that a derived adapter names in vain.

    Returns:
        The sites in the given order, and the paths left out.

    Raises:
        SiteError: a module never fires, fires more than once, or is ignored.
        LayoutError: a layout stays ambiguous, or does not fit.
        ProbeError: the model does not run on the example inputs.
    """
    verdicts = examine(resolved, paths, view, layout)
    derived = not resolved.verified_paths
    errors = {path: found for path, found in verdicts.items() if not isinstance(found, Site)}
    for error in errors.values():
        if not defaults or not (derived or isinstance(error, IgnoredPatchesError)):
            raise error
    sites = [found for found in verdicts.values() if isinstance(found, Site)]
    if not sites:
        raise next(iter(errors.values()))
    return sites, list(errors)


def examine(
    resolved: ResolvedModel,
    paths: Sequence[str],
    view: View = "auto",
    layout: Layout | Mapping[str, Layout] | None = None,
) -> dict[str, Site | SiteError | LayoutError]:
    """What there is at each path: a site, or the reason why it cannot be one.

    A path that the adapter guarantees is read as the adapter says; any other has its layout inferred (unless `layout`
    gives it) and is checked to matter: a module whose output the model ignores is no site.

    Args:
        resolved: the model; it is not touched.
        paths: modules.
        view: "tokens" sees patch tokens as tokens, "map" insists on a map, "auto" takes what the layout says.
        layout: the layout of all modules, or of some by path.

    Raises:
        ProbeError: the model does not run on the example inputs.
    """
    given = _given_layouts(paths, layout)
    model, inputs, known = resolved.model, resolved.inputs, resolved.verified_paths
    unknown = [path for path in paths if path not in known]
    seen, _ = probe(model, paths, inputs, effect=bool(unknown))
    ask = [path for path in unknown if path not in given and seen[path].times == 1]
    inferred = infer_layouts(model, ask, inputs, seen) if ask else {}
    found: dict[str, Site | SiteError | LayoutError] = {}
    for path in paths:
        try:
            _check_fires(model, seen[path])
            stored = given.get(path) or inferred.get(path) or _adapter_layout(resolved, seen[path])
            if isinstance(stored, LayoutError):
                raise stored
            stored = resolved.at_image(stored)
            if path in unknown:
                _check_reaches_output(seen[path], stored)
            found[path] = _site(path, stored.as_tokens() if view == "tokens" else stored, seen[path], view)
        except (SiteError, LayoutError) as error:
            found[path] = error
    layouts = {path: site.layout for path, site in found.items() if isinstance(site, Site)}
    for path in ignored_patches(model, layouts, inputs, resolved.reads):
        found[path] = IgnoredPatchesError(
            "the model ignores this module's patch tokens: its head reads the prefix tokens, which a map leaves alone",
            path=path,
            expected="a site before the last block, or a view that includes the prefix tokens",
            given="a residual that would be lost",
            fix="choose an earlier block, or view='tokens'",
        )
    return found


def _site(path: str, stored: Layout, seen: Observation, view: View) -> Site:
    spec = ViewSpec.of(stored.view(seen.output, path))
    if view not in ("auto", spec.kind):
        raise LayoutError(
            f"the site cannot be viewed as {view}", path=path, expected=view, given=str(spec), fix="use view='auto'"
        )
    return Site(path, stored, spec)


def _given_layouts(paths: Sequence[str], layout: Layout | Mapping[str, Layout] | None) -> dict[str, Layout]:
    if layout is None:
        return {}
    if isinstance(layout, Layout):
        return dict.fromkeys(paths, layout)
    if not isinstance(layout, Mapping) or not all(isinstance(value, Layout) for value in layout.values()):
        raise LayoutError(
            "layout= takes a Layout, or Layouts by path", expected="Layout('NCHW')", given=repr(layout), fix="wrap it"
        )
    if unknown := [path for path in layout if path not in paths]:
        raise SelectionError(
            "layout= names a module that is not among the chosen sites",
            path=unknown[0],
            expected=f"some of {', '.join(paths)}",
            given=unknown[0],
            fix=f"{closest(unknown[0], [*paths])}, or name this module in layers=",
        )
    return dict(layout)


def _adapter_layout(resolved: ResolvedModel, seen: Observation) -> Layout:
    layout = resolved.match.adapter.layout if resolved.match else None
    if layout is None:
        raise LayoutError(
            "no layout", path=seen.path, expected="an adapter or a layout", given="neither", fix="pass layout="
        )
    if layout.element is None and isinstance(seen.output, tuple) and seen.output and isinstance(seen.output[0], Tensor):
        layout = replace(layout, element=0)  # the same layer gives a tensor in one release and a tuple in another
    return resolved.with_patches(layout, seen.output, seen.path)


def _check_fires(model: nn.Module, seen: Observation) -> None:
    if seen.times == 1:
        return
    kind = type(model.get_submodule(seen.path)).__name__
    if seen.times == 0:
        raise SiteError(
            f"this {kind} never fires: its hooks would never run",
            path=seen.path,
            expected="one call of the module in a forward",
            given="none (a container that is indexed, a `.forward(…)` call, or weights used directly)",
            fix="choose a module inside it, or the one around it",
        )
    raise SiteError(
        f"this {kind} fires {seen.times} times in one forward",
        path=seen.path,
        expected="one call of the module in a forward",
        given=f"{seen.times} calls (a shared layer, or a loop)",
        fix="choose the module around it, which runs once",
    )


def _check_reaches_output(seen: Observation, stored: Layout) -> None:
    if seen.reaches_output is None:
        return
    hidden: Tensor = stored.tensor(seen.output, seen.path)
    if not any(tensor is hidden for tensor in seen.reaches_output):
        raise SiteError(
            "the model ignores this output: what a unit adds there would be lost",
            path=seen.path,
            expected="an output that the model's own output depends on",
            given="no path from it to the model's output",
            fix="choose another module, or another element of its output (layout=)",
        )
