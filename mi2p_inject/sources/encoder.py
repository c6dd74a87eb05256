"""The source encoder: frozen, asked once a forward, read as its adapter says."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mi2p_inject.adapters.adapter import Readout
from mi2p_inject.adapters.masks import token_mask
from mi2p_inject.core.errors import LayoutError, SourceError
from mi2p_inject.core.inputs import as_inputs
from mi2p_inject.core.layout import Layout, describe, image_of
from mi2p_inject.core.numerics.recording import is_tracing
from mi2p_inject.core.shared_state import SOURCES, Record
from mi2p_inject.core.views import ViewSpec
from mi2p_inject.inspection.infer import infer_layouts
from mi2p_inject.inspection.probe import observe
from mi2p_inject.inspection.resolve import ResolvedModel, resolve
from mi2p_inject.sources.features import SourceFeatures

__all__ = ["Reading", "Source"]


GIVEN = (
    "run it yourself: source_spec=ViewSpec.tokens(D) or ViewSpec.map(C, H, W) in place of source_encoder=, "
    "and source=SourceFeatures(features)"
)


def _fix(batch: Any) -> str:
    """What to do with a batch that an encoder does not take, by what is in it."""
    leaves = pytree.tree_leaves(batch)
    if any(isinstance(leaf, (str, bytes)) for leaf in leaves):
        return 'tokenize it first: source=tokenizer(texts, padding=True, return_tensors="pt")'
    if any(type(leaf).__module__.partition(".")[0] == "PIL" for leaf in leaves):
        return "make tensors of pictures first: source=torch.stack([transform(picture), ...])"
    if leaves and not any(isinstance(leaf, Tensor) for leaf in leaves):
        return 'make tensors of it first: torch.as_tensor(...), or return_tensors="pt" of a tokenizer or processor'
    return "pass source= as you would call the encoder: a tensor, a tuple, or a mapping of arguments"


@dataclass(frozen=True)
class Reading:
    """How the features of an encoder are read: what its dry run found out.

    Attributes:
        readout: of its adapter, or the usual one.
        layout: how the features are stored.
        spec: kind, width and grid of its features.
        tokens: how many tokens (channels of a map) the example features have; for cost estimates.
    """

    readout: Readout
    layout: Layout
    spec: ViewSpec
    tokens: int


class Source:
    """A frozen encoder and how its features are read.

    Not a module on purpose: its weights are neither parameters of the expanded model nor in its state_dict, and
    `train()` does not reach it. It runs in eval mode, without gradients: whatever puts it, or a part of it, into train
    mode is undone at the next encode, and stays undone.

    Args:
        encoder: any module. One with an adapter is read as the adapter says, on the encoder inside a headed model.
            One without an adapter, a wrapper with a forward of its own among them, must return tokens (B, L, D) or a
            map (B, C, H, W), or a `last_hidden_state`.
        example_inputs: an example batch, for encoders without an adapter or inputs of another size than usual.
        reading: of an encoder of the same code and shapes, which saves the dry run.

    Attributes:
        reading: how its features are read.
        spec: kind, width and grid of its features.
        tokens: how many tokens (channels of a map) the example features have; for cost estimates.

    Raises:
        ProbeError: it does not run on the example inputs, or there are none.
        LayoutError: it gives neither tokens nor a map.
    """

    def __init__(self, encoder: nn.Module, example_inputs: Any = None, reading: Reading | None = None) -> None:
        resolved = resolve(encoder, example_inputs, name="source_example_inputs", as_source=True)
        self.encoder, self.inner = encoder, resolved.inner
        self.reading = reading or _read(resolved)
        self.readout, self.layout = self.reading.readout, self.reading.layout
        self.spec, self.tokens = self.reading.spec, self.reading.tokens
        self.path = self.readout.path_in(self.inner)
        self._take = _Take()
        self._handle: torch.utils.hooks.RemovableHandle | None = None
        self._record: Record | None = None

    def freeze(self) -> None:
        """Put the encoder in eval mode and start recording at the readout; `thaw` undoes both."""
        self._record = SOURCES.acquire(self.encoder, self._record)
        self.encoder.eval()
        if self.path and self._handle is None:  # a copy brings its own
            self._handle = self.inner.get_submodule(self.path).register_forward_hook(self._take, prepend=True)

    def thaw(self) -> None:
        """Give the encoder back as it came."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
        SOURCES.release(self.encoder)

    def encode(self, batch: Any) -> SourceFeatures:
        """Features of a batch: a tensor, a tuple of arguments, or a mapping of keyword arguments.

        Raises:
            SourceError: the encoder does not take this batch. What is no fault of the batch (out of memory, an error of
                the device) is raised as it is.
        """
        for module in self.encoder.modules():
            if module.training:
                module.training = False
        args, kwargs = as_inputs(batch)
        readout, take = self.readout, self._take
        asking = _asking_in_a_trace(self.encoder)
        for home, name, parameter in asking:
            home[name] = parameter.data
        with torch.no_grad():
            take.recording = True
            try:
                output = _call(self.inner, readout.call, args, kwargs)
                if self.path:
                    output = take.output
            except _OF_THE_BATCH as error:
                if _is_of_the_machine(error):
                    raise
                raise SourceError(
                    f"the source encoder does not take this batch: {type(error).__name__}: {error}",
                    expected=f"what {type(self.inner).__name__} is called with",
                    given=describe((*args, kwargs)),
                    fix=_fix(batch),
                ) from error
            finally:
                take.recording, take.output = False, None
                for home, name, parameter in asking:
                    home[name] = parameter
            try:
                data = self.layout.view(output, self.path, image_of(args, kwargs))
            except LayoutError as error:
                raise _of_source(error, self.inner) from error
            mask = readout.mask(self.inner, args, kwargs, data) if readout.mask and data.dim() == 3 else None
            if self.path:
                data = data.clone()  # a later in-place operation of the encoder must not reach it
        return SourceFeatures(data, mask)

    def apply(self, function: Callable[[Tensor], Tensor]) -> None:
        """What `.to`, `.cuda` or `.half` of the expanded model do, to the encoder."""
        self.encoder._apply(function)


def _asking_in_a_trace(encoder: nn.Module) -> list[tuple[dict[str, Any], str, nn.Parameter]]:
    """Where the weights are that ask for a gradient, while `torch.jit.trace` records: it takes none such as constants.

    They belong to no module that is traced, so constants they are.
    """
    if not is_tracing():
        return []
    places = [
        (module._parameters, name, one) for module in encoder.modules() for name, one in module._parameters.items()
    ]
    return [(home, name, one) for home, name, one in places if one is not None and one.requires_grad]


class _Take(threading.local):
    """A forward hook that keeps one module's output, for the thread that is encoding only."""

    recording = False
    output: Any = None

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.recording:
            self.output = output

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Take, ())

    def __deepcopy__(self, memo: dict[int, Any]) -> _Take:
        copied: _Take = memo.setdefault(id(self), _Take())
        return copied


_OF_THE_BATCH = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError)
_OF_THE_MACHINE = ("out of memory", "can't allocate memory", "CUDA error", "CUBLAS_STATUS", "CUDNN_STATUS", "HIP error")
"""As accelerate's `find_executable_batch_size` and torch tell them; older ones have no class of their own."""


def _is_of_the_machine(error: Exception) -> bool:
    kinds = (torch.OutOfMemoryError, getattr(torch, "AcceleratorError", torch.OutOfMemoryError))
    return isinstance(error, kinds) or any(words in str(error) for words in _OF_THE_MACHINE)


def _call(encoder: nn.Module, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return encoder(*args, **kwargs) if method == "forward" else getattr(encoder, method)(*args, **kwargs)


def _of_source(error: LayoutError, encoder: nn.Module, holds: str = "") -> LayoutError:
    """What is said of a site, said of a source: its layout cannot be named, and its features can be given.

    Args:
        error: from reading its features.
        encoder: what was run.
        holds: where in a wrapper an encoder stands that is read; "": nowhere.
    """
    name = type(encoder).__name__
    if holds:
        return LayoutError(
            f"the source encoder {name} gives neither tokens nor a map",
            expected="tokens (B, L, D), a map (B, C, H, W) or a last_hidden_state, of the forward that is its own",
            given=error.given,
            fix=f"pass the encoder inside it, encoder.{holds}, or let its forward return features",
        )
    ways = [way for way in error.fix.split(", or ") if "batch_first" in way]
    fix = ", or ".join([*ways, GIVEN]) if "layout=" in error.fix else error.fix
    what = f"the source encoder {name}: {error.what}"
    return LayoutError(what, path=error.path, expected=error.expected, given=error.given, fix=fix)


def _read(resolved: ResolvedModel) -> Reading:
    """What a dry run says."""
    encoder, inputs = resolved.inner, resolved.inputs
    readout = resolved.match.adapter.readout if resolved.match else Readout(None, mask=token_mask)
    path, call = readout.path_in(encoder), readout.call
    seen = observe(encoder, [path], inputs, call)
    found = seen[path].output
    try:
        if readout.layout is not None:
            layout = resolved.with_patches(readout.layout, found, path)
        else:
            inferred = infer_layouts(encoder, [path], inputs, seen, call)[path]
            if isinstance(inferred, LayoutError):
                raise inferred
            layout = resolved.at_image(inferred)
        features = layout.view(found, path)
    except LayoutError as error:
        raise _of_source(error, resolved.model if resolved.holds else encoder, resolved.holds) from error
    return Reading(readout, layout, ViewSpec.of(features), int(features.shape[1]))
