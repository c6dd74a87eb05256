"""The units of an expanded model, each where its site computes and in the backbone's floating type."""

from __future__ import annotations

import torch
from torch import nn

from mi2p_inject.core.expansion_config import ExpansionConfig
from mi2p_inject.core.offload import computing_device
from mi2p_inject.units.unit_dict import UnitDict

__all__ = ["build_units"]


def build_units(backbone: nn.Module, config: ExpansionConfig) -> UnitDict:
    """A unit for each site, by the site's key.

    Args:
        backbone: on the meta device its units are there too; one that accelerate offloads or spreads over several
            devices has each unit where the site computes.
        config: sites and kind of unit.
    """
    units = UnitDict()
    floating = (parameter.dtype for parameter in backbone.parameters())
    dtype = _floating(next(floating, torch.float32))
    for site in config.sites:
        device = computing_device(backbone, site.path)
        with torch.device("meta" if device.type == "meta" else "cpu"):  # nothing is allocated beside a meta backbone
            unit = config.unit.build(site.spec, config.source, config.num_heads)
        units[site.key] = unit.to(device, dtype)
    return units


def _floating(dtype: torch.dtype) -> torch.dtype:
    """The units' type for a backbone's: its own floating type, float32 for a quantised one."""
    return dtype if dtype.is_floating_point and dtype.itemsize >= 2 else torch.float32
