"""What a default decided when a run was trained, read off its weights: defaults may be others today."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError, safe_open

from mi2p_inject.recipes.config import Config

__all__ = ["as_trained"]


def as_trained(config: Config, weights: Path) -> Config:
    """The configuration whose model has the very tensors of a run.

    Args:
        config: of the run.
        weights: model.safetensors of it.
    """
    if config.model.branch_loss is not None:
        return config
    try:
        with safe_open(weights, "pt") as file:
            names = list(file.keys())
    except (OSError, SafetensorError):  # whoever loads them says so
        return config
    own_heads = any(name.startswith("own_heads.") for name in names)
    return replace(config, model=replace(config.model, branch_loss=own_heads))
