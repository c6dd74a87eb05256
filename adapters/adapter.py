"""The adapter: what the toolkit must know of an architecture that its tensors do not tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from mi2p_inject.adapters.blocks import Blocks
from mi2p_inject.core.errors import AdapterError
from mi2p_inject.core.layout import Axes, Layout

__all__ = [
    "DEFAULT_NUM_HEADS",
    "Adapter",
    "InputMaker",
    "Inputs",
    "Library",
    "MaskReader",
    "Modality",
    "Pooling",
    "Readout",
]

Library = Literal["timm", "transformers", "open_clip", "other"]
Modality = Literal["image", "text", "audio", "video"]
Pooling = Literal["mean", "cls", "last", "eot", "bert"]
Inputs = tuple[tuple[Any, ...], dict[str, Any]]
InputMaker = Callable[[nn.Module], Inputs]
DEFAULT_NUM_HEADS = 8
"""Attention heads of a unit where no adapter gives another number."""
MaskReader = Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Tensor], "Tensor | None"]


@dataclass(frozen=True)
class Readout:
    """Where an encoder's features come out.

    Args:
        layout: how they are stored; None: inferred from dry runs, as everywhere without an adapter.
        call: the method to call: "forward" (as the module itself is called, hooks included) or another.
        path: a submodule whose output to take, or "" for what the call returns; or a function of the model.
        root: the submodule to call, such as the encoder of an encoder-decoder; "" the model itself.
        mask: a function (encoder, args, kwargs, features) -> (B, L) mask, None where every token is real.
        pooled: how the features become one vector a sample, the input of a classification head: "mean" over space or
            real tokens, "cls" the first token, "last" the last real token, "eot" the end-of-text token (the largest
            id), "bert" the first token through the encoder's own pooler.
    """

    layout: Layout | None
    call: str = "forward"
    path: str | Callable[[nn.Module], str] = ""
    root: str = ""
    mask: MaskReader | None = None
    pooled: Pooling = "mean"

    def path_in(self, model: nn.Module) -> str:
        """The path in one model."""
        return self.path(model) if callable(self.path) else self.path


@dataclass(frozen=True)
class Adapter:
    """One architecture.

    Args:
        name: short, unique, as its users call it: "bert", "densenet".
        library: whose classes these are.
        modality: what the backbone reads.
        classes: full names of the classes this adapter matches; subclasses included, a subclass's own adapter wins.
        sites: globs of the default sites' paths, in firing order: `*` and `[1-9]` stay inside one path segment; or a
            function of the model that gives the paths.
        layout: how every site stores its hidden state. None: the sites are unverified; each has its layout
            inferred and its effect checked, and those that fail are left out of the defaults.
        readout: where the features of the whole encoder come out.
        inputs: makes small example inputs for such a model: (args, kwargs).
        patches: prefix tokens before the patch grid of an image transformer, a number or a function of the model;
            None where tokens are not patches.
        blocks: the linear layers of a block, where the default sites are transformer blocks; what `pathway` pairs.
        num_heads: attention heads of a unit by default.

    Raises:
        AdapterError: the adapter contradicts itself.

    Examples:
        >>> from mi2p_inject.adapters import adapters
        >>> adapter = next(one for one in adapters() if one.name == "densenet")
        >>> adapter.sites[0], str(adapter.layout), adapter.num_heads
        ('features.denseblock1', 'NCHW', 8)
    """

    name: str
    library: Library
    modality: Modality
    classes: tuple[str, ...]
    sites: tuple[str, ...] | Callable[[nn.Module], list[str]]
    layout: Layout | None
    readout: Readout
    inputs: InputMaker
    patches: int | Callable[[nn.Module], int] | None = None
    num_heads: int = DEFAULT_NUM_HEADS
    blocks: Blocks | None = None

    def __post_init__(self) -> None:
        layout = self.layout or Layout(Axes.NLC)
        spatial = layout.axes.is_spatial
        map_read = self.readout.layout is not None and self.readout.layout.axes is Axes.NCHW
        tokens_only = ("cls", "last", "eot", "bert")
        wrong = (
            (not self.name or not self.classes or not self.sites, "a name, a class and a site at least"),
            (any("." not in name for name in self.classes), "classes by their full names, module.Class"),
            (spatial and self.patches is not None, "patches= only with token layouts"),
            (layout.grid is not None or layout.prefix > 0, "grid and prefix left to patches= and the probe"),
            (map_read and self.readout.pooled in tokens_only, "pooled='mean' for a map"),
            (self.num_heads < 1, "at least one head"),
        )
        for bad, rule in wrong:
            if bad:
                raise AdapterError(
                    f"adapter {self.name!r} contradicts itself",
                    expected=rule,
                    given=repr(self),
                    fix="correct the adapter",
                )

    def prefix_tokens(self, model: nn.Module) -> int | None:
        """Prefix tokens of this model, None where its tokens are not patches."""
        return self.patches(model) if callable(self.patches) else self.patches
