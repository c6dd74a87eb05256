"""The source encoder: frozen, asked once a forward, read as its adapter row says."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mi2p_inject.adapters.find import Match, find
from mi2p_inject.adapters.row import Readout
from mi2p_inject.errors import ProbeError
from mi2p_inject.features import SourceFeatures
from mi2p_inject.infer import image_size, infer_layouts, patch_grid
from mi2p_inject.layout import Layout
from mi2p_inject.probe import Inputs, as_inputs, probe
from mi2p_inject.views import ViewSpec

_SERVING: weakref.WeakSet[nn.Module] = weakref.WeakSet()


class Source:
    """A frozen encoder and how its features are read.

    Not a module on purpose: its weights are neither parameters of the expanded model nor in its state_dict, and
    `train()` does not reach it. It runs in eval mode, without gradients.

    Args:
        encoder: any module. One with an adapter row is read as the row says, on the encoder inside a headed model.
            One without a row must return tokens (B, L, D) or a map (B, C, H, W), or a `last_hidden_state`.
        example_inputs: an example batch, for encoders without a row or inputs of another size than usual.

    Attributes:
        spec: kind, width and grid of its features.
        tokens: how many tokens (channels of a map) the example features have; for cost estimates.

    Raises:
        ProbeError: it does not run on the example inputs, or there are none.
        LayoutError: it gives neither tokens nor a map.
    """

    def __init__(self, encoder: nn.Module, example_inputs: Any = None) -> None:
        match = find(encoder)
        self.encoder = encoder
        self.inner = encoder.get_submodule(match.root) if match else encoder
        if example_inputs is not None:
            inputs = as_inputs(example_inputs)
        elif match:
            inputs = match.adapter.inputs(self.inner)
        else:
            raise ProbeError(
                f"no adapter row for the source encoder {type(encoder).__name__}",
                expected="an encoder the adapter table knows, or an example batch",
                given=type(encoder).__name__,
                fix="pass source_example_inputs= as you would call it",
            )
        self.readout, features = _resolved(self.inner, match, inputs)
        self.spec, self.tokens = ViewSpec.of(features), int(features.shape[1])
        self._take = _Take()
        self._handle: torch.utils.hooks.RemovableHandle | None = None
        self._modes: dict[str, bool] = {}

    def freeze(self) -> None:
        """Put the encoder in eval mode and start listening at the readout; `thaw` undoes both."""
        self._modes = {name: module.training for name, module in self.encoder.named_modules()}
        self.encoder.eval()
        _SERVING.add(self.encoder)
        if self.readout.path:
            self._handle = self.inner.get_submodule(self.readout.path).register_forward_hook(self._take, prepend=True)

    def thaw(self) -> None:
        """Give the encoder back as it came."""
        if self._handle is not None:
            self._handle.remove()
        _SERVING.discard(self.encoder)
        for name, module in self.encoder.named_modules():
            module.training = self._modes.get(name, module.training)

    def encode(self, batch: Any) -> SourceFeatures:
        """Features of a batch: a tensor, a tuple of arguments, or a mapping of keyword arguments.

        Raises:
            SourceError: NaN or infinity in the features.
        """
        if self.encoder.training:
            self.encoder.eval()
        args, kwargs = as_inputs(batch)
        readout, take = self.readout, self._take
        with torch.no_grad():
            take.listening = True
            try:
                output = _call(self.inner, readout.call, args, kwargs)
                if readout.path:
                    output = take.output
            finally:
                take.listening, take.output = False, None
            data = readout.layout.view(output, readout.path)
            mask = readout.mask(self.inner, args, kwargs, data) if readout.mask and data.dim() == 3 else None
            if readout.path:
                data = data.clone()  # a later in-place operation of the encoder must not reach it
        return SourceFeatures(data, mask)

    def apply(self, function: Callable[[Tensor], Tensor]) -> None:
        """What `.to`, `.cuda` or `.half` of the expanded model do, to the encoder."""
        self.encoder._apply(function)


def is_serving(model: nn.Module) -> bool:
    """Whether a model is, right now, the frozen source encoder of some expanded model."""
    return model in _SERVING


class _Take(threading.local):
    """A forward hook that keeps one module's output, for the thread that is encoding only."""

    listening = False
    output: Any = None

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.listening:
            self.output = output

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Take, ())

    def __deepcopy__(self, memo: dict[int, Any]) -> _Take:
        copied: _Take = memo.setdefault(id(self), _Take())
        return copied


def _call(encoder: nn.Module, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return encoder(*args, **kwargs) if method == "forward" else getattr(encoder, method)(*args, **kwargs)


def _resolved(encoder: nn.Module, match: Match | None, inputs: Inputs) -> tuple[Readout, Tensor]:
    """The readout with its layout made exact, and the fake features of the dry run."""
    readout = match.adapter.readout if match else None
    path, call = (readout.path, readout.call) if readout else ("", "forward")
    seen, output = probe(encoder, [path], inputs, call=call)
    found = seen[path].output if path else output
    if readout is None:
        readout = Readout(infer_layouts(encoder, [path], inputs, seen)[path])
    elif match is not None and (prefix := match.adapter.prefix_tokens(encoder)) is not None:
        hidden = readout.layout.tensor(found, path)
        length = int(hidden.shape[0 if readout.layout.axes.value == "LNC" else 1])
        grid = patch_grid(length, prefix, image_size(inputs), path)
        exact = Layout(readout.layout.axes, readout.layout.element, prefix, grid)
        readout = Readout(exact, readout.call, readout.path, readout.mask, readout.pooled)
    return readout, readout.layout.view(found, path)
