"""The dry run: what every wanted module gives, seen on fake tensors; nothing is computed, the model is not touched."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree

from mi2p_inject.errors import ProbeError

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass
class Observation:
    """What one module did in a dry run."""

    path: str
    output: Any = None
    """Its last output; tensors in it are fake: shapes and dtypes only."""
    times: int = 0
    """How often it fired."""
    heard: list[Tensor] | None = None
    """The tensors of `output` on which the model's own output depends; None: not asked for, or not to be known."""
    noises: list[tuple[Tensor, Tensor]] = field(default_factory=list)


def as_inputs(example: Any) -> Inputs:
    """(args, kwargs) from example inputs as a user gives them: a tensor, a tuple or list of them, or a mapping."""
    if isinstance(example, Mapping):
        return (), dict(example)
    return (tuple(example) if isinstance(example, (tuple, list)) else (example,)), {}


def probe(
    model: nn.Module, paths: Sequence[str], inputs: Inputs, *, call: str = "forward", effect: bool = False
) -> tuple[dict[str, Observation], Any]:
    """Run a fake copy of a model once and watch some of its modules.

    The copy shares no tensor with the model: each parameter and buffer is replaced by a fake tensor of its shape,
    so nothing is allocated or computed, and weights on the meta device are fine. It runs in eval mode. Where an
    architecture cannot run on fake tensors (data-dependent control flow), the model itself runs once for real, in
    eval mode, and is left as it was.

    Args:
        model: the model; it is not touched.
        paths: modules to watch.
        inputs: (args, kwargs) of example inputs.
        call: the method to run: "forward" runs the module as users call it.
        effect: also find out whether the output depends on each watched module's output, by the graph of one backward.

    Returns:
        Observations by path, and the model's output (fake tensors).

    Raises:
        ProbeError: the model does not run on these inputs at all.
    """
    try:
        return _probe_fake(model, paths, inputs, call, effect)
    except Exception as fake_error:
        try:
            return _probe_real(model, paths, inputs, call, effect)
        except Exception as error:
            raise ProbeError(
                f"the dry run of {type(model).__name__} failed: {type(error).__name__}: {error}",
                expected="a forward pass on the example inputs",
                given=_describe_inputs(inputs),
                fix="pass example_inputs= (source_example_inputs= for the source) as this model is called in your code",
            ) from fake_error


def _probe_fake(
    model: nn.Module, paths: Sequence[str], inputs: Inputs, call: str, effect: bool
) -> tuple[dict[str, Observation], Any]:
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    seen = {path: Observation(path) for path in paths}
    with _caches_cleared(model), torch.random.fork_rng(devices=[]), mode, torch.set_grad_enabled(effect):
        fake = fake_copy(model, mode)
        fake.eval()
        args, kwargs = pytree.tree_map_only(Tensor, lambda tensor: _fake_like(tensor, mode), inputs)
        for path in paths:
            fake.get_submodule(path).register_forward_hook(_Watch(seen[path], effect))
        output = fake(*args, **kwargs) if call == "forward" else getattr(fake, call)(*args, **kwargs)
        if effect:
            _listen(seen, output)
    return seen, output


def _probe_real(
    model: nn.Module, paths: Sequence[str], inputs: Inputs, call: str, effect: bool
) -> tuple[dict[str, Observation], Any]:
    seen = {path: Observation(path) for path in paths}
    first = next(iter(model.parameters()), torch.empty(0))
    with left_as_is(model), torch.set_grad_enabled(effect):
        for path in paths:
            model.get_submodule(path).register_forward_hook(_Watch(seen[path], effect))
        args, kwargs = pytree.tree_map_only(Tensor, lambda tensor: tensor.to(first.device), inputs)
        output = model(*args, **kwargs) if call == "forward" else getattr(model, call)(*args, **kwargs)
        if effect:
            _listen(seen, output)
    return seen, output


@contextmanager
def left_as_is(model: nn.Module) -> Iterator[None]:
    """For a real run of somebody's model: eval mode, no forward hooks but those added inside, a borrowed random state.

    Modes and hooks are given back as they were; hooks added inside go.
    """
    kept = [(module, module.training, dict(module._forward_hooks)) for module in model.modules()]
    try:
        for module, _, _ in kept:
            module.training = False
            module._forward_hooks.clear()
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        for module, training, hooks in kept:
            module.training = training
            module._forward_hooks.clear()
            module._forward_hooks.update(hooks)


class _Watch:
    """A forward hook that records, and for the effect check adds a fake noise whose gradient is asked for later."""

    def __init__(self, observation: Observation, effect: bool) -> None:
        self.observation, self.effect = observation, effect

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        self.observation.times += 1
        self.observation.output = output
        if not self.effect:
            return None
        leaves, structure = pytree.tree_flatten(output)
        for index, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor) and leaf.is_floating_point():
                noise = torch.zeros_like(leaf, requires_grad=True)
                leaves[index] = leaf + noise
                self.observation.noises.append((leaf, noise))
        return pytree.tree_unflatten(leaves, structure)


def _listen(seen: dict[str, Observation], output: Any) -> None:
    """Note which watched tensors the output depends on."""
    outputs = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor) and leaf.requires_grad]
    noises = [(observation, leaf, noise) for observation in seen.values() for leaf, noise in observation.noises]
    for observation in seen.values():
        observation.heard = []
    if not outputs or not noises:
        return
    total = torch.stack([tensor.float().sum() for tensor in outputs]).sum()
    grads = torch.autograd.grad(total, [noise for *_, noise in noises], allow_unused=True)
    for (observation, leaf, _), grad in zip(noises, grads, strict=True):
        if grad is not None and observation.heard is not None:
            observation.heard.append(leaf)


def fake_copy(model: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """A deep copy whose every tensor is fake and whose hooks are gone."""
    memo: dict[int, Any] = {}
    keep: list[Any] = []
    for module in model.modules():
        for table in (module._parameters, module._buffers, module.__dict__):
            for value in table.values():
                if isinstance(value, Tensor) and id(value) not in memo:
                    fake = _fake_like(value, mode)
                    if isinstance(value, nn.Parameter):
                        fake = nn.Parameter(fake, requires_grad=False)
                    memo[id(value)] = fake
                    keep.append(value)
        for name in _HOOKS:
            hooks = getattr(module, name)
            memo[id(hooks)] = type(hooks)()
    return copy.deepcopy(model, memo)


_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def _fake_like(tensor: Tensor, mode: FakeTensorMode) -> Tensor:
    """A fake CPU tensor of the same shape, strides and dtype, whatever the device of the original."""
    strided = tensor.layout is torch.strided and not tensor.is_nested
    strides = tensor.stride() if strided else torch.empty(tensor.shape, device="meta").stride()
    shell = torch.empty_strided(tuple(tensor.shape), strides, dtype=tensor.dtype, device="meta")
    return FakeTensor(mode, shell, torch.device("cpu"))  # built directly: a call under the mode costs half the dry run


@contextmanager
def _caches_cleared(model: nn.Module) -> Iterator[None]:
    """Empty, afterwards, the function-level caches of the model's code: a fake tensor must not stay behind in them."""
    try:
        yield
    finally:
        for clear in set(_cache_clearers(model)):
            clear()


def _cache_clearers(model: nn.Module) -> Iterator[Callable[[], None]]:
    classes = {
        cls for module in model.modules() for cls in type(module).__mro__ if not cls.__module__.startswith("torch.")
    }
    modules = [sys.modules[name] for name in {cls.__module__ for cls in classes} if name in sys.modules]
    for owner in (*classes, *modules):
        for value in list(vars(owner).values()):
            clear = getattr(getattr(value, "__func__", value), "cache_clear", None)
            if callable(clear) and hasattr(getattr(value, "__func__", value), "cache_info"):
                yield clear


def _describe_inputs(inputs: Inputs) -> str:
    args, kwargs = inputs
    parts = [_describe(value) for value in args] + [f"{name}={_describe(value)}" for name, value in kwargs.items()]
    return ", ".join(parts) or "nothing"


def _describe(value: Any) -> str:
    return (
        f"{str(value.dtype).removeprefix('torch.')}{tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
    )
