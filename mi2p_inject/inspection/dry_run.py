"""Where a dry run takes place: on a copy made of fake tensors, or, where that fails, on the model itself.

A model without weights cannot run itself; its second place is a copy on the meta device. Models with weights never go
there: code that looks at the device takes other paths on meta (`nn.TransformerEncoder` leaves out its nested tensors).

Each place is a context manager that gives the module to run, in eval mode without anybody's hooks or gradient
checkpointing (timm's runs the children of a stage in place of the stage), and a function that turns inputs into what
this module takes. Afterwards the model and the caches of its code are as they were.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FunctionType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn.modules.batchnorm import _NormBase
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from mi2p_inject.core.weights.offload import FORWARD, HOOK, OLD_FORWARD, computing_device, offloaded
from mi2p_inject.inspection.fake_cleanup import caches_cleared
from mi2p_inject.inspection.preserve import HOOKS, left_as_is
from mi2p_inject.inspection.switches import checkpointing_off

__all__ = ["Convert", "Place", "QuickNorm", "T", "for_real", "on_fake_tensors", "on_meta", "places"]

T = TypeVar("T")
Convert = Callable[[T], T]
Place = tuple[nn.Module, Convert[Any]]


def places(model: nn.Module) -> tuple[Callable[..., AbstractContextManager[Place]], ...]:
    """Where to run this model, in the order to try."""
    if any(isinstance(vars(module).get("forward"), FunctionType) for module in model.modules()):
        return (for_real,)  # a function in the place of a forward knows its own module: a copy would run that one
    weightless = any(parameter.is_meta for parameter in model.parameters()) and not offloaded(model)
    return on_fake_tensors, (on_meta if weightless else for_real)


@contextmanager
def on_fake_tensors(model: nn.Module, gradients: bool = False) -> Iterator[Place]:
    """A copy whose every tensor is fake: shapes, strides and dtypes on a pretended CPU, nothing computed.

    Args:
        model: shares no tensor with the copy; its weights may be on any device, meta included.
        gradients: the copy's parameters require gradients, so that its outputs carry a graph wherever they can.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)

    def fake(tensor: Tensor) -> Tensor:
        with _disable_current_modes():  # under the mode itself the shell would be fake already
            shell = _shell(tensor)
            return FakeTensor(mode, shell, torch.device("cpu"))  # a call under the mode would take half the run's time

    # A mode costs a tenth of the run: only where it saves more.
    quick = QuickNorm() if any(isinstance(module, _NormBase) for module in model.modules()) else nullcontext()  # type: ignore[no-untyped-call]
    with caches_cleared(model), _quiet(), torch.random.fork_rng(devices=[]), mode, quick:
        yield _copied(model, fake, gradients), lambda inputs: pytree.tree_map_only(Tensor, fake, inputs)


@contextmanager
def on_meta(model: nn.Module, gradients: bool = False) -> Iterator[Place]:
    """A copy on the meta device, which is the default device too."""
    with caches_cleared(model), torch.random.fork_rng(devices=[]), torch.device("meta"):
        yield _copied(model, _shell, gradients), lambda inputs: pytree.tree_map_only(Tensor, _shell, inputs)


@contextmanager
def for_real(model: nn.Module, gradients: bool = False) -> Iterator[Place]:
    """The model itself, which is left as it was."""
    device = computing_device(model)
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()] if gradients else []
    with left_as_is(model):
        try:
            for parameter, _ in flags:
                parameter.requires_grad_(parameter.is_floating_point())
            yield model, lambda inputs: pytree.tree_map_only(Tensor, lambda tensor: tensor.to(device), inputs)
        finally:
            for parameter, flag in flags:
                parameter.requires_grad_(flag)


class QuickNorm(TorchDispatchMode):
    """Batch norm leaves shape and dtype alone; torch decomposes it for fake tensors, at 10 ms a shape."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.native_batch_norm.default:
            statistics = args[0].new_empty(0)
            return torch.empty_like(args[0]), statistics, statistics
        return func(*args, **(kwargs or {}))


@contextmanager
def _quiet() -> Iterator[None]:
    """torch logs a traceback for each fake operation that fails; here a failing run is an answer."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    disabled, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = disabled


def _shell(tensor: Tensor) -> Tensor:
    """A meta tensor of the same shape, strides and dtype, whatever the device of the original."""
    strided = tensor.layout is torch.strided and not tensor.is_nested
    strides = tensor.stride() if strided else torch.empty(tensor.shape, device="meta").stride()
    return torch.empty_strided(tuple(tensor.shape), strides, dtype=tensor.dtype, device="meta")


_LEFT_OUT = object()


def _copied(model: nn.Module, convert: Callable[[Tensor], Tensor], gradients: bool) -> nn.Module:
    """A deep copy in eval mode whose every tensor is converted and whose hooks are gone."""
    memo: dict[int, Any] = {}
    keep: list[Any] = []
    for module in model.modules():
        for table in (module._parameters, module._buffers, module.__dict__):
            for value in table.values():
                if isinstance(value, Tensor) and id(value) not in memo:
                    memo[id(value)] = made = convert(value)
                    if isinstance(value, nn.Parameter):
                        made._is_param = True  # what nn.Parameter does to a tensor subclass, without its detach()
                        made.requires_grad_(gradients and value.is_floating_point())
                    keep.append(value)
        for name in HOOKS:
            hooks = getattr(module, name)
            memo[id(hooks)] = type(hooks)()
        if HOOK in vars(module):  # accelerate's: it holds real weights, and the copy needs none
            memo |= {id(vars(module)[name]): _LEFT_OUT for name in (HOOK, FORWARD) if name in vars(module)}
    copied = copy.deepcopy(model, memo).eval()
    for module in copied.modules():
        if vars(module).pop(HOOK, None) is _LEFT_OUT:
            module.forward = vars(module).pop(OLD_FORWARD)
    checkpointing_off(copied)
    return copied
