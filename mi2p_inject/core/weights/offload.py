"""Where a model computes: weights that accelerate keeps elsewhere (`cpu_offload`, `device_map`) are meta tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mi2p_inject.core.weights.four_bits import state_without_scales

__all__ = [
    "FORWARD",
    "HOOK",
    "OLD_FORWARD",
    "OffloadedTensor",
    "computing_device",
    "computing_devices",
    "offloaded",
    "state_of",
]

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


def computing_devices(model: nn.Module, path: str = "") -> list[torch.device]:
    """Every device that accelerate computes a module's parts on, in the order of the parts; [] without its hooks."""
    found = [_hook_device(one) for one in model.get_submodule(path).modules() if _holds(one)]
    return list(dict.fromkeys(device for device in found if device is not None))


@dataclass(frozen=True)
class OffloadedTensor:
    """A tensor that accelerate keeps elsewhere, read when it is asked for: all of a model's need not fit in memory.

    Attributes:
        kept: accelerate's tensors by name, in memory or in files.
        name: of this one.
        meta: what stands in the model in its place.
    """

    kept: Mapping[str, Tensor]
    name: str
    meta: Tensor

    @property
    def shape(self) -> torch.Size:
        """Its shape."""
        return self.meta.shape

    @property
    def dtype(self) -> torch.dtype:
        """Its type."""
        return self.meta.dtype

    def read(self) -> Tensor:
        """The tensor itself."""
        return self.kept[self.name]


def state_of(model: nn.Module) -> dict[str, Any]:
    """A model's `state_dict()` as what identifies its values.

    An `OffloadedTensor` stands for each meta tensor that accelerate keeps elsewhere. Scales of weights in 4 bits, which
    bitsandbytes rounds as it runs, are left out.
    """
    state = state_without_scales(model)
    if not offloaded(model):
        return state
    kept = {path: one for path, module in model.named_modules() for one in _kept(module)}
    for key, value in state.items():
        if isinstance(value, Tensor) and value.is_meta:
            parts = key.split(".")
            for length in range(len(parts) - 1, -1, -1):  # the hook nearest to the tensor brings it
                if (here := kept.get(".".join(parts[:length]))) is not None:
                    state[key] = OffloadedTensor(here, ".".join(parts[length:]), value)
                    break
    return state


def _holds(module: nn.Module) -> bool:
    """Whether a module has parameters or buffers of its own."""
    return any(one is not None for one in (*module._parameters.values(), *module._buffers.values()))


def _hooks(module: nn.Module) -> tuple[Any, ...]:
    hook: Any = vars(module).get(HOOK)
    return tuple(getattr(hook, "hooks", (hook,)))


def _hook_device(module: nn.Module) -> torch.device | None:
    devices = [getattr(one, "execution_device", None) for one in _hooks(module)]
    return next((torch.device(device) for device in devices if device is not None), None)


def _kept(module: nn.Module) -> list[Mapping[str, Tensor]]:
    found = [getattr(one, "weights_map", None) for one in _hooks(module)]
    return [one for one in found if one is not None]
