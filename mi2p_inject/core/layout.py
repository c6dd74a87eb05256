"""How a hidden state is stored, and the one place that turns it into a view and back."""

from __future__ import annotations

import copy
from collections import defaultdict
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mi2p_inject.core.errors import LayoutError

__all__ = ["Axes", "Layout", "describe", "element_of", "image_of", "is_plain_dataclass", "parts_of", "with_part"]


class Axes(str, Enum):
    """Order of the axes of a hidden state: N batch, C features, H W space, L length."""

    NCHW = "NCHW"
    NHWC = "NHWC"
    NLC = "NLC"
    LNC = "LNC"
    NCL = "NCL"

    @property
    def is_spatial(self) -> bool:
        """Whether it has height and width: a map; else tokens."""
        return self in (Axes.NCHW, Axes.NHWC)


@dataclass(frozen=True)
class Layout:
    """How one site stores its hidden state.

    Args:
        axes: order of the axes.
        element: where the tensor stands in the module's output: an index of a tuple or list, a key of a dict or
            a field of a `ModelOutput` or dataclass; None where the output is the tensor.
        prefix: tokens before the patch grid (class, distillation, register tokens). They are never touched.
        grid: the patch grid (H, W) of an image transformer: the tokens after the prefix are then viewed as a map
            whose channels are the feature dimensions. None: tokens stay tokens.
        image: the image size (H, W) at which the grid was seen: with another image the grid follows it.

    Raises:
        LayoutError: a prefix or a grid on axes that are spatial already.

    Examples:
        >>> import torch
        >>> from mi2p_inject.core.layout import Axes, Layout
        >>> vit = Layout(Axes.NLC, prefix=1, grid=(14, 14))
        >>> vit.view(torch.zeros(2, 197, 768)).shape
        torch.Size([2, 768, 14, 14])
    """

    axes: Axes
    element: int | str | None = None
    prefix: int = 0
    grid: tuple[int, int] | None = None
    image: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.axes not in list(Axes):
            raise LayoutError(
                "unknown axes",
                expected=" or ".join(axes.value for axes in Axes),
                given=repr(self.axes),
                fix="choose one",
            )
        object.__setattr__(self, "axes", Axes(self.axes))
        spatial = self.axes.is_spatial
        if self.prefix < 0 or (spatial and (self.prefix or self.grid)) or (self.prefix and not self.grid):
            raise LayoutError(
                "prefix tokens and a patch grid belong to token layouts, a prefix to a grid",
                expected="Layout(NLC, LNC or NCL, prefix=p, grid=(H, W)), or neither",
                given=str(self),
                fix="drop them, or use NLC, LNC or NCL axes",
            )

    def tensor(self, output: Any, path: str = "") -> Tensor:
        """The hidden state inside a module's output."""
        try:
            found = element_of(output, self.element)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise self._mismatch(output, path) from error
        if isinstance(found, Tensor) and found.is_nested:
            raise LayoutError(
                "the output is a nested tensor",
                path=path,
                expected=str(self),
                given="a nested tensor, as nn.TransformerEncoder makes of a padding mask in eval mode",
                fix="build the encoder with enable_nested_tensor=False",
            )
        if isinstance(found, Tensor) and found.is_quantized:
            raise LayoutError(
                "the output is a quantised tensor, to which no residual can be added",
                path=path,
                expected=str(self),
                given=f"a {found.dtype} tensor, as a statically quantised layer gives it",
                fix="choose a module whose output is floating, such as the DeQuantStub behind it",
            )
        if not isinstance(found, Tensor) or found.dim() != len(self.axes.value):
            raise self._mismatch(output, path)
        return found

    def view(self, output: Any, path: str = "", image: tuple[int, int] | None = None) -> Tensor:
        """The view of a module's output: a map (B, C, H, W) or tokens (B, L, D); no copy is made.

        Args:
            output: what the module returned.
            path: of the module, for messages.
            image: size (H, W) of the image that went in, where a patch grid has to follow it.
        """
        hidden = self.tensor(output, path)
        if self.axes is Axes.NCHW:
            return hidden
        if self.axes is Axes.NHWC:
            return hidden.permute(0, 3, 1, 2)
        tokens = self._turned(hidden)
        if self.grid is None:
            return tokens
        height, width = self._grid_of(tokens.shape[1] - self.prefix, path, image)
        grid: Tensor = tokens[:, self.prefix :].transpose(1, 2).unflatten(2, (height, width))
        return grid

    def add(self, output: Any, residual: Tensor, path: str = "") -> Any:
        """A new output of the very type of `output` whose hidden state has `residual` (a view) added."""
        hidden = self.tensor(output, path)
        if self.axes is Axes.NHWC:
            residual = residual.permute(0, 2, 3, 1)
        elif self.axes is not Axes.NCHW:
            if self.grid is not None:
                residual = F.pad(residual.flatten(2).transpose(1, 2), (0, 0, self.prefix, 0))
            residual = self._turned(residual)
        return with_part(output, self.element, _sum(hidden, residual))

    def _turned(self, tokens: Tensor) -> Tensor:
        """From (B, L, D) to how tokens are stored here, or back: it is its own inverse."""
        if self.axes is Axes.NLC:
            return tokens
        return tokens.transpose(0, 1) if self.axes is Axes.LNC else tokens.transpose(1, 2)

    def as_tokens(self) -> Layout:
        """The same storage seen as tokens: prefix and patches alike."""
        return replace(self, prefix=0, grid=None, image=None)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form; `from_json` reads it back."""
        grid = list(self.grid) if self.grid else None
        image = list(self.image) if self.image else None
        return {"axes": self.axes.value, "element": self.element, "prefix": self.prefix, "grid": grid, "image": image}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Layout:
        """Inverse of `to_json`."""
        grid, image = (tuple(data[key]) if data[key] else None for key in ("grid", "image"))
        return cls(Axes(data["axes"]), data["element"], int(data["prefix"]), grid, image)

    def _grid_of(self, patches: int, path: str, image: tuple[int, int] | None) -> tuple[int, int]:
        """The grid of this call's patches: as large as its image says; where none is known, that seen at injection."""
        if self.grid is None:
            raise self._mismatch(patches, path)
        for grid in self._scaled(image) or [self.grid]:
            if grid[0] * grid[1] == patches:
                return grid
        raise LayoutError(
            "these patch tokens do not form the grid of this image",
            path=path,
            expected=f"{self.prefix} prefix tokens and a grid like {self.grid[0]}x{self.grid[1]} of {self.image}",
            given=f"{self.prefix + patches} tokens of an image {image}",
            fix="inject with example_inputs= of this image size, switch patch dropout off, or view='tokens'",
        )

    def _scaled(self, image: tuple[int, int] | None) -> list[tuple[int, int]]:
        """The built grid scaled to an image, a part of a patch dropped or padded to a whole one."""
        if image is None or self.image is None or self.grid is None:
            return []
        (height, width), (rows, columns) = self.image, self.grid
        exact = (image[0] * rows, height), (image[1] * columns, width)
        return [(exact[0][0] // height, exact[1][0] // width), (-(-exact[0][0] // height), -(-exact[1][0] // width))]

    def _mismatch(self, output: Any, path: str) -> LayoutError:
        return LayoutError(
            "the output is not stored as this site's layout says",
            path=path,
            expected=str(self),
            given=describe(output),
            fix="name the layout: layout=Layout(axes, element=..., grid=...)",
        )

    def __str__(self) -> str:
        parts = [self.axes.value]
        if self.element is not None:
            parts.append(f"[{self.element!r}]")
        if self.grid:
            parts.append(f" {self.prefix}+{self.grid[0]}x{self.grid[1]} patches")
        return "".join(parts)


def image_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, int] | None:
    """(H, W) of the one image among a call's arguments; None where there is none, or several."""
    images = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.dim() == 4]
    return (images[0].shape[-2], images[0].shape[-1]) if len(images) == 1 else None


def element_of(output: Any, element: int | str | None) -> Any:
    """A part of a module's output: itself, an item, or a field of a dataclass.

    Raises:
        KeyError, IndexError, TypeError, AttributeError: it has no such part.
    """
    if element is None:
        return output
    return getattr(output, element) if isinstance(element, str) and is_plain_dataclass(output) else output[element]


def parts_of(output: Any) -> dict[int | str, Any]:
    """The parts of a module's output by what `element_of` takes; none of a tensor or of an object of another kind.

    Examples:
        >>> from mi2p_inject.core.layout import parts_of
        >>> parts_of((1, 2)), parts_of({"a": 1})
        ({0: 1, 1: 2}, {'a': 1})
    """
    if isinstance(output, dict):
        return {key: value for key, value in output.items() if isinstance(key, str)}
    if is_plain_dataclass(output):
        return {one.name: getattr(output, one.name, None) for one in fields(output)}
    return dict(enumerate(output)) if isinstance(output, (tuple, list)) else {}


def is_plain_dataclass(output: object) -> bool:
    """Whether it is an instance of a dataclass, and no dict as a `ModelOutput` is."""
    return is_dataclass(output) and not isinstance(output, (type, dict))


def describe(output: Any) -> str:
    """A short description of a module's output for messages: types and shapes, no values.

    Examples:
        >>> import torch
        >>> from mi2p_inject.core.layout import describe
        >>> describe((torch.zeros(2, 3), None))
        'tuple(Tensor(2, 3), None)'
    """
    if isinstance(output, Tensor):
        return f"Tensor{tuple(output.shape)}"
    if isinstance(output, dict):
        return f"{type(output).__name__}({', '.join(f'{k}={describe(v)}' for k, v in output.items())})"
    if isinstance(output, (tuple, list)):
        return f"{type(output).__name__}({', '.join(describe(v) for v in output)})"
    if is_plain_dataclass(output):
        return f"{type(output).__name__}({', '.join(f'{k}={describe(v)}' for k, v in parts_of(output).items())})"
    return "None" if output is None else type(output).__name__


def _sum(hidden: Tensor, residual: Tensor) -> Tensor:
    """Their sum in the dtype of `hidden`. float16 ends at 65,504: a larger sum stays there and is never infinite."""
    if hidden.dtype != torch.float16:
        # not by `torch.promote_types`, which torch 2.6 writes into exported graphs and does not read back
        held = hidden.dtype == residual.dtype or hidden.dtype.itemsize > residual.dtype.itemsize
        return hidden + (residual if held else residual.to(hidden.dtype))
    largest = hidden.detach().abs().float().clamp_min(torch.finfo(torch.float16).max)  # inf stays as it came
    total: Tensor = (hidden.float() + residual.float()).clamp(-largest, largest).to(torch.float16)
    return total


def with_part(output: Any, element: int | str | None, value: Tensor) -> Any:
    """A copy of `output`, of its own type, with one element replaced."""
    if element is None:
        return value
    if isinstance(output, dict):  # ModelOutput is one: it keeps its fields in order
        key = list(output)[element] if isinstance(element, int) else element
        given = {k: value if k == key else v for k, v in output.items()}
        if isinstance(output, defaultdict):
            return defaultdict(output.default_factory, given)
        return given if type(output) is dict else type(output)(**given)
    if is_plain_dataclass(output):
        changed = copy.copy(output)
        object.__setattr__(changed, str(element), value)  # a frozen one too
        return changed
    items = list(output)
    items[int(element)] = value
    if isinstance(output, tuple):
        return output._make(items) if hasattr(output, "_make") else type(output)(items)
    return items
