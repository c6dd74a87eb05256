"""One model, resolved once: its adapter, example inputs and default sites. Made by `resolve`, then passed on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mi2p_inject.adapters.adapter import DEFAULT_NUM_HEADS
from mi2p_inject.adapters.find import Match, find, only_carries
from mi2p_inject.core.errors import AdapterError, LayoutError, ProbeError
from mi2p_inject.core.inputs import Inputs, as_inputs
from mi2p_inject.core.layout import Layout
from mi2p_inject.inspection.infer import ASK
from mi2p_inject.inspection.patch_effect import Reads
from mi2p_inject.inspection.select import glob_paths
from mi2p_inject.inspection.vary_inputs import image_size, patch_sizes

__all__ = ["ResolvedModel", "resolve"]

CHOICES = "ForMultipleChoice"
"""transformers' classes that take ids (B, choices, L) and run their encoder on (B * choices, L)."""


@dataclass(frozen=True)
class ResolvedModel:
    """A model with everything that is looked up about it before its first dry run.

    Attributes:
        model: the model; it is not touched.
        match: its adapter and where in the model that architecture stands; None: no adapter matches.
        inputs: (args, kwargs) of an example call; ((), {}) where none were required and none are known.
        reads: what is read of its output; None: all of it.
        holds: where an encoder with an adapter stands in a source whose own forward counts; "": nowhere.
    """

    model: nn.Module
    match: Match | None
    inputs: Inputs
    reads: Reads | None = None
    holds: str = ""

    @property
    def inner(self) -> nn.Module:
        """The module that the adapter matches: the encoder inside a headed model, or the model itself."""
        return self.model.get_submodule(self.match.root) if self.match else self.model

    @property
    def num_heads(self) -> int:
        """Attention heads of a unit by default."""
        return self.match.adapter.num_heads if self.match else DEFAULT_NUM_HEADS

    @cached_property
    def default_paths(self) -> tuple[str, ...]:
        """The adapter's default sites, in firing order; none without an adapter."""
        if self.match is None:
            return ()
        paths = [path for path, _ in self.model.named_modules()]
        patterns: Sequence[str] = self.match.site_patterns(self.model)
        return tuple(path for pattern in patterns for path in glob_paths(pattern, paths))

    @cached_property
    def patch_sizes(self) -> list[tuple[int, int]]:
        """Of patches that are not square; none where they are."""
        return patch_sizes(self.inner)

    @property
    def verified_paths(self) -> frozenset[str]:
        """Paths whose layout and effect the adapter guarantees; a derived adapter guarantees none."""
        known = self.match is not None and self.match.adapter.layout is not None
        return frozenset(self.default_paths) if known else frozenset()

    def with_patches(self, layout: Layout, output: Any, path: str) -> Layout:
        """The layout with this model's prefix tokens and patch grid, as seen in one output.

        Args:
            layout: an adapter's layout, of a site or of the readout.
            output: what the module at `path` returned on `inputs`.
            path: for error messages.

        Raises:
            LayoutError: the tokens after the prefix form no grid.
        """
        prefix = self.match.adapter.prefix_tokens(self.inner) if self.match else None
        if prefix is not None and not layout.axes.is_spatial:
            length = int(layout.as_tokens().view(output, path).shape[1])
            grid = _patch_grid(length - prefix, image_size(self.inputs), self.patch_sizes, path)
            layout = replace(layout, prefix=prefix, grid=grid)
        return self.at_image(layout)

    def at_image(self, layout: Layout) -> Layout:
        """The layout, with the image size at which its patch grid was seen."""
        return replace(layout, image=image_size(self.inputs)) if layout.grid and layout.image is None else layout


def resolve(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    name: str = "example_inputs",
    required: bool = True,
    ambiguous: bool = False,
    as_source: bool = False,
) -> ResolvedModel:
    """Find a model's adapter and example inputs.

    Args:
        model: any module; it is not touched.
        example_inputs: a tensor, a tuple of arguments or a mapping; None: the adapter's.
        name: what the caller calls `example_inputs`, for error messages.
        required: without example inputs, raise instead of leaving them empty.
        ambiguous: accept a model that holds several encoders: no adapter matches then.
        as_source: the adapter's readout may stand on a part of the model (the encoder of an encoder-decoder); and no
            adapter matches a wrapper whose forward does something of its own to what the encoder inside takes or gives.

    Raises:
        AdapterError: the model holds several encoders and `ambiguous` is False.
        ProbeError: no example inputs are known and they are required.

    Examples:
        >>> import timm
        >>> from mi2p_inject.inspection.resolve import resolve
        >>> resolve(timm.create_model("resnet10t")).default_paths
        ('layer1', 'layer2', 'layer3', 'layer4')
    """
    try:
        match = find(model)
    except AdapterError:
        if not ambiguous:
            raise
        match = None
    wrapped = as_source and match is not None and not only_carries(model, match.root)
    if as_source and not wrapped and match is not None and match.adapter.readout.root:
        match = Match(match.adapter, match.path(match.adapter.readout.root))
    inputs = _example_inputs(model, match, example_inputs, name, required)
    if wrapped and match is not None:
        return ResolvedModel(model, None, inputs, holds=match.root)
    return ResolvedModel(model, match, inputs)


def _example_inputs(model: nn.Module, match: Match | None, example_inputs: Any, name: str, required: bool) -> Inputs:
    """The caller's example inputs, else the adapter's in the model's own floating dtype."""
    if example_inputs is not None:
        return as_inputs(example_inputs)
    if match is None:
        if not required:
            return (), {}
        raise ProbeError(
            f"no adapter matches {type(model).__name__}, so the dry run has no inputs",
            expected=f"{name}= as you would call the model",
            given="none",
            fix=f"inject(..., {name}=torch.zeros(2, 3, 224, 224)), or a mapping of keyword arguments",
        )
    floats = (parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    dtype = next((found for found in floats if found.itemsize >= 2), torch.float32)
    try:
        example = match.adapter.inputs(model.get_submodule(match.root))
    except Exception as error:  # what an adapter reads of the model is not there
        raise ProbeError(
            f"no example inputs can be made for {type(model).__name__}: {type(error).__name__}: {error}",
            expected=f"{name}= as you would call the model",
            given="none",
            fix=f"pass {name}=",
        ) from error
    choices = type(model).__name__.endswith(CHOICES)

    def fit(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            return tensor.to(dtype)
        return tensor.unsqueeze(1) if choices and tensor.dim() == 2 else tensor

    made: Inputs = pytree.tree_map_only(Tensor, fit, example)
    return made


def _patch_grid(
    patches: int, image: tuple[int, int] | None, sizes: list[tuple[int, int]], path: str
) -> tuple[int, int]:
    """The grid of an image's patches: of its proportions, or as the patches' sizes say where they are not square.

    Raises:
        LayoutError: no such grid.
    """
    height, width = image or (1, 1)
    rows = round(math.sqrt(patches * height / width)) if patches > 0 else 0
    found = (
        [(rows, patches // max(1, rows))] if not sizes else [(height // high, width // wide) for high, wide in sizes]
    )
    for grid in found:
        in_proportion = bool(sizes) or abs(grid[0] * width - grid[1] * height) < max(height, width)
        if min(grid) > 0 and grid[0] * grid[1] == patches and in_proportion:
            return grid
    raise LayoutError(
        "the tokens after the prefix form no grid of the image's proportions",
        path=path,
        expected=f"a grid like {height}x{width}",
        given=f"{patches} tokens after the prefix",
        fix=f"view it as tokens (view='tokens'), or {ASK}",
    )
