"""What a model offers: the modules that could be sites, which are by default, and what a unit at each would cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.adapters.recommended import recommended
from mi2p_inject.core.errors import UnitError
from mi2p_inject.core.site import Site
from mi2p_inject.core.views import ViewSpec
from mi2p_inject.inspection.probe import probe
from mi2p_inject.inspection.resolve import resolve
from mi2p_inject.inspection.sites import examine
from mi2p_inject.report.cost import DEFAULT_TOKENS, backbone_flops, count, text_length, unit_cost
from mi2p_inject.units import UnitConfig, unit_config

__all__ = ["Candidate", "Survey", "survey"]


@dataclass(frozen=True)
class Candidate:
    """One module: a site (then with layout, view and cost), or the reason why it is none."""

    path: str
    kind: str
    """Its class."""
    default: bool
    """Named by the adapter; `inject(model)` uses it unless there is a reason not to."""
    layout: str = ""
    view: ViewSpec | None = None
    unit: Mapping[str, str] = field(default_factory=dict)
    """What a unit there says of itself: `Unit.describe`."""
    parameters: int = 0
    flops: int = 0
    """Of a unit there: operations of one forward of one sample."""
    reason: str = ""


@dataclass(frozen=True)
class Survey:
    """A model's candidates, in the order of its modules."""

    model: str
    adapter: str
    """Its adapter, "" where there is none."""
    modality: Modality | None
    """What it reads, as its adapter says."""
    parameters: int
    flops: int
    """Of one forward of one sample; 0 where it could not be counted."""
    source: ViewSpec
    candidates: tuple[Candidate, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form."""
        rows = [{**vars(one), "view": one.view.to_json() if one.view else None} for one in self.candidates]
        return {**vars(self), "source": self.source.to_json(), "candidates": rows}

    @property
    def recommended(self) -> tuple[str, ...]:
        """The sites that `inject` takes where no layers are named."""
        sites = [one.path for one in self.candidates if one.default and not one.reason]
        return recommended(sites, self.modality) if sites and self.modality else ()


def survey(
    model: nn.Module,
    source: ViewSpec,
    every: bool = False,
    example_inputs: Any = None,
    unit: str | UnitConfig = "mi2p",
) -> Survey:
    """Look at a model's default sites, or at every module, in dry runs.

    Args:
        model: it is not touched, and may be on the meta device.
        source: what a unit attends to.
        every: all modules that run, not the default sites only.
        example_inputs: as for `inject`.
        unit: as for `inject`.

    Raises:
        UnitError: an unknown unit.
        AdapterError: a model of two modalities.
        ProbeError: it does not run on the example inputs, or there are none.

    Examples:
        >>> from mi2p_inject import ViewSpec
        >>> from mi2p_inject.report.survey import survey
        >>> from mi2p_inject.core.zoo import build
        >>> found = survey(build("resnet18"), ViewSpec.tokens(768))
        >>> [(one.path, str(one.view)) for one in found.candidates][:2]
        [('layer1', 'map (B, 64, 56, 56)'), ('layer2', 'map (B, 128, 28, 28)')]
    """
    config = unit_config(unit, {})
    resolved = resolve(model, example_inputs)
    match, inputs, defaults = resolved.match, resolved.inputs, resolved.default_paths
    paths = list(defaults)
    if every:
        modules = [path for path, _ in model.named_modules() if path]
        seen, _ = probe(model, modules, inputs)
        paths = [path for path in modules if seen[path].times or path in defaults]
    found = examine(resolved, paths)
    num_heads, length = resolved.num_heads, text_length(inputs)
    tokens = source.width if source.kind == "map" else DEFAULT_TOKENS

    def candidate(path: str) -> Candidate:
        verdict, kind, default = found[path], type(model.get_submodule(path)).__name__, path in defaults
        if not isinstance(verdict, Site):
            return Candidate(path, kind, default, reason=verdict.what)
        try:
            cost = unit_cost(config, verdict.spec, source, num_heads, length, tokens)
        except UnitError as error:
            return Candidate(path, kind, default, reason=error.what)
        layout = str(verdict.layout)
        return Candidate(path, kind, default, layout, verdict.spec, cost.described, cost.parameters, cost.flops)

    return Survey(
        model=type(model).__name__,
        adapter=match.adapter.name if match else "",
        modality=match.adapter.modality if match else None,
        parameters=count(model),
        flops=backbone_flops(model, inputs),
        source=source,
        candidates=tuple(candidate(path) for path in paths),
    )
