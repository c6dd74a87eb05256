"""Sites: the chosen modules with their layout and view, proven by a dry run to fire once and to be heard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor, nn

from mi2p_inject.adapters.find import Match
from mi2p_inject.effect import unheard_patches
from mi2p_inject.errors import LayoutError, SelectionError, SiteError
from mi2p_inject.growth import image_size
from mi2p_inject.infer import infer_layouts, patch_grid
from mi2p_inject.layout import Axes, Layout
from mi2p_inject.probe import Inputs, Observation, probe
from mi2p_inject.select import glob_paths
from mi2p_inject.views import ViewSpec

View = Literal["auto", "map", "tokens"]


@dataclass(frozen=True)
class Site:
    """One hooked module of the backbone: its path, how its hidden state is stored, and the view a unit sees."""

    path: str
    layout: Layout
    spec: ViewSpec

    @property
    def key(self) -> str:
        """The key of its unit among the expanded model's units: `a.b` is `/a/b`, which no attribute's name is."""
        return unit_key(self.path)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form; `from_json` reads it back."""
        return {"path": self.path, "layout": self.layout.to_json(), "view": self.spec.to_json()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Site:
        """Inverse of `to_json`."""
        return cls(data["path"], Layout.from_json(data["layout"]), ViewSpec.from_json(data["view"]))


def unit_key(path: str) -> str:
    """See `Site.key`."""
    return "/" + path.replace(".", "/")


def default_paths(model: nn.Module, match: Match | None) -> list[str]:
    """The default sites of a model's adapter row, in firing order; none without a row."""
    if match is None:
        return []
    paths = [path for path, _ in model.named_modules()]
    return [path for pattern in match.site_patterns(model) for path in glob_paths(pattern, paths)]


class UnheardPatchesError(SiteError):
    """The model reads a site's prefix tokens and ignores its patches, so a map view has no effect."""


def find_sites(
    model: nn.Module,
    paths: Sequence[str],
    match: Match | None,
    inputs: Inputs,
    view: View = "auto",
    layout: Layout | Mapping[str, Layout] | None = None,
    defaults: bool = False,
) -> tuple[list[Site], list[str]]:
    """The sites at some paths of a backbone.

    Args:
        model: the backbone; it is not touched.
        paths: chosen modules.
        match: its adapter row, if any.
        inputs: example inputs.
        view: see `examine`.
        layout: see `examine`.
        defaults: nobody named these paths: those whose patches the model ignores are left out instead of refused, and
            so is any site that a derived row names in vain.

    Returns:
        The sites in the given order, and the paths left out.

    Raises:
        SiteError: a module never fires, fires more than once, or is ignored.
        LayoutError: a layout stays ambiguous, or does not fit.
        ProbeError: the model does not run on the example inputs.
    """
    verdicts = examine(model, paths, match, inputs, view, layout)
    derived = not _vouched(model, match)
    errors = {path: found for path, found in verdicts.items() if not isinstance(found, Site)}
    for error in errors.values():
        if not defaults or not (derived or isinstance(error, UnheardPatchesError)):
            raise error
    sites = [found for found in verdicts.values() if isinstance(found, Site)]
    if not sites:
        raise next(iter(errors.values()))
    return sites, list(errors)


def examine(
    model: nn.Module,
    paths: Sequence[str],
    match: Match | None,
    inputs: Inputs,
    view: View = "auto",
    layout: Layout | Mapping[str, Layout] | None = None,
) -> dict[str, Site | SiteError | LayoutError]:
    """What there is at each path: a site, or the reason why it cannot be one.

    A path that the adapter row vouches for is read as the row says; any other has its layout inferred (unless `layout`
    gives it) and is checked to matter: a module whose output the model ignores is no site.

    Args:
        model: the model; it is not touched.
        paths: modules.
        match: its adapter row, if any.
        inputs: example inputs.
        view: "tokens" sees patch tokens as tokens, "map" insists on a map, "auto" takes what the layout says.
        layout: the layout of all modules, or of some by path.

    Raises:
        ProbeError: the model does not run on the example inputs.
    """
    given = _given_layouts(paths, layout)
    known = _vouched(model, match)
    unknown = [path for path in paths if path not in known]
    seen, _ = probe(model, paths, inputs, effect=bool(unknown))
    ask = [path for path in unknown if path not in given and seen[path].times == 1]
    inferred = infer_layouts(model, ask, inputs, seen) if ask else {}
    found: dict[str, Site | SiteError | LayoutError] = {}
    for path in paths:
        try:
            _check_fires(model, seen[path])
            stored = given.get(path) or inferred.get(path) or _row_layout(model, match, seen[path], inputs)
            if isinstance(stored, LayoutError):
                raise stored
            if stored.grid and stored.image is None:
                stored = replace(stored, image=image_size(inputs))
            if path in unknown:
                _check_heard(seen[path], stored)
            found[path] = _site(path, stored.as_tokens() if view == "tokens" else stored, seen[path], view)
        except (SiteError, LayoutError) as error:
            found[path] = error
    layouts = {path: site.layout for path, site in found.items() if isinstance(site, Site)}
    for path in unheard_patches(model, layouts, inputs):
        found[path] = UnheardPatchesError(
            "the model ignores this module's patch tokens: its head reads the prefix tokens, which a map leaves alone",
            path=path,
            expected="a site before the last block, or a view that includes the prefix tokens",
            given="a residual that would be lost",
            fix="choose an earlier block, or view='tokens'",
        )
    return found


def _vouched(model: nn.Module, match: Match | None) -> set[str]:
    """Paths whose layout and effect an adapter row answers for; a derived row does not."""
    return set(default_paths(model, match)) if match is not None and match.adapter.layout is not None else set()


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
            fix="mend the path, or choose the module with layers=",
        )
    return dict(layout)


def _row_layout(model: nn.Module, match: Match | None, seen: Observation, inputs: Inputs) -> Layout:
    row = match.adapter.layout if match else None
    if match is None or row is None:
        raise LayoutError(
            "no layout", path=seen.path, expected="a row or a layout", given="neither", fix="pass layout="
        )
    if row.element is None and isinstance(seen.output, tuple) and seen.output and isinstance(seen.output[0], Tensor):
        row = replace(row, element=0)  # the same layer gives a tensor in one release and a tuple in another
    prefix = match.adapter.prefix_tokens(model.get_submodule(match.root))
    if prefix is None:
        return row
    hidden = row.tensor(seen.output, seen.path)
    length = int(hidden.shape[0 if row.axes is Axes.LNC else 1])
    return replace(row, prefix=prefix, grid=patch_grid(length, prefix, image_size(inputs), seen.path))


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


def _check_heard(seen: Observation, stored: Layout) -> None:
    if seen.heard is None:
        return
    hidden: Tensor = stored.tensor(seen.output, seen.path)
    if not any(tensor is hidden for tensor in seen.heard):
        raise SiteError(
            "the model ignores this output: what a unit adds there would be lost",
            path=seen.path,
            expected="an output that the model's own output depends on",
            given="no path from it to the model's output",
            fix="choose another module, or another element of its output (layout=)",
        )
