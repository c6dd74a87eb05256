"""Gradient checkpointing as a model's own switch says: timm, transformers and open_clip keep it in a flag."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["checkpointed", "checkpointing_off"]

FLAGS = ("grad_checkpointing", "gradient_checkpointing")


def checkpointed(model: nn.Module) -> list[str]:
    """Paths of the modules whose own switch for gradient checkpointing is on; "" is the model itself.

    Examples:
        >>> import timm
        >>> from mi2p_inject.inspection.switches import checkpointed
        >>> model = timm.create_model("resnet10t")
        >>> checkpointed(model)
        []
        >>> model.set_grad_checkpointing()
        >>> checkpointed(model)
        ['']
    """
    return [path for path, module in model.named_modules() if any(vars(module).get(flag) is True for flag in FLAGS)]


def checkpointing_off(model: nn.Module) -> None:
    """Turn these flags off, as plain attributes: for a copy of somebody's model, or one whose attributes come back."""
    for module in model.modules():
        for flag in FLAGS:
            if vars(module).get(flag) is True:
                setattr(module, flag, False)
        wraps = "_checkpoint_wrapped_module" in module._modules  # torch's CheckpointWrapper
        if wraps and "checkpoint_fn" in vars(module):
            module.checkpoint_fn = _run  # type: ignore[assignment]


def _run(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return module(*args, **kwargs)
