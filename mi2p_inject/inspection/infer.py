"""Layouts without an adapter: what changes when the batch and the size change tells the axes apart.

Never a guess: what stays ambiguous after the dry runs is a `LayoutError` that asks for `layout=`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mi2p_inject.core.errors import LayoutError, ProbeError
from mi2p_inject.core.inputs import Inputs
from mi2p_inject.core.layout import Axes, Layout, describe, element_of, parts_of
from mi2p_inject.inspection.probe import Observation, observe
from mi2p_inject.inspection.vary_inputs import (
    CONVOLUTIONS,
    has_width,
    holds_length_first,
    image_size,
    is_hidden,
    is_orderly,
    larger_inputs,
    layer_by_layer,
    more_rows,
    patch_sizes,
    refuse_streams,
    rows_are_steps,
    takes,
)

__all__ = ["ASK", "MOST_PREFIX_TOKENS", "find_elements", "infer_layouts"]

ASK = "say how it is stored: layout=Layout('NCHW' | 'NHWC' | 'NLC' | 'LNC' | 'NCL', element=..., prefix=..., grid=...)"
MOST_PREFIX_TOKENS = 16


@dataclass(frozen=True)
class _Runs:
    """Dry runs of the same modules: as given, with one more row, and (where the model takes it) larger or longer."""

    first: dict[str, Observation]
    larger_batch: dict[str, Observation]
    larger_sizes: list[tuple[Inputs, dict[str, Observation]]]
    image: tuple[int, int] | None
    larger_image: tuple[int, int] | None
    swapped: bool | None
    """Whether the rows of 3-D inputs are steps to the model's own sequence modules; None: they do not say."""
    convolves: bool
    """The model convolves sequences: (B, C, L) may occur in it."""
    patch_sizes: list[tuple[int, int]]
    """Of patches that are not square; none where they are."""
    is_length: Callable[[Inputs], bool]
    """Whether what grows on the last axis with these larger inputs is a length: no later layer fixes it."""


def infer_layouts(
    model: nn.Module, paths: Sequence[str], inputs: Inputs, first: dict[str, Observation], call: str = "forward"
) -> dict[str, Layout | LayoutError]:
    """The layouts of some modules' outputs, from a few further dry runs.

    A module whose layout stays open has the error in place of it: no batch axis, several samples folded into it, or an
    ambiguity.

    Args:
        model: the model.
        paths: modules whose outputs to read; "" is the model itself.
        inputs: (args, kwargs), with at least one row.
        first: what a dry run on `inputs` saw.
        call: the method that ran.
    """
    image = image_size(inputs) if is_orderly(model) else None
    batch = observe(model, paths, more_rows(inputs), call)
    larger, sizes = larger_inputs(inputs), []
    for one in larger:
        with layer_by_layer(), suppress(ProbeError):  # a fixed size: the shapes themselves must tell
            sizes.append((one, observe(model, paths, one, call)))
    larger_image = image_size(larger[0]) if larger else None
    convolves = any(isinstance(module, CONVOLUTIONS) for module in model.modules())
    steps = rows_are_steps(model, inputs, call)
    told = convolves or len(larger) == 1  # of 2-D inputs there is one axis only that may be the length

    def is_length(longer: Inputs) -> bool:
        return told or takes(model, longer, call)

    runs = _Runs(first, batch, sizes, image, larger_image, steps, convolves, patch_sizes(model), is_length)
    return {path: _infer_or_error(model.get_submodule(path), path, runs) for path in paths}


def _infer_or_error(module: nn.Module, path: str, runs: _Runs) -> Layout | LayoutError:
    try:
        return _infer(module, path, runs)
    except LayoutError as error:
        return error


def find_elements(output: Any, path: str) -> list[int | str | None]:
    """Where the hidden state may stand in an output: [None] for a tensor, else the elements of three or four axes.

    Raises:
        LayoutError: none.
    """
    if isinstance(output, Tensor):
        return [None]
    parts = parts_of(output)
    if "last_hidden_state" in parts:
        return ["last_hidden_state"]
    found: list[int | str | None] = [key for key, value in parts.items() if is_hidden(value)]
    if not found:
        raise _no_element(output, path)
    return found


def _no_element(output: Any, path: str) -> LayoutError:
    return LayoutError(
        "cannot tell which part of the output is the hidden state",
        path=path,
        expected="one floating tensor of three or four axes",
        given=describe(output),
        fix=ASK,
    )


def _infer(module: nn.Module, path: str, runs: _Runs) -> Layout:
    """The one element that reaches the output and whose axes are known; others are attention weights or biases."""
    output, reached = runs.first[path].output, runs.first[path].reaches_output
    elements = find_elements(output, path)
    if reached and len(elements) > 1:
        elements = [element for element in elements if any(element_of(output, element) is tensor for tensor in reached)]
    if len(elements) == 1:
        return _infer_element(module, path, runs, elements[0])
    layouts = []
    for element in elements:
        try:
            layouts.append(_infer_element(module, path, runs, element))
        except LayoutError:
            continue
    if len(layouts) != 1:
        raise _no_element(output, path)
    return layouts[0]


def _infer_element(module: nn.Module, path: str, runs: _Runs, element: int | str | None) -> Layout:
    def shape(run: dict[str, Observation]) -> tuple[int, ...] | None:
        if not run[path].times:
            return None
        found = element_of(run[path].output, element)
        if not isinstance(found, Tensor):
            return None
        if found.is_nested:
            raise LayoutError(
                "the output is a nested tensor, which has no one shape",
                path=path,
                expected="a dense tensor",
                given="a nested tensor (nn.TransformerEncoder makes them of a padding mask in eval mode)",
                fix="build it with enable_nested_tensor=False",
            )
        return tuple(found.shape)

    one, more = shape(runs.first), shape(runs.larger_batch)
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
    sizes = [size for _, run in runs.larger_sizes if (size := shape(run)) is not None and len(size) == len(one)]
    grown = [axis for axis in range(len(one)) if any(size[axis] != one[axis] for size in sizes)]
    if len(one) == 4:
        refuse_streams(module, one, grown, runs.image, path)
        return Layout(_map_axes(module, one, grown, path), element)
    axes = Axes.LNC if changed[0] == 1 else Axes.NLC
    length_axis = 1 - changed[0]
    if axes is Axes.NLC and grown == [2] and runs.image is None:
        longer = [given for given, run in runs.larger_sizes if (shape(run) or one)[-1] != one[-1]]
        _check_length(one, longer, runs, path)
        return Layout(Axes.NCL, element)  # convolutions over time: audio, series
    if grown and grown != [length_axis]:
        raise LayoutError(
            "the length is not where tokens have it",
            path=path,
            expected=f"length on axis {length_axis}, features last",
            given=f"axis {grown} grows with the input: {one} becomes {sizes}",
            fix=f"choose a module that gives (B, L, D), or {ASK}",
        )
    if runs.image is None:
        _check_order(module, one, axes, bool(grown), runs, path)
        return Layout(axes, element)
    prefix, grid = _patches(one[length_axis], sizes[0][length_axis] if sizes and grown else None, runs, path)
    return Layout(axes, element, prefix, grid)


def _check_order(
    module: nn.Module, shape: tuple[int, ...], axes: Axes, confirmed: bool, runs: _Runs, path: str
) -> None:
    """Refuse to guess between (B, L, D) and (L, B, D), and between (B, L, D) and (B, C, L)."""
    given = str(shape)
    if axes is Axes.NLC and (runs.swapped or (runs.swapped is None and holds_length_first(module))):
        raise LayoutError(
            "cannot tell batch from length: a sequence module in it has batch_first=False",
            path=path,
            expected="(B, L, D) or (L, B, D)",
            given=given,
            fix=f"build it with batch_first=True, or {ASK}",
        )
    convolves = any(isinstance(one, CONVOLUTIONS) for one in module.modules())
    features_last = has_width(module, shape[2], (nn.Linear, nn.LayerNorm))
    if not confirmed and (convolves or (runs.convolves and not features_last)):
        raise _open_length(path, f"{given}, perhaps (B, C, L), of a model that convolves sequences of one size only")


def _check_length(shape: tuple[int, ...], longer: list[Inputs], runs: _Runs, path: str) -> None:
    """Refuse to take for a length what a later layer fixes."""
    if not any(map(runs.is_length, longer)):
        raise _open_length(path, f"{shape}, of which axis 2 may grow up to this module, and not in the model")


def _open_length(path: str, given: str) -> LayoutError:
    return LayoutError(
        "cannot tell features from length",
        path=path,
        expected="(B, L, D)",
        given=given,
        fix=f"choose a module that gives (B, L, D), or {ASK}",
    )


def _map_axes(module: nn.Module, shape: tuple[int, ...], grown: list[int], path: str) -> Axes:
    if grown in ([2, 3], [1, 2]):
        return Axes.NCHW if grown == [2, 3] else Axes.NHWC
    first, last = shape[2] == shape[3], shape[1] == shape[2]
    if first == last:  # both or neither pair is square: the module's own parameters vote
        widths_first = has_width(module, shape[1], (nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm))
        widths_last = has_width(module, shape[3], (nn.Linear, nn.LayerNorm))
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


def _patches(tokens: int, larger_tokens: int | None, runs: _Runs, path: str) -> tuple[int, tuple[int, int] | None]:
    """Prefix and grid of an image model's tokens; (0, None) where they are no patches."""
    image, larger = runs.image, runs.larger_image
    if image is None:
        return 0, None
    sizes = runs.patch_sizes
    if larger_tokens is not None and larger is not None:
        for height, width in sizes or [(stride, stride) for stride in range(1, min(image) + 1)]:
            grid, more = (image[0] // height, image[1] // width), (larger[0] // height, larger[1] // width)
            prefix = tokens - grid[0] * grid[1]
            if 0 <= prefix <= MOST_PREFIX_TOKENS and larger_tokens - more[0] * more[1] == prefix:
                return prefix, grid
    elif runs.larger_sizes:
        return 0, None  # the length does not follow the image: latents, queries
    elif sizes:
        for height, width in sizes:
            grid = (image[0] // height, image[1] // width)
            if 0 <= tokens - grid[0] * grid[1] <= MOST_PREFIX_TOKENS and min(grid) > 0:
                return tokens - grid[0] * grid[1], grid
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
