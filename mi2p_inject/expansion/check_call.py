"""Before and after a call: one without a source, and one in which a site did not fire."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mi2p_inject.core.errors import InjectionError, SiteError, SourceError
from mi2p_inject.core.expansion_config import ExpansionConfig
from mi2p_inject.core.inputs import Inputs
from mi2p_inject.core.layout import image_of
from mi2p_inject.core.site import Site
from mi2p_inject.core.weights.sharded import is_sharded, sharded_apart
from mi2p_inject.expansion.call import Call, Calls, backward_pass
from mi2p_inject.expansion.hook import hooked_paths
from mi2p_inject.inspection.switches import checkpointed
from mi2p_inject.sources.features import SourceFeatures
from mi2p_inject.sources.prepared import PreparedSource
from mi2p_inject.units.unit_dict import UnitDict

__all__ = [
    "call_without_source",
    "check_device",
    "check_fired",
    "check_rows",
    "check_without_source",
    "common_batch",
    "noting_images",
    "rows_of_guidance",
    "trains_with_others",
    "units_of",
]

COMPUTED = ("encoder_outputs", "inputs_embeds", "decoder_inputs_embeds", "past_key_values")
"""Arguments of transformers that stand for what modules would compute."""


class _Expanded(Protocol):
    """What is read of an expanded model here."""

    training: bool
    backbone: nn.Module
    units: UnitDict
    expansion_config: ExpansionConfig

    @property
    def device(self) -> torch.device: ...

    @property
    def sites(self) -> tuple[Site, ...]: ...


def check_without_source(outer: Call | None) -> None:
    """Refuse a call without a source in a block that has one.

    Raises:
        SourceError: it is such a call.
    """
    if outer is not None and outer.block and not outer.is_outside():
        raise SourceError(
            "me(...) without a source inside `with me.source(...)`: the block's source is for me.backbone",
            expected="source=, or a call of me.backbone",
            given="source=None",
            fix="pass source=features, call me.backbone(...), or say `with me.disabled():` for the backbone alone",
        )


def check_device(model: _Expanded, features: SourceFeatures) -> None:
    """Refuse features on another device than the units, where these are all on one.

    Raises:
        SourceError: they are.
    """
    if features.data.device == model.device:  # in every forward: the units are not gone through
        return
    if len({parameter.device for parameter in model.units.parameters()}) == 1:
        fix = "move them: source=features.to(device), or the batch before encoding"
        if model.device.type == "meta":
            fix = "units are small and stay where they are: offload me.backbone, or give a meta model weights first"
        raise SourceError(
            "the source features are on another device than the units",
            expected=str(model.device),
            given=str(features.data.device),
            fix=fix,
        )


def common_batch(sources: Mapping[str, PreparedSource]) -> int:
    """The rows that each source of a call has; 0 without any.

    Raises:
        SourceError: one has more or fewer than the first.
    """
    batches = [one.batch for one in sources.values()]
    rows = batches[0] if batches else 0  # torch 2.6 compiles no `next` with a default
    for name, one in sources.items():
        if one.batch != rows:
            raise SourceError(
                "the sources have different batches",
                expected=f"{rows} rows of each, as the first one has",
                given=f"{one.batch} of {name}",
                fix="pass one row per sample; mark missing ones in source_mask",
            )
    return rows


def units_of(model: _Expanded) -> UnitDict:
    """The units in use, one for each source at each of its sites.

    Raises:
        InjectionError: somebody has taken some out, added one where there is no site, or put something else there; they
            are sharded as a whole; or this is a copy that `torch.nn.DataParallel` made.
    """
    if getattr(model, "_is_replica", False):
        raise InjectionError(
            "torch.nn.DataParallel has copied this model, and its copies have neither parameters nor source encoders",
            expected="one process a device",
            given="a copy in a thread, as DataParallel (and a Trainer that sees several devices) makes them",
            fix="start it with torchrun or accelerate launch, or let it see one device (CUDA_VISIBLE_DEVICES=0)",
        )
    if is_sharded(model.units):
        raise sharded_apart("", "me.units, which no forward calls, so that nothing gathers its weights")
    places = model.expansion_config.places
    keys = [place.key for place in places]
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
        path=next((place.site.path for place in places if place.key in missing), ""),
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


def rows_of_guidance(backbone: nn.Module, given: Mapping[str, Any]) -> int:
    """How many rows of each sample a generation runs that is guided: twice the usual ones; 0 without guidance.

    Args:
        backbone: a model of transformers, with its own generation_config.
        given: the keyword arguments of `generate`.
    """
    config = given.get("generation_config") or getattr(backbone, "generation_config", None)
    scale, beams, samples = (
        given.get(name, getattr(config, name, None)) or 1
        for name in ("guidance_scale", "num_beams", "num_return_sequences")
    )
    return 2 * max(beams, samples) if scale > 1 else 0


def call_without_source(model: _Expanded) -> Call | None:
    """None, but for two cases in which there is a call, of no sources.

    In distributed training the units take part in the graph: DistributedDataParallel waits for a gradient of every
    parameter in every step, and zero is what a missing source gives. In a backward pass, where a checkpointed
    region that holds several forwards of the model is recomputed, this one is told from those with a source.
    """
    takes_part = trains_with_others(model)
    return Call({}, units_of(model), once=False, takes_part=takes_part) if takes_part or backward_pass() != -1 else None


def trains_with_others(model: _Expanded) -> bool:
    """Whether this is a step of distributed training."""
    return model.training and torch.is_grad_enabled() and dist.is_available() and dist.is_initialized()


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
    if path not in hooked_paths(backbone):
        return (
            "the module was taken out of the model, copied or replaced after injection: me.eject() before the model "
            "is changed, and inject again"
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


def check_rows(args: tuple[Any, ...], kwargs: Mapping[str, Any], batch: int) -> None:
    """Refuse a method's inputs of more samples than there are sources, though each source could be repeated for them.

    Inside the method a backbone may repeat its rows, as beams do; what it is given has one row a source.

    Raises:
        SourceError: the first tensor has a multiple of the sources' rows.
    """
    given = [len(one) for one in (*args, *kwargs.values()) if isinstance(one, Tensor) and one.dim() > 1]
    rows = given[0] if given else batch
    if batch and rows > batch and rows % batch == 0:
        raise SourceError(
            "source and backbone have different batches",
            expected=f"{rows} rows of source features",
            given=f"{batch}",
            fix="pass one source per sample; mark missing ones in source_mask",
        )


@contextmanager
def noting_images(backbone: nn.Module, calls: Calls, call: Call, example: Inputs) -> Iterator[None]:
    """A block in which a call knows the image that went last into the backbone, whichever of its methods took it.

    The backbone itself is watched, and its first convolution of as many channels as the example's image has:
    `forward_features` runs no other hook before a site. A backbone that generates runs itself with the rows of its
    beams; any other has one row a source.

    Raises:
        SourceError: as `check_rows`.
    """
    batch, generates = common_batch(call.sources), hasattr(backbone, "generate")

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # not in another thread, in a call that has a source of its own, or in a backward pass, which recomputes others
        if calls.now.call is call and not call.is_outside():
            call.image = image_of(args, kwargs)
            if module is backbone and not generates:
                check_rows(args, kwargs, batch)

    channels = {
        one.shape[1] for one in (*example[0], *example[1].values()) if isinstance(one, Tensor) and one.dim() == 4
    }
    stems = (one for one in backbone.modules() if isinstance(one, nn.Conv2d) and one.in_channels in channels)
    watched = [backbone, *itertools.islice(stems, 1)]
    handles = [module.register_forward_pre_hook(note, with_kwargs=True) for module in watched]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
