"""The dry run: what every wanted module gives, seen on fake tensors; nothing is computed, the model is not touched."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes

from mi2p_inject.borrow import HOOKS, left_as_is
from mi2p_inject.caches import caches_cleared
from mi2p_inject.errors import InjectionError, ProbeError

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
    blind: bool = False
    """It ran under no_grad: the graph does not say whether it is heard."""


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
        InjectionError: the model has lazy parameters that no forward has given a shape yet.
        ProbeError: the model does not run on these inputs at all.
    """
    if any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
        raise InjectionError(
            f"{type(model).__name__} has lazy parameters without a shape",
            expected="a model whose parameters have their shapes",
            given="uninitialised parameters",
            fix="run it once first, on an example batch",
        )
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
    quiet, random = _quiet(), torch.random.fork_rng(devices=[])
    with caches_cleared(model), quiet, random, mode, torch.set_grad_enabled(effect):
        fake = fake_copy(model, mode)
        fake.eval()
        args, kwargs = pytree.tree_map_only(Tensor, lambda tensor: _fake_like(tensor, mode), inputs)
        for path in paths:
            fake.get_submodule(path).register_forward_hook(_Watch(seen[path], effect))
        output = _run(fake, args, kwargs, call)
        if effect:
            _listen(seen, output, lambda: _carries_gradient(fake_copy(model, mode).eval(), args, kwargs, call))
            _doubt(seen, model)
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
        output = _run(model, args, kwargs, call)
        if effect:
            _listen(seen, output, lambda: _carries_gradient(model, args, kwargs, call))
            _doubt(seen, model)
    return seen, output


def _run(model: nn.Module, args: Any, kwargs: Any, call: str) -> Any:
    return model(*args, **kwargs) if call == "forward" else getattr(model, call)(*args, **kwargs)


@contextmanager
def _quiet() -> Iterator[None]:
    """torch logs a traceback for each fake operation that fails; here a failing run is an answer."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    disabled, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = disabled


def tensors_in(output: Any, depth: int = 3) -> list[Tensor]:
    """All tensors of an output, those in the fields of dataclasses and plain objects too."""
    found = []
    for leaf in pytree.tree_leaves(output):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif depth and isinstance(getattr(leaf, "__dict__", None), dict) and not isinstance(leaf, (type, nn.Module)):
            found += tensors_in(list(vars(leaf).values()), depth - 1)
        elif depth and is_dataclass(leaf) and not isinstance(leaf, type):  # with slots
            found += tensors_in([getattr(leaf, one.name, None) for one in fields(leaf)], depth - 1)
    return found


class _Watch:
    """A forward hook that records, and for the effect check adds a fake noise whose gradient is asked for later."""

    def __init__(self, observation: Observation, effect: bool) -> None:
        self.observation, self.effect = observation, effect

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        self.observation.times += 1
        self.observation.output = output
        if not self.effect:
            return None
        self.observation.blind |= not torch.is_grad_enabled()
        leaves, structure = pytree.tree_flatten(output)
        for index, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor) and leaf.is_floating_point():
                noise = torch.zeros_like(leaf, requires_grad=True)
                leaves[index] = leaf + noise
                self.observation.noises.append((leaf, noise))
        return pytree.tree_unflatten(leaves, structure)


def _listen(seen: dict[str, Observation], output: Any, carries: Callable[[], bool]) -> None:
    """Note which watched tensors the output depends on, where the graph says so.

    Args:
        seen: what was watched.
        output: of the model.
        carries: whether the model's output has a graph at all; asked only where it has none to the watched tensors.
    """
    outputs = [tensor for tensor in tensors_in(output) if tensor.requires_grad]
    noises = [(observation, leaf, noise) for observation in seen.values() for leaf, noise in observation.noises]
    if not outputs and not (tensors_in(output) and carries()):
        return
    for observation in seen.values():
        observation.heard = None if observation.blind else []
    if not outputs or not noises:
        return
    total = torch.stack([tensor.float().sum() for tensor in outputs]).sum()
    grads = torch.autograd.grad(total, [noise for *_, noise in noises], allow_unused=True)
    for (observation, leaf, _), grad in zip(noises, grads, strict=True):
        if grad is not None and observation.heard is not None:
            observation.heard.append(leaf)


def _doubt(seen: dict[str, Observation], model: nn.Module) -> None:
    """Quantised modules cut the graph: what is not heard through it may be heard all the same."""
    if any(type(module).__module__.startswith("torch.ao.nn") for module in model.modules()):
        for observation in seen.values():
            observation.heard = observation.heard or None


def _carries_gradient(model: nn.Module, args: Any, kwargs: Any, call: str) -> bool:
    """Whether the output depends on the parameters by the graph: not so under no_grad or behind quantised layers."""
    asked = [one for one in model.parameters() if one.is_floating_point() and not one.requires_grad]
    try:
        for parameter in asked:
            parameter.requires_grad_(True)
        return any(tensor.requires_grad for tensor in tensors_in(_run(model, args, kwargs, call)))
    except Exception:
        return False
    finally:
        for parameter in asked:
            parameter.requires_grad_(False)


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
        for name in HOOKS:
            hooks = getattr(module, name)
            memo[id(hooks)] = type(hooks)()
    return copy.deepcopy(model, memo)


def _fake_like(tensor: Tensor, mode: FakeTensorMode) -> Tensor:
    """A fake CPU tensor of the same shape, strides and dtype, whatever the device of the original."""
    strided = tensor.layout is torch.strided and not tensor.is_nested
    strides = tensor.stride() if strided else torch.empty(tensor.shape, device="meta").stride()
    with _disable_current_modes():  # under the mode itself the shell would be fake already
        shell = torch.empty_strided(tuple(tensor.shape), strides, dtype=tensor.dtype, device="meta")
        return FakeTensor(mode, shell, torch.device("cpu"))  # built directly: a call under the mode costs half the run


def _describe_inputs(inputs: Inputs) -> str:
    args, kwargs = inputs
    parts = [_describe(value) for value in args] + [f"{name}={_describe(value)}" for name, value in kwargs.items()]
    return ", ".join(parts) or "nothing"


def _describe(value: Any) -> str:
    return (
        f"{str(value.dtype).removeprefix('torch.')}{tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
    )
