"""Where a model computes: weights that accelerate keeps elsewhere (`cpu_offload`, `device_map`) are meta tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["FORWARD", "HOOK", "OLD_FORWARD", "computing_device", "offloaded"]

HOOK, OLD_FORWARD, FORWARD = "_hf_hook", "_old_forward", "forward"
"""What accelerate puts into a module: its hook, the module's forward, and one of its own in the place of that."""


def offloaded(model: nn.Module) -> bool:
    """Whether accelerate brings this model's weights when they are needed."""
    return any(HOOK in vars(module) for module in model.modules())


def computing_device(model: nn.Module, path: str = "") -> torch.device:
    """The device on which a module of the model computes.

    That of the module's weights, or the one that accelerate brings them to; of a module without weights, that of the
    nearest module around it that has any. The meta device only for a model that has no weights anywhere.
    """
    names = path.split(".") if path else []
    around = [model.get_submodule(".".join(names[:length])) for length in range(len(names), -1, -1)]
    for module in around:
        hooked = [_hook_device(one) for one in module.modules()]
        held = [tensor.device for tensor in module.parameters() if not tensor.is_meta]
        for device in (*hooked, *held):
            if device is not None:
                return device
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _hook_device(module: nn.Module) -> torch.device | None:
    hook: Any = vars(module).get(HOOK)
    devices = [getattr(one, "execution_device", None) for one in getattr(hook, "hooks", (hook,))]
    return next((torch.device(device) for device in devices if device is not None), None)
