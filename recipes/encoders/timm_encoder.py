"""Image encoders of timm: by name, from a folder or the hub, and again from a run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.core.model_folder import (
    check_buildable,
    checked_architecture,
    checked_folder,
    checked_kwargs,
    hub_folder,
)
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.encoders.preprocess import ImageSpec
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["load_timm", "rebuild_timm"]


def load_timm(identifier: str, modality: Modality, pretrained: bool, image_size: int | None) -> Encoder:
    """A timm architecture by name, or the model in a folder or hub repository.

    Args:
        identifier: what `mi2p_inject.core.zoo.resolve` gives.
        modality: "image".
        pretrained: load its weights.
        image_size: side in pixels; None: its own.
    """
    import timm

    if Path(identifier).is_dir() or not timm.is_model(identifier):
        folder = Path(identifier) if Path(identifier).is_dir() else hub_folder(identifier, weights=pretrained)
        with checked_folder(folder, "timm", weights=pretrained) as staged:
            return _from_folder(staged, modality, pretrained, image_size)
    kwargs = {"img_size": image_size} if image_size and _takes_size(identifier) else {}
    model: Any = timm.create_model(identifier, pretrained=pretrained, num_classes=0, **kwargs)
    architecture = model.pretrained_cfg.get("architecture", identifier)
    return _encoder(model, modality, architecture, kwargs, pretrained, image_size)


def _from_folder(staged: Path, modality: Modality, pretrained: bool, image_size: int | None) -> Encoder:
    import timm

    config = json.loads((staged / "config.json").read_text(encoding="utf-8"))
    name, kwargs = config["architecture"], dict(config["model_args"])
    if image_size and _takes_size(name):
        kwargs["img_size"] = image_size
    source = f"local-dir:{staged}"
    check_buildable(lambda: timm.create_model(source, pretrained=False, **kwargs), staged)
    model: Any = timm.create_model(source, pretrained=False, num_classes=0, **kwargs)
    if pretrained:
        # With its own classifier timm compares every tensor; without, it leaves out what does not fit and says nothing.
        whole = timm.create_model(source, pretrained=True, **kwargs).state_dict()
        model.load_state_dict({key: whole[key] for key in model.state_dict() if key in whole})
    for key in ("file", "source"):
        model.pretrained_cfg.pop(key, None)
    return _encoder(model, modality, name, kwargs, pretrained, image_size)


def _encoder(
    model: Any, modality: Modality, architecture: str, kwargs: dict[str, Any], pretrained: bool, image_size: int | None
) -> Encoder:
    from timm.data import resolve_model_data_config

    data = resolve_model_data_config(model)
    size = (image_size, image_size) if image_size else tuple(data["input_size"][1:])
    spec = ImageSpec(
        size, tuple(data["mean"]), tuple(data["std"]), data["interpolation"], data["crop_pct"], data["crop_mode"]
    )
    origin = {"library": "timm", "name": architecture, "kwargs": kwargs}
    return Encoder(model, modality, spec, origin, random=not pretrained)


def _takes_size(architecture: str) -> bool:
    """Whether a timm architecture has a fixed image size that can be set."""
    import timm

    with torch.device("meta"):
        model = timm.create_model(architecture, pretrained=False)
    return getattr(getattr(model, "patch_embed", None), "img_size", None) is not None


def rebuild_timm(origin: dict[str, Any], staged: Path, device: str) -> nn.Module:
    """The model that an origin describes, with random weights.

    Args:
        origin: from a run folder; checked here.
        staged: unused.
        device: where to build it.

    Raises:
        ZooError: an unknown architecture or argument.
        RecipeError: a field is missing.
    """
    import timm

    if "kwargs" not in origin:
        raise RecipeError("the description of the encoder has no kwargs", fix="copy the run folder again")
    kwargs = checked_kwargs(origin["kwargs"], "encoder.json: kwargs")
    with torch.device(device):
        model: nn.Module = timm.create_model(
            checked_architecture(origin["name"]), pretrained=False, num_classes=0, **kwargs
        )
    return model
