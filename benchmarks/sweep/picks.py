"""Which models are swept, and how each is built: small, random, offline."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import nn

from benchmarks.sweep import tiny_clip, tiny_hf

__all__ = [
    "FAMILIES",
    "Family",
    "Pick",
    "open_clip_pick",
    "picks",
    "smallest",
    "timm_pick",
    "timm_sizes",
    "transformers_pick",
]

Family = Literal["timm", "transformers", "open_clip"]
LARGE = 20_000_000
FAMILIES: tuple[Family, ...] = get_args(Family)


@dataclass(frozen=True)
class Pick:
    """One model of the sweep."""

    name: str
    family: Family
    build: Callable[[], nn.Module]


def picks(families: Sequence[Family], only: str, cache: Path) -> list[Pick]:
    """All models of some families whose name matches a glob.

    Args:
        families: whose models.
        only: a glob over names, such as `vit*`.
        cache: a folder for what takes minutes to find out once: timm's sizes.
    """
    found = {"timm": lambda: _timm(cache), "transformers": _transformers, "open_clip": _open_clip}
    return [pick for family in families for pick in found[family]() if fnmatchcase(pick.name, only)]


def _timm(cache: Path) -> list[Pick]:
    return [timm_pick(name) for name in smallest(timm_sizes(cache))]


def timm_pick(name: str) -> Pick:
    """One architecture of timm; with four blocks where it is large and takes a depth."""

    def build() -> nn.Module:
        import timm

        create: Callable[..., nn.Module] = timm.create_model
        with torch.device("meta"):
            size = sum(parameter.numel() for parameter in create(name).parameters())
        if size > LARGE:
            with contextlib.suppress(TypeError, AssertionError):  # it has no such option, or means another thing
                return create(name, depth=4)
        return create(name)

    return Pick(name, "timm", build)


def smallest(sizes: dict[str, tuple[str, str, int]]) -> list[str]:
    """Of each module file, class and family of names (`regnet`, `gernet`) the smallest architecture.

    Those that are the smallest of their class, whatever their name, come first: an unfinished sweep has seen them all.

    Args:
        sizes: by name: module file, class, parameters.

    Example:
        >>> from benchmarks.sweep.picks import smallest
        >>> smallest({"vgg11": ("vgg", "VGG", 13), "vgg13": ("vgg", "VGG", 14), "repvgg_a0": ("byobnet", "ByobNet", 9)})
        ['repvgg_a0', 'vgg11']
    """
    by_class: dict[tuple[str, str], str] = {}
    by_name: dict[tuple[str, str, str], str] = {}
    for name in sorted(sizes, key=lambda name: (sizes[name][2], name)):
        file, cls, _ = sizes[name]
        letters = re.match("[a-z]*", name)
        by_class.setdefault((file, cls), name)
        by_name.setdefault((file, cls, letters.group() if letters else ""), name)
    first = sorted(by_class.values())
    return first + sorted(set(by_name.values()) - set(first))


def timm_sizes(cache: Path) -> dict[str, tuple[str, str, int]]:
    """Module file, class and parameters of each of timm's architectures, built on the meta device; kept in a file."""
    import timm
    from timm.models._registry import _model_to_module

    path = cache / f"timm-{timm.__version__}.json"
    if path.exists():
        return {name: (file, cls, size) for name, (file, cls, size) in json.loads(path.read_text()).items()}
    sizes = {}
    for name in timm.list_models():
        with torch.device("meta"):
            model = timm.create_model(name)
        count = sum(parameter.numel() for parameter in model.parameters())
        sizes[name] = (_model_to_module[name], type(model).__qualname__, count)
    cache.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".half")
    half.write_text(json.dumps(sizes))
    half.replace(path)
    return sizes


def _transformers() -> list[Pick]:
    return [transformers_pick(name) for name in tiny_hf.class_names()]


def transformers_pick(name: str) -> Pick:
    """One class of transformers."""
    return Pick(name, "transformers", lambda: tiny_hf.build(name))


def _open_clip() -> list[Pick]:
    return [open_clip_pick(name) for name in tiny_clip.tower_names()]


def open_clip_pick(name: str) -> Pick:
    """One tower of open_clip."""
    return Pick(name, "open_clip", lambda: tiny_clip.build(name))
