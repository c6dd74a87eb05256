"""The call that each thread is in: its sources, its units, and the sites that have fired so far."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from mi2p_inject.core.errors import SourceError
from mi2p_inject.core.expansion_config import UnitPlace
from mi2p_inject.sources.prepared import PreparedSource
from mi2p_inject.units.base import Unit
from mi2p_inject.units.unit_dict import UnitDict

__all__ = ["Call", "Calls", "Now", "Recorder", "TakesPart", "UnitForward", "backward_pass", "choices"]


def backward_pass() -> int:
    """The backward pass that this code runs inside; -1: none."""
    return -1 if torch.compiler.is_compiling() else torch._C._current_graph_task_id()


@dataclass(frozen=True, eq=False)
class UnitForward:
    """One unit's forward.

    Attributes:
        view: the hidden state that it read.
        source: what it attended to.
        residual: what it adds.
        weights: of its attention, where it has any.
    """

    view: Tensor
    source: PreparedSource
    residual: Tensor
    weights: list[Tensor]


class Recorder(Protocol):
    """Whoever is given what a call's units did: see `mi2p_inject.explain.record_attention`."""

    def take(self, call: Call, place: UnitPlace, unit: Unit, did: UnitForward) -> None:
        """What one unit's forward read, gave and handed over."""


@dataclass(eq=False)
class Call:
    """One forward of an expanded model, or one call of a method of its backbone."""

    sources: Mapping[str, PreparedSource]
    """By name, those that are there; the others' units add nothing."""
    units: UnitDict
    """The expanded model's units as they are now: whoever replaces one needs no new hooks."""
    image: tuple[int, int] | None = None
    """Size of the image that went into the backbone, if one did."""
    once: bool = True
    """One forward, in which each site fires once; False: a method that runs the backbone as often as it likes."""
    repeat: Callable[[str, Tensor], PreparedSource] | None = None
    """A source with some of its rows repeated, given its name and their indices."""
    times: int | None = None
    """How often the backbone repeats each row: the choices of a multiple-choice model. None: as it likes (beams)."""
    doubled: int = 0
    """So many times the rows of the source are those of the samples and then as many without a prompt: guidance."""
    takes_part: bool = False
    """The units of sources that are missing have a place in the graph for their parameters (see `TakesPart`)."""
    block: bool = False
    """It is a `with me.source(...)` block."""
    recorders: tuple[Recorder, ...] = ()
    """Of the units' attention. A recomputed forward forms the weights again, as its first one did."""
    fired: list[str] = field(default_factory=list)
    gradients: bool = field(default_factory=torch.is_grad_enabled)
    """Whether gradients were wanted when it began."""
    began_in: int = field(default_factory=backward_pass)
    """The backward pass that it began in; -1: none."""
    _given: dict[tuple[str, int, torch.device, bool], PreparedSource] = field(default_factory=dict)
    _batches: dict[str, int] = field(default_factory=dict)

    def is_outside(self) -> bool:
        """Whether it is around a backward pass that this code runs inside: what is recomputed there may be another's.

        A block may hold backward passes of forwards that ran before it, or that had a source of their own.
        """
        now = backward_pass()
        return now not in (-1, self.began_in)

    def source_for(self, name: str, path: str, batch: int, device: torch.device) -> PreparedSource:
        """A source for a batch at a site: the batch of the call, or each of its rows repeated alike.

        Args:
            name: of a source that is there.
            path: of the site.
            batch: rows at the site.
            device: of the site; a backbone may be spread over several.

        Raises:
            SourceError: whose rows these are cannot be told.
        """
        source = self.sources[name]
        rows = source.batch
        if self.repeat is not None and rows and not self.times:
            self._check_whose(path, rows, batch)
        same = self.repeat is None or batch == rows or not rows or batch != rows * (self.times or batch // rows)
        if same and device == source.tokens.device:
            return source
        key = name, batch, device, torch.is_grad_enabled()  # what is made without gradients has no graph to hand on
        if key in self._given:
            return self._given[key]
        if not same and self.repeat is not None:
            indices = torch.arange(rows, device=source.tokens.device).repeat_interleave(batch // rows)
            source = self.repeat(name, indices)
        source = source.to(device)
        if not source.tokens.requires_grad:  # else each checkpointed region makes its own, at first and once more
            self._given[key] = source
        return source

    def _check_whose(self, path: str, rows: int, batch: int) -> None:
        """Refuse rows at a site that are not each sample's own, side by side, as many in every step."""
        expected = "each sample's rows side by side, as many in every step"
        if self.doubled and batch == rows * self.doubled:
            raise SourceError(
                "guidance runs the samples and then as many rows without a prompt",
                path=path,
                expected=expected,
                given=f"{batch} rows of {rows} samples",
                fix=f"pass source features of {batch} rows, in that order",
            )
        before = batch if self.block else self._batches.setdefault(path, batch)  # a block may run many calls
        if before != batch:
            raise SourceError(
                "the rows at this site change within the call, as where samples end one by one",
                path=path,
                expected=expected,
                given=f"{batch} rows of {rows} samples, after {before}",
                fix="call it for one sample at a time",
            )


class Now:
    """What is going on in one thread.

    An object beside the thread's own: where torch.compile breaks a graph in the midst of a forward, it loses what was
    set on a `threading.local`.
    """

    def __init__(self) -> None:
        self.call: Call | None = None
        self.disabled = False
        self.recorders: tuple[Recorder, ...] = ()
        self.place: object | None = None
        """Of the innermost block that is open."""


_PLACES: ContextVar[frozenset[object]] = ContextVar("mi2p_inject.blocks", default=frozenset())
"""Of the blocks that are open in this task; each task has its own."""


class Calls(threading.local):
    """The call each thread is in, None outside a forward with a source. Copies and pickles start empty."""

    def __init__(self) -> None:
        """Runs in each thread: what a graph was compiled with must not appear later, or it is compiled again."""
        self.now = Now()

    @contextmanager
    def block(self, call: Call | None, disabled: bool) -> Iterator[None]:
        """A block in which this is the thread's call, or none has an effect.

        Raises:
            SourceError: as `check_task`.
        """
        self.check_task()
        now, places = self.now, _PLACES.get()
        outer = now.call, now.disabled, now.place
        now.call, now.disabled, now.place = call, disabled, object()
        _PLACES.set(places | {now.place})
        try:
            yield
        finally:
            now.call, now.disabled, now.place = outer
            _PLACES.set(places)

    def check_task(self) -> None:
        """Refuse what another task (of asyncio, trio) runs in this thread while a block is open.

        Raises:
            SourceError: it would have the block's source, or none, without a word.
        """
        if self.now.place is not None and self.now.place not in _PLACES.get():
            raise SourceError(
                "another task of this thread is inside a block of this model",
                expected="one task at a time in `with me.source(...)` and `with me.disabled()`",
                given="an await inside the block",
                fix="call me(x, source=s) or me.call(method, ..., source=s), which need no block; or await outside it",
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return (Calls, ())

    def __deepcopy__(self, memo: dict[int, Any]) -> Calls:
        copied: Calls = memo.setdefault(id(self), Calls())
        return copied


class TakesPart(torch.autograd.Function):
    """Zeros like a view, with a unit's parameters in their graph: each gets a gradient of zero.

    DistributedDataParallel waits for the gradient of every parameter in every step, also in one without a source.
    """

    @staticmethod
    def forward(ctx: Any, view: Tensor, *parameters: Tensor) -> Tensor:
        """Zeros of the view's shape."""
        ctx.parameters = [(one.shape, one.dtype, one.device) for one in parameters]
        return torch.zeros_like(view)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """None for the view, zeros for the parameters."""
        return None, *(torch.zeros(shape, dtype=dtype, device=device) for shape, dtype, device in ctx.parameters)


def choices(args: tuple[Any, ...], kwargs: Mapping[str, Any], batch: int) -> int | None:
    """How many choices a multiple-choice model gets of each sample: the ids' second axis of three; None: it is none."""
    for value in (*args, *kwargs.values()):
        ids = isinstance(value, Tensor) and value.dim() == 3 and not value.is_floating_point()
        if ids and value.shape[0] == batch:
            return int(value.shape[1])
    return None
