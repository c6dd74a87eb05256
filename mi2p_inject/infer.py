"""Layouts without an adapter row: what changes when the batch and the size change tells the axes apart.

Never a guess: what stays ambiguous after the dry runs is a `LayoutError` that asks for `layout=`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mi2p_inject.errors import LayoutError, ProbeError
from mi2p_inject.layout import Axes, Layout, describe
from mi2p_inject.probe import Inputs, Observation, probe

ASK = "say how it is stored: layout=Layout('NCHW' | 'NHWC' | 'NLC' | 'LNC', element=..., prefix=..., grid=...)"
MOST_PREFIX_TOKENS = 16


@dataclass(frozen=True)
class _Runs:
    """Three dry runs of the same modules: as given, with one more row, and (where the model takes it) larger."""

    first: dict[str, Observation]
    larger_batch: dict[str, Observation]
    larger_size: dict[str, Observation] | None
    image: tuple[int, int] | None
    larger_image: tuple[int, int] | None


def infer_layouts(
    model: nn.Module, paths: Sequence[str], inputs: Inputs, first: dict[str, Observation], call: str = "forward"
) -> dict[str, Layout]:
    """The layouts of some modules' outputs, from two further dry runs.

    Args:
        model: the model.
        paths: modules whose outputs to read; "" is the model itself.
        inputs: (args, kwargs), with at least one row.
        first: what a dry run on `inputs` saw.
        call: the method that ran.

    Raises:
        LayoutError: an output without a batch axis, with several samples folded into it, or ambiguous.
    """
    image = image_size(inputs)
    batch, _ = probe(model, paths, _more_rows(inputs), call=call)
    size = None
    if (larger := _larger(inputs)) is not None:
        try:
            size, _ = probe(model, paths, larger, call=call)
        except ProbeError:
            size = None  # a fixed-size model: the shapes themselves must tell
    runs = _Runs(first, batch, size, image, image_size(larger) if larger else None)
    return {path: _infer(model.get_submodule(path), path, runs) for path in paths}


def image_size(inputs: Inputs) -> tuple[int, int] | None:
    """(H, W) of the one image among example inputs, None where there is none."""
    images = [leaf for leaf in pytree.tree_leaves(inputs) if _is_image(leaf)]
    return (int(images[0].shape[-2]), int(images[0].shape[-1])) if len(images) == 1 else None


def patch_grid(tokens: int, prefix: int, image: tuple[int, int] | None, path: str) -> tuple[int, int]:
    """The grid of `tokens - prefix` patches with the image's proportions.

    Raises:
        LayoutError: no such grid.
    """
    patches = tokens - prefix
    height, width = image or (1, 1)
    rows = round(math.sqrt(patches * height / width)) if patches > 0 else 0
    if rows < 1 or patches % rows or abs(rows * width - (patches // rows) * height) >= max(height, width):
        raise LayoutError(
            "the tokens after the prefix form no grid of the image's proportions",
            path=path,
            expected=f"{prefix} prefix tokens and a grid like {height}x{width}",
            given=f"{tokens} tokens",
            fix=f"view it as tokens (view='tokens'), or {ASK}",
        )
    return rows, patches // rows


def find_element(output: Any, path: str) -> int | str | None:
    """Where the hidden state stands in an output: None for a tensor, else the one element of three or four axes.

    Raises:
        LayoutError: none, or several.
    """
    if isinstance(output, Tensor):
        return None
    if isinstance(output, dict):
        if "last_hidden_state" in output:
            return "last_hidden_state"
        found: list[int | str] = [str(key) for key, value in output.items() if _is_hidden(value)]
    elif isinstance(output, (tuple, list)):
        found = [index for index, value in enumerate(output) if _is_hidden(value)]
    else:
        found = []
    if len(found) != 1:
        raise LayoutError(
            "cannot tell which part of the output is the hidden state",
            path=path,
            expected="one floating tensor of three or four axes",
            given=describe(output),
            fix=ASK,
        )
    return found[0]


def _infer(module: nn.Module, path: str, runs: _Runs) -> Layout:
    element = find_element(runs.first[path].output, path)

    def shape(run: dict[str, Observation] | None) -> tuple[int, ...] | None:
        if run is None or not run[path].times:
            return None
        output = run[path].output
        found = output if element is None else output[element]
        return tuple(found.shape) if isinstance(found, Tensor) else None

    one, more, larger = shape(runs.first), shape(runs.larger_batch), shape(runs.larger_size)
    if one is None or more is None or len(one) not in (3, 4) or len(more) != len(one):
        raise LayoutError(
            "the output is neither a map nor tokens",
            path=path,
            expected="a floating tensor of three or four axes",
            given=describe(runs.first[path].output),
            fix="choose a module before the pooling",
        )
    changed = [axis for axis in range(len(one)) if one[axis] != more[axis]]
    folded = len(changed) != 1 or more[changed[0]] != one[changed[0]] + 1
    if folded or changed[0] > (1 if len(one) == 3 else 0):
        raise LayoutError(
            "samples are folded together, or the batch axis is none of ours",
            path=path,
            expected="the batch alone on axis 0 (or on axis 1 of (L, B, D))",
            given=f"{one} becomes {more} with one more row",
            fix="choose another module; this one mixes batch and space",
        )
    grown = [
        axis for axis in range(len(one)) if larger is not None and len(larger) == len(one) and one[axis] != larger[axis]
    ]
    if len(one) == 4:
        return Layout(_map_axes(module, one, grown, path), element)
    axes = Axes.LNC if changed[0] == 1 else Axes.NLC
    length_axis = 1 - changed[0]
    if grown and grown != [length_axis]:
        raise LayoutError(
            "the length is not where tokens have it",
            path=path,
            expected=f"length on axis {length_axis}, features last",
            given=f"axis {grown} grows with the input: {one} becomes {larger}",
            fix="choose a module that gives (B, L, D)",
        )
    if runs.image is None:
        return Layout(axes, element)
    prefix, grid = _patches(one[length_axis], larger[length_axis] if larger and grown else None, runs, path)
    return Layout(axes, element, prefix, grid)


def _map_axes(module: nn.Module, shape: tuple[int, ...], grown: list[int], path: str) -> Axes:
    if grown in ([2, 3], [1, 2]):
        return Axes.NCHW if grown == [2, 3] else Axes.NHWC
    first, last = shape[2] == shape[3], shape[1] == shape[2]
    if first == last:  # both or neither pair is square: the module's own parameters vote
        widths_first = _has_width(module, shape[1], (nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm))
        widths_last = _has_width(module, shape[3], (nn.Linear, nn.LayerNorm))
        first, last = widths_first and not widths_last, widths_last and not widths_first
    if first == last:
        raise LayoutError(
            "cannot tell channels from space",
            path=path,
            expected="(B, C, H, W) or (B, H, W, C)",
            given=str(shape),
            fix=ASK,
        )
    return Axes.NCHW if first else Axes.NHWC


def _has_width(module: nn.Module, width: int, kinds: tuple[type[nn.Module], ...]) -> bool:
    return any(width == p.shape[0] for m in module.modules() if isinstance(m, kinds) for p in m.parameters())


def _patches(tokens: int, larger_tokens: int | None, runs: _Runs, path: str) -> tuple[int, tuple[int, int] | None]:
    """Prefix and grid of an image model's tokens; (0, None) where they are no patches."""
    image, larger = runs.image, runs.larger_image
    if image is None:
        return 0, None
    if larger_tokens is not None and larger is not None:
        for stride in range(1, min(image) + 1):
            grid, more = (image[0] // stride, image[1] // stride), (larger[0] // stride, larger[1] // stride)
            prefix = tokens - grid[0] * grid[1]
            if 0 <= prefix <= MOST_PREFIX_TOKENS and larger_tokens - more[0] * more[1] == prefix:
                return prefix, grid
    elif runs.larger_size is not None:
        return 0, None  # the length does not follow the image: latents, queries
    elif image[0] == image[1]:
        side = math.isqrt(tokens)
        if tokens - side * side <= min(MOST_PREFIX_TOKENS, side):
            return tokens - side * side, (side, side)
    raise LayoutError(
        "cannot tell the prefix tokens from the patches",
        path=path,
        expected="prefix tokens and then a patch grid",
        given=f"{tokens} tokens of an image {image[0]}x{image[1]}",
        fix=f"view it as tokens: layout=Layout('NLC'), or {ASK}",
    )


def _is_hidden(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() in (3, 4)


def _is_image(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() == 4


def _more_rows(inputs: Inputs) -> Inputs:
    """The same inputs with the first row once more at the end."""
    rows = next((leaf.shape[0] for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor) and leaf.dim()), 1)

    def grow(tensor: Tensor) -> Tensor:
        same = tensor.dim() > 0 and tensor.shape[0] == rows
        return torch.cat([tensor, tensor[:1]]) if same else tensor

    grown: Inputs = pytree.tree_map_only(Tensor, grow, inputs)
    return grown


def _larger(inputs: Inputs) -> Inputs | None:
    """The same inputs larger in space (not by the same factor on both axes), or longer; None for other shapes."""
    tensors = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]
    if any(_is_image(tensor) for tensor in tensors):

        def grow(tensor: Tensor) -> Tensor:
            if not _is_image(tensor):
                return tensor
            return tensor.new_zeros(*tensor.shape[:2], 2 * tensor.shape[2], 3 * tensor.shape[3])
    elif tensors and all(tensor.dim() == 2 for tensor in tensors):

        def grow(tensor: Tensor) -> Tensor:
            return torch.cat([tensor, tensor], 1)
    else:
        return None
    grown: Inputs = pytree.tree_map_only(Tensor, grow, inputs)
    return grown
