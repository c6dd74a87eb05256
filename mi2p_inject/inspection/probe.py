"""The dry run: what every wanted module gives, seen without computing anything; the model is not touched."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

from mi2p_inject.core.errors import InjectionError, ProbeError
from mi2p_inject.core.inputs import Inputs, tensors_in
from mi2p_inject.core.layout import is_plain_dataclass, parts_of, with_part
from mi2p_inject.inspection.dry_run import places

__all__ = ["Observation", "observe", "probe"]


@dataclass
class Observation:
    """What one module did in a dry run."""

    path: str
    output: Any = None
    """Its last output; tensors in it are mostly fake: shapes and dtypes only."""
    times: int = 0
    """How often it fired; where the run was stopped early, at least so often."""
    reaches_output: list[Tensor] | None = None
    """The tensors of `output` on which the model's own output depends; None: not asked for, or not to be known."""
    noises: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    blind: bool = False
    """It ran under no_grad: the graph does not say whether it reaches the output."""


def probe(
    model: nn.Module,
    paths: Sequence[str],
    inputs: Inputs,
    *,
    call: str = "forward",
    effect: bool = False,
    stop: bool = False,
) -> tuple[dict[str, Observation], Any]:
    """Run a model dry, once, and watch some of its modules.

    It runs in eval mode on a fake copy. Where its code does not get through on fake tensors (it looks at values), the
    model itself runs once for real and is left as it was; one without weights, on a meta copy.

    Args:
        model: the model; it is not touched.
        paths: modules to watch.
        inputs: (args, kwargs) of example inputs.
        call: the method to run: "forward" runs the module as users call it.
        effect: also find out whether the output depends on each watched module's output, by its autograd graph.
        stop: end the run as soon as all watched modules have fired: for shapes alone. How often a module fires, whether
            it reaches the output, and the model's output are known only from a whole run.

    Returns:
        Observations by path, and the model's output (None from a stopped run).

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
    failures: list[Exception] = []
    for place in places(model):
        seen = {path: Observation(path) for path in paths}
        waiting = set(paths) if stop else None
        output = None
        try:
            with place(model, gradients=effect) as (runner, convert), torch.set_grad_enabled(effect):
                for path in paths:
                    runner.get_submodule(path).register_forward_hook(_Watch(seen[path], effect, waiting))
                args, kwargs = convert(inputs)
                with suppress(_AllSeen):
                    output = runner(*args, **kwargs) if call == "forward" else getattr(runner, call)(*args, **kwargs)
                if effect:
                    _note_reached(seen, output, model)
        except Exception as error:
            failures.append(error)
            continue
        return seen, output
    last = failures[-1]
    how = "pass example_inputs= (source_example_inputs= for the source) as this model is called in your code"
    if any(parameter.is_meta for parameter in model.parameters()):
        how += "; if its code looks at values, build it with weights (random ones do)"
    raise ProbeError(
        f"the dry run of {type(model).__name__} failed: {type(last).__name__}: {last}",
        expected="a forward pass on the example inputs",
        given=_describe_inputs(inputs),
        fix=how,
    ) from failures[0]


def observe(model: nn.Module, paths: Sequence[str], inputs: Inputs, call: str = "forward") -> dict[str, Observation]:
    """A dry run in which the path "" stands for what `call` returns, whatever `call` is."""
    seen, output = probe(model, paths, inputs, call=call, stop="" not in paths)
    return {**seen, "": Observation("", output, times=1)} if "" in seen else seen


class _AllSeen(BaseException):
    """Ends a run that has shown all that is wanted; no model's `except Exception` swallows it."""


class _Watch:
    """A forward hook that records, and for the effect check adds a zero that is looked for in the graph later."""

    def __init__(self, observation: Observation, effect: bool, waiting: set[str] | None) -> None:
        self.observation, self.effect, self.waiting = observation, effect, waiting

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        self.observation.times += 1
        self.observation.output = output
        if self.waiting is not None:
            self.waiting.discard(self.observation.path)
            if not self.waiting:
                raise _AllSeen
        if not self.effect:
            return None
        self.observation.blind |= not torch.is_grad_enabled()
        if not is_plain_dataclass(output):
            return pytree.tree_map_only(Tensor, self._noisy, output)
        for name, part in parts_of(output).items():  # torch's trees do not know it
            if isinstance(part, Tensor):
                output = with_part(output, name, self._noisy(part))
        return output

    def _noisy(self, leaf: Tensor) -> Tensor:
        if not leaf.is_floating_point():
            return leaf
        noise = torch.zeros_like(leaf, requires_grad=True)
        self.observation.noises.append((leaf, noise))
        return leaf + noise


def _note_reached(seen: dict[str, Observation], output: Any, model: nn.Module) -> None:
    """Note which watched tensors the output depends on, where the graph says so.

    The parameters of the run require gradients: an output without any graph was computed under no_grad, behind
    quantised layers or is no tensor we can see, and shows nothing.
    """
    outputs = [tensor for tensor in tensors_in(output) if tensor.requires_grad]
    if not outputs:
        return
    reached = _leaves_of(outputs)
    for observation in seen.values():
        reaching = [leaf for leaf, noise in observation.noises if noise in reached]
        observation.reaches_output = None if observation.blind else reaching
    if any(type(module).__module__.startswith("torch.ao.nn") for module in model.modules()):
        for observation in seen.values():  # quantised modules cut the graph: nothing is known
            observation.reaches_output = observation.reaches_output or None


def _leaves_of(outputs: Sequence[Tensor]) -> set[Tensor]:
    """The leaves that some tensors' graph leads to: a walk over the graph, cheaper than a backward."""
    leaves = {tensor for tensor in outputs if tensor.is_leaf}
    nodes = [tensor.grad_fn for tensor in outputs if tensor.grad_fn is not None]
    visited = set(nodes)
    while nodes:
        node = nodes.pop()
        if (leaf := getattr(node, "variable", None)) is not None:
            leaves.add(leaf)
        more = {following for following, _ in node.next_functions if following is not None} - visited
        visited |= more
        nodes += more
    return leaves


def _describe_inputs(inputs: Inputs) -> str:
    args, kwargs = inputs
    parts = [_describe(value) for value in args] + [f"{name}={_describe(value)}" for name, value in kwargs.items()]
    return ", ".join(parts) or "nothing"


def _describe(value: Any) -> str:
    return (
        f"{str(value.dtype).removeprefix('torch.')}{tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
    )
