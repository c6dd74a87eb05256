"""The units of an expanded model, each where its site computes and in the backbone's floating type."""

from __future__ import annotations

import torch
from torch import nn

from mi2p_inject.core.errors import SiteError
from mi2p_inject.core.expansion_config import ExpansionConfig
from mi2p_inject.core.numerics.precision import floating_dtype
from mi2p_inject.core.weights.offload import computing_device, computing_devices
from mi2p_inject.units.base import check_unit
from mi2p_inject.units.unit_dict import UnitDict

__all__ = ["build_units"]


@torch.inference_mode(False)  # parameters made there could not be trained
def build_units(backbone: nn.Module, config: ExpansionConfig) -> UnitDict:
    """A unit for each source at each of its sites, by its place's key.

    Args:
        backbone: on the meta device its units are there too; one that accelerate offloads or spreads over several
            devices has each unit where the site computes.
        config: sites, sources and kinds of units.

    Raises:
        SiteError: a device map spreads one site over several devices.
        UnitError: a kind builds something that is no unit.
    """
    units = UnitDict()
    dtype = floating_dtype(backbone)
    for place in config.places:
        _check_whole(backbone, place.site.path)
        device = computing_device(backbone, place.site.path)
        with torch.device("meta" if device.type == "meta" else "cpu"):  # nothing is allocated beside a meta backbone
            unit = config.build(place)
        check_unit(unit, config.sources[place.source].unit, place.site.path)
        units[place.key] = unit.to(device, dtype)
    return units


def _check_whole(backbone: nn.Module, path: str) -> None:
    devices = computing_devices(backbone, path)
    if len(devices) > 1:
        kind = type(backbone.get_submodule(path)).__name__
        raise SiteError(
            "a device map spreads this site over several devices, so its unit has no place",
            path=path,
            expected="one device for all of the site",
            given=", ".join(map(str, devices)),
            fix=f"infer_auto_device_map(..., no_split_module_classes=[{kind!r}]), or choose sites inside it",
        )
