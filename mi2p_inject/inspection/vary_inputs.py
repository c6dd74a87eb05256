"""Example inputs with one more row, or larger, and what their axes mean to the model's sequence modules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mi2p_inject.core.errors import LayoutError, ProbeError
from mi2p_inject.core.inputs import Inputs
from mi2p_inject.inspection.probe import Observation, probe

__all__ = [
    "CONVOLUTIONS",
    "LENGTH_FIRST",
    "has_width",
    "holds_length_first",
    "image_size",
    "is_hidden",
    "is_image",
    "is_orderly",
    "is_sequence",
    "larger_inputs",
    "layer_by_layer",
    "more_rows",
    "patch_sizes",
    "refuse_streams",
    "rows_are_steps",
    "takes",
]

CONVOLUTIONS = (nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d)
LENGTH_FIRST = (nn.MultiheadAttention, nn.RNNBase)


def image_size(inputs: Inputs) -> tuple[int, int] | None:
    """(H, W) of the one image among example inputs, None where there is none."""
    images = [leaf for leaf in pytree.tree_leaves(inputs) if is_image(leaf)]
    return (int(images[0].shape[-2]), int(images[0].shape[-1])) if len(images) == 1 else None


def patch_sizes(model: nn.Module) -> list[tuple[int, int]]:
    """Height and width of a patch, where a model has patches that are not square: what it says, and their multiples.

    Of a convolution the stride, of any module or transformers configuration its `patch_size`. Later stages join
    patches by twos.
    """
    found = []
    for module in model.modules():
        stated = (module, getattr(module, "config", None))
        sides = [getattr(one, "patch_size", None) for one in stated]
        sides += [module.stride] if isinstance(module, nn.Conv2d) else []
        found += [tuple(one) for one in sides if isinstance(one, (tuple, list)) and len(one) == 2 and one[0] != one[1]]
    doubled = [(times * height, times * width) for height, width in found for times in (1, 2, 4, 8, 16)]
    return list(dict.fromkeys(doubled))


def is_orderly(model: nn.Module) -> bool:
    """Whether the patches of a vision transformer may be taken to stand row by row, those of one image.

    Not where a model shuffles them (ViTMAE hides a part, and gives the others in random order) or takes patches of
    images of several shapes, filled up to one length (timm's NaFlexViT).
    """
    names = {type(module).__name__ for module in model.modules()}
    return names.isdisjoint({"ViTMAEEmbeddings", "NaFlexVit"})


def is_sequence(value: Any) -> bool:
    """(B, L, D), (L, B, D) or (B, C, L)."""
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() == 3


def has_width(module: nn.Module, width: int, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Whether a layer of these kinds in it has that width."""
    return any(width == p.shape[0] for m in module.modules() if isinstance(m, kinds) for p in m.parameters())


@contextmanager
def layer_by_layer() -> Iterator[None]:
    """A block in which torch runs its encoder layers as they are written: fused, they take fake inputs of any width."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def takes(model: nn.Module, inputs: Inputs, call: str) -> bool:
    """Whether the whole model runs dry on these inputs, and not its beginning only."""
    try:
        with layer_by_layer():
            probe(model, [], inputs, call=call)
    except ProbeError:
        return False
    return True


def holds_length_first(module: nn.Module) -> bool:
    """Whether some attention or recurrent network in it takes (L, B, D)."""
    return any(isinstance(one, LENGTH_FIRST) and not one.batch_first for one in module.modules())


def rows_are_steps(model: nn.Module, inputs: Inputs, call: str) -> bool | None:
    """Whether the first axis of 3-D inputs is what the model's sequence modules take for the length.

    Each module with batch_first=False is watched: if its length grows with the rows, the rows are no samples. False
    where there is none, or where their batch grows (the model turns its inputs); None where none of them runs.
    """
    if not any(is_sequence(leaf) for leaf in pytree.tree_leaves(inputs)) or not holds_length_first(model):
        return False
    paths = [path for path, module in model.named_modules() if holds_length_first(module)]
    paths = [path for path in paths if isinstance(model.get_submodule(path), (*LENGTH_FIRST, *_LAYERS))]
    try:
        first, more = probe(model, paths, inputs, call=call)[0], probe(model, paths, more_rows(inputs), call=call)[0]
    except ProbeError:
        return None
    pairs = [(_shape(first[path]), _shape(more[path])) for path in paths]
    steps = [before[0] != after[0] for before, after in pairs if len(before) == len(after) == 3]
    return any(steps) if steps else None


_LAYERS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


def _shape(seen: Observation) -> tuple[int, ...]:
    output = seen.output[0] if isinstance(seen.output, tuple) and seen.output else seen.output
    return tuple(output.shape) if isinstance(output, Tensor) and not output.is_nested else ()


def is_hidden(value: Any) -> bool:
    """Of three or four axes and floating, as hidden states are."""
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() in (3, 4)


def is_image(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() == 4


def more_rows(inputs: Inputs) -> Inputs:
    """The same inputs with the first row once more at the end."""
    rows = next((leaf.shape[0] for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor) and leaf.dim()), 1)

    def grow(tensor: Tensor) -> Tensor:
        same = tensor.dim() > 0 and tensor.shape[0] == rows
        return torch.cat([tensor, tensor[:1]]) if same else tensor

    grown: Inputs = pytree.tree_map_only(Tensor, grow, inputs)
    return grown


def larger_inputs(inputs: Inputs) -> list[Inputs]:
    """The same inputs larger in space (not by the same factor on both axes), or longer; none for other shapes.

    Features and length of 3-D inputs look alike: each axis grows by itself, and with it the masks of its length.
    """
    tensors = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]
    if any(is_image(tensor) for tensor in tensors):

        def grow(tensor: Tensor) -> Tensor:
            if not is_image(tensor):
                return tensor
            return tensor.new_zeros(*tensor.shape[:2], 2 * tensor.shape[2], 3 * tensor.shape[3])

        return [pytree.tree_map_only(Tensor, grow, inputs)]
    if tensors and all(tensor.dim() == 2 for tensor in tensors):
        return [pytree.tree_map_only(Tensor, lambda tensor: torch.cat([tensor, tensor], 1), inputs)]
    sequence = next((tensor for tensor in tensors if is_sequence(tensor)), None)
    return [] if sequence is None else [_longer(inputs, axis, sequence.shape[axis]) for axis in (1, 2)]


def _longer(inputs: Inputs, axis: int, length: int) -> Inputs:
    def longer(tensor: Tensor) -> Tensor:
        if is_sequence(tensor) and tensor.shape[axis] == length:
            return torch.cat([tensor, tensor], axis)
        return torch.cat([tensor, tensor], 1) if tensor.dim() == 2 and tensor.shape[1] == length else tensor

    grown: Inputs = pytree.tree_map_only(Tensor, longer, inputs)
    return grown


def refuse_streams(
    module: nn.Module, shape: tuple[int, ...], grown: list[int], image: tuple[int, int] | None, path: str
) -> None:
    """A text whose tokens have several hidden states each (hyper-connections) is no map of its length and these."""
    convolves = any(isinstance(one, nn.Conv2d) for one in module.modules())
    if image is None and grown == [1] and not convolves:
        raise LayoutError(
            "each token has several hidden states side by side, so this is neither tokens nor a map",
            path=path,
            expected="(B, L, D)",
            given=f"{shape}, of which only axis 1 grows with the input",
            fix="choose a module inside the layer that gives (B, L, D), such as its attention or its MLP",
        )
