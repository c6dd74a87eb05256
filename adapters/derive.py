"""An adapter for a model that has none: what timm and transformers state about their own models, unverified.

A derived adapter has no layout: each site's is inferred from dry runs and its effect is checked, and the sites that
fail are left out of the defaults. So a derived adapter may name too much, but no unit ends up at a wrong place.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from torch import nn

from mi2p_inject.adapters import inputs
from mi2p_inject.adapters.adapter import Adapter, InputMaker, Library, Modality, Readout
from mi2p_inject.adapters.masks import token_mask
from mi2p_inject.core.layout import Axes, Layout

__all__ = ["HEADS", "LAST_HIDDEN", "OUTERMOST_STRIDE", "TOWERS", "base_of", "derive", "layers_of"]

LAST_HIDDEN = Layout(Axes.NLC, element="last_hidden_state")
HEADS: dict[Modality, int] = {"image": 8, "text": 12, "audio": 12, "video": 12}
TOWERS = ("vision_model", "encoder")
"""What stands under a head that names no base, or the pair that its tower comes from."""
OUTERMOST_STRIDE = 2
"""Stages at this stride and below are no default sites where there are others: a channel there has thousands of
numbers, and each unit would project its source to all of them."""


def derive(model: nn.Module) -> Adapter | None:
    """The adapter of one timm or transformers model, or None for any other module.

    timm: the modules that `feature_info` names, else the longest list of equal blocks. transformers: the layers, of
    an encoder-decoder those of its encoder.

    Args:
        model: a bare model, no head on it (`base_of`); what a module wraps is not looked at.

    Examples:
        >>> import timm
        >>> from mi2p_inject.adapters.derive import derive
        >>> adapter = derive(timm.create_model("regnetx_002"))
        >>> adapter.sites, adapter.layout is None
        (('s1', 's2', 's3', 's4'), True)
    """
    if _library(model, "timm.models") and hasattr(model, "pretrained_cfg"):
        call = "forward_features" if hasattr(model, "forward_features") else "forward"
        return _adapter(
            model, "timm", "image", _stages(model) or layers_of(model), Readout(None, call), inputs.timm_image
        )
    if not _library(model, "transformers") or not hasattr(model, "main_input_name"):
        return None
    modality, root = _modality(model), _encoder_of(model)
    layers = _wrapped(model) or [f"{root}.{path}" if root else path for path in layers_of(model.get_submodule(root))]
    if modality in ("text", "audio"):  # (batch, length, width), says transformers
        readout = Readout(LAST_HIDDEN, root=root, mask=token_mask)
    else:
        readout = Readout(None, mask=token_mask)
    return _adapter(model, "transformers", modality, layers, readout, inputs.hf_any)


def _encoder_of(model: nn.Module) -> str:
    """Where the encoder of an encoder-decoder stands, "" for any other model: it is what reads the input."""
    if not getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        return ""
    return "encoder" if isinstance(getattr(model, "encoder", None), nn.Module) else ""


def base_of(model: nn.Module) -> tuple[nn.Module, str]:
    """The model that a transformers head stands on and its path in the headed one; any other module itself, ""."""
    if not _library(model, "transformers"):
        return model, ""
    base, config = getattr(model, "base_model", model), getattr(model, "config", None)
    if base is model and "For" in type(model).__name__ and not getattr(config, "is_encoder_decoder", False):
        base = next((model.get_submodule(name) for name in TOWERS if hasattr(model, name)), model)
    if getattr(base, "main_input_name", "") not in inspect.signature(base.forward).parameters:
        base = model  # an inner part that does not read the input
    at = next((path for path, module in model.named_modules() if module is base), None)
    return (model, "") if at is None else (base, at)


def layers_of(model: nn.Module) -> list[str]:
    """The paths of a model's repeated layers: the members of its largest list of modules (by parameters).

    Lists are `ModuleList`s, and `Sequential`s of one class. Of nested lists the outermost counts; a member that is
    itself a bare list never runs as a module, and its last member stands for it.

    Examples:
        >>> from torch import nn
        >>> from mi2p_inject.adapters.derive import layers_of
        >>> layers_of(nn.ModuleDict({"head": nn.Linear(2, 2), "stem": nn.ModuleList([nn.Linear(2, 2) for _ in "ab"])}))
        ['stem.0', 'stem.1']
    """
    lists = [(sum(p.numel() for p in found.parameters()), path, found) for path, found in _outermost_lists(model, "")]
    if not lists:
        return []
    _, path, largest = max(lists, key=lambda one: one[0])
    return [_running(child, f"{path}.{name}") for name, child in largest.named_children()]


def _outermost_lists(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        inner = f"{path}.{name}" if path else name
        children = list(child.children())
        alike = isinstance(child, nn.Sequential) and len(children) > 1 and len({type(one) for one in children}) == 1
        if alike or (isinstance(child, nn.ModuleList) and children):
            yield inner, child
        else:
            yield from _outermost_lists(child, inner)


def _running(module: nn.Module, path: str) -> str:
    while isinstance(module, nn.ModuleList) and len(module):
        path, module = f"{path}.{len(module) - 1}", module[len(module) - 1]
    return path


def _stages(model: nn.Module) -> list[str]:
    """What a timm model's `feature_info` names, where all of it exists and runs."""
    info: Any = getattr(model, "feature_info", None) or []
    entries: list[Any] = list(getattr(info, "info", info))
    modules = dict(model.named_modules())
    deep = [one for one in entries if one.get("reduction", 0) > OUTERMOST_STRIDE] or entries
    found = [_running_name(one.get("module") or "", modules) for one in deep]
    return list(dict.fromkeys(found)) if all(found) else []


def _running_name(path: str, modules: dict[str, nn.Module]) -> str:
    """Where the module of that name stands in a timm model or its ``features_only=True`` wrapper; "": nowhere."""
    names = (path, f"model.{path}", f"body.{path}", path.replace(".", "_"))
    return next(
        (name for name in names if name and not isinstance(modules.get(name, nn.ModuleList()), nn.ModuleList)), ""
    )


def _wrapped(model: nn.Module) -> list[str]:
    """The stages of the timm model that a model of transformers wraps."""
    inside = next(((name, child) for name, child in model.named_children() if _library(child, "timm.models")), None)
    if inside is None:
        return []
    name, child = inside
    return [f"{name}.{path}" for path in _stages(child) or layers_of(child)]


def _adapter(
    base: nn.Module, library: Library, modality: Modality, sites: list[str], readout: Readout, maker: InputMaker
) -> Adapter:
    cls = type(base)
    return Adapter(
        name=cls.__name__,
        library=library,
        modality=modality,
        classes=(f"{cls.__module__}.{cls.__qualname__}",),
        sites=tuple(sites) if sites else lambda _: [],  # a model of one piece has none
        layout=None,
        readout=readout,
        inputs=maker,
        num_heads=HEADS[modality],
    )


def _modality(model: nn.Module) -> Modality:
    first = inputs.main_input(model)
    if first == "pixel_values_videos":
        return "video"
    if first == "pixel_values":
        return "image"
    return "audio" if first in ("input_values", "input_features") else "text"


def _library(model: nn.Module, name: str) -> bool:
    return any(cls.__module__.startswith(name + ".") for cls in type(model).__mro__)
