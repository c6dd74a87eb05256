"""Before and after a call: one without a source, and one in which a site did not fire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mi2p_inject.core.errors import InjectionError, SiteError, SourceError
from mi2p_inject.core.site import Site
from mi2p_inject.expansion.call import Call
from mi2p_inject.inspection.switches import checkpointed
from mi2p_inject.units.unit_dict import UnitDict

__all__ = ["call_without_source", "check_fired", "check_without_source", "units_of"]

COMPUTED = ("encoder_outputs", "inputs_embeds", "decoder_inputs_embeds", "past_key_values")
"""Arguments of transformers that stand for what modules would compute."""


class _Expanded(Protocol):
    """What is read of an expanded model here."""

    training: bool
    backbone: nn.Module
    units: UnitDict

    @property
    def sites(self) -> tuple[Site, ...]: ...


def check_without_source(source_mask: Tensor | None, outer: Call | None) -> None:
    """Refuse a mask without a source, and a call without a source in a block that has one.

    Raises:
        SourceError: either.
    """
    if source_mask is not None:
        raise SourceError(
            "source_mask without a source", expected="both or neither", given="source=None", fix="pass source="
        )
    if outer is not None and outer.block:
        raise SourceError(
            "me(...) without a source inside `with me.source(...)`: the block's source is for me.backbone",
            expected="source=, or a call of me.backbone",
            given="source=None",
            fix="pass source=features, call me.backbone(...), or say `with me.disabled():` for the backbone alone",
        )


def units_of(model: _Expanded) -> UnitDict:
    """The units in use, one for each site.

    Raises:
        InjectionError: somebody has taken some out, added one where there is no site, or put something else there.
    """
    keys = [site.key for site in model.sites]
    in_use = getattr(model.units, "in_use", None)
    units = in_use() if in_use is not None else UnitDict()
    if len(units) == len(keys) and all(key in units for key in keys):
        for key in keys:
            if not hasattr(units._modules[key], "site"):
                raise _no_unit(key, units._modules[key])
        return units
    missing, added = [key for key in keys if key not in units], [key for key in units if key not in keys]
    raise InjectionError(
        "me.units are not those of the sites",
        path=next((site.path for site in model.sites if site.key in missing), ""),
        expected=", ".join(keys),
        given=f"{type(model.units).__name__}; missing: {', '.join(missing)}; added: {', '.join(added)}",
        fix="put another unit in a unit's place (me.units[key] = unit), or inject again with the sites you want",
    )


def _no_unit(key: str, given: object) -> InjectionError:
    return InjectionError(
        f"me.units[{key!r}] is no unit",
        path=key,
        expected="a unit, as `MI2P().build(site, source)` gives one",
        given=type(given).__name__,
        fix="put a unit there; a unit inside another module must keep its attributes, as torch.compile's wrapper does",
    )


def call_without_source(model: _Expanded) -> Call | None:
    """None; in distributed training a call in which the units only take part in the graph.

    DistributedDataParallel waits for a gradient of every parameter in every step: zero is what a missing source gives.
    """
    trains = model.training and torch.is_grad_enabled() and dist.is_available() and dist.is_initialized()
    return Call(None, units_of(model), once=False) if trains else None


def check_fired(model: _Expanded, call: Call, given: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Contract 3 at run time: hooks that something has silently disabled are found out at the first forward.

    Args:
        model: the expanded model.
        call: what has run.
        given: the keyword arguments that it was called with.

    Raises:
        SiteError: a site did not fire.
    """
    missing = [site.path for site in model.sites if site.path not in call.fired]
    if not missing or (model.training and _drops_layers(model.backbone)):
        return
    computed = [name for name in COMPUTED if given.get(name) is not None]
    raise SiteError(
        "did not fire in this forward, so its unit had no effect",
        path=missing[0],
        expected=f"all {len(model.sites)} sites",
        given=f"{len(call.fired)} fired; not {', '.join(missing)}",
        fix=_why(model.backbone, missing[0], call.once, computed),
    )


def _why(backbone: nn.Module, path: str, once: bool, computed: Sequence[str]) -> str:
    if computed:
        return (
            f"{' and '.join(computed)} came ready-made, so the modules that compute it did not run: leave it out "
            "(me.call runs them with the source), or choose sites that run nevertheless"
        )
    if any(not on or path == on or path.startswith(f"{on}.") for on in checkpointed(backbone)):
        return "gradient checkpointing runs other modules in its place: switch that off, or choose modules inside"
    if not once:
        return "run a method that runs this module, or choose sites among the modules that it runs"
    return "if the backbone was compiled after injection compile the expanded model instead; else choose another module"


def _drops_layers(backbone: nn.Module) -> bool:
    configs = [getattr(module, "config", None) for module in backbone.modules()]
    names = ("layerdrop", "encoder_layerdrop", "decoder_layerdrop")
    return any(getattr(config, name, 0) for config in configs for name in names)
