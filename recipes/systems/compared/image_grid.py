"""A picture as tokens: the cells of an image encoder's map."""

from __future__ import annotations

from torch import Tensor, nn

from mi2p_inject.core.errors import Mi2pError
from mi2p_inject.core.inputs import as_inputs
from mi2p_inject.core.layout import image_of
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.systems.base import Batch
from mi2p_inject.sources.encoder import Source

__all__ = ["ImageGrid", "cells_of"]


class ImageGrid(nn.Module):
    """An image encoder that gives its last map, with gradients.

    Args:
        encoder: its features, as its adapter reads them, are a map: any CNN, or a transformer of patches in a grid.

    Attributes:
        channels: C of the map.
        grid: (H, W) of the map at the encoder's image size.

    Raises:
        RecipeError: its features are no map; names what fits.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.network = encoder.model
        self._encoder = encoder
        try:
            source = Source(encoder.model, encoder.inputs(encoder.example()))
        except Mi2pError as error:
            raise _no_map(encoder, str(error).splitlines()[0]) from error
        if source.spec.grid is None:
            raise _no_map(encoder, str(source.spec))
        self.channels, self.grid = source.spec.width, source.spec.grid
        self._call, self._path, self._layout = source.readout.call, source.path, source.layout
        inner = next((path for path, module in self.network.named_modules() if module is source.inner), "")
        self._root = inner

    def forward(self, batch: Batch) -> Tensor:
        """The map (B, C, H, W) of the batch's pictures; that of a missing picture is the map of a blank one."""
        args, kwargs = as_inputs(self._encoder.inputs(batch))
        inner = self.network.get_submodule(self._root)
        if not self._path:
            output = getattr(inner, self._call)(*args, **kwargs) if self._call != "forward" else inner(*args, **kwargs)
            return self._layout.view(output, "", image_of(args, kwargs))
        taken: list[Tensor] = []
        module = inner.get_submodule(self._path)
        handle = module.register_forward_hook(lambda *call: taken.append(call[-1]))
        try:
            (inner if self._call == "forward" else getattr(inner, self._call))(*args, **kwargs)
        finally:
            handle.remove()
        return self._layout.view(taken[-1], self._path, image_of(args, kwargs))


def cells_of(features: Tensor) -> Tensor:
    """A map (B, C, H, W) -> its cells (B, H·W, C), row by row.

    Examples:
        >>> import torch
        >>> cells_of(torch.arange(4.0).view(1, 1, 2, 2)).flatten().tolist()
        [0.0, 1.0, 2.0, 3.0]
    """
    return features.flatten(2).transpose(1, 2)


def _no_map(encoder: Encoder, given: str) -> RecipeError:
    return RecipeError(
        f"{encoder.name} gives no map, whose cells this model reads",
        expected="an image encoder whose features are a map (B, C, H, W): a CNN, such as densenet121, resnet50, demo",
        given=given,
        fix="name another --vision",
    )
