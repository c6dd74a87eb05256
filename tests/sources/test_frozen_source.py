"""The source encoder stands still, whatever mode anybody puts a part of it into; its errors keep their kind."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import PICTURES, complains, net
from models import TINY
from torch import Tensor, nn

from mi2p_inject import ExpandedModel, SourceFeatures, inject
from mi2p_inject.core.errors import SourceError


class Restless(nn.Module):
    """Everything that train mode wakes: dropout as a module and as a function, statistics, its own running mean."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Dropout(0.5), nn.BatchNorm2d(6, momentum=None))
        self.inner = nn.InstanceNorm2d(6, track_running_stats=True)
        self.register_buffer("seen", torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(self.inner(self.body(x)), 0.5, training=self.training)
        if self.training:
            self.seen += x.mean((0, 2, 3)).detach()
        return x + self.seen.view(1, -1, 1, 1)

    def train(self, mode: bool = True) -> Restless:
        """Somebody's own, that leaves a part in train mode."""
        super().train(mode)
        self.inner.training = True
        return self


class Dropped(nn.Module):
    """A known encoder in a wrapper with dropout of its own."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.dropout = inner, nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.dropout(self.inner.forward_features(x))
        return features


def read_by(encoder: nn.Module, batch: Any) -> ExpandedModel:
    return inject(net(), layers="0", source_encoder=encoder, source_example_inputs=batch, example_inputs=PICTURES,
                  zero_init=None)  # fmt: skip


def text() -> tuple[nn.Module, Any]:
    return TINY["bert"].build(), TINY["bert"].inputs(2, 0)[1]


def picture() -> tuple[nn.Module, Any]:
    return TINY["resnet"].build(), TINY["resnet"].inputs(2, 0)[0][0]


ENCODERS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "text": text,
    "picture": picture,
    "restless": lambda: (Restless(), PICTURES),
    "wrapped": lambda: (Dropped(picture()[0]), picture()[1]),
}


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.fault(
    "S6",
    "train() on the source encoder, a wrapped one, a child, one dropout",
    "no dropout, no statistics, no gradient: the same features",
)
def test_a_part_in_train_mode_changes_nothing(name: str) -> None:
    encoder, batch = ENCODERS[name]()
    me = read_by(encoder, batch)
    wanted, state = me.encode(batch), copy.deepcopy(encoder.state_dict())
    out = me(PICTURES, source=batch)
    ways = [encoder.train, *(child.train for child in encoder.children()), lambda: nn.Sequential(encoder).train()]
    ways += [module.train for module in encoder.modules() if isinstance(module, (nn.Dropout, nn.BatchNorm2d))][:3]
    for wake in ways:
        for run in (lambda: me.encode(batch), lambda: me(PICTURES, source=batch)):
            wake()
            given = run()
            assert torch.equal(given.data, wanted.data if isinstance(given, SourceFeatures) else out)
            assert not any(module.training for module in encoder.modules())
    assert all(torch.equal(one, state[key]) for key, one in encoder.state_dict().items())
    assert not any(one.grad is not None for one in encoder.parameters())


@pytest.mark.fault("S6", "train() on a part of a compiled model's source encoder", "the same features")
def test_compiled_it_stands_still_too() -> None:
    encoder, batch = ENCODERS["restless"]()
    me = read_by(encoder, batch)
    torch._dynamo.reset()
    compiled = torch.compile(me, backend="eager", fullgraph=True)
    wanted = me(PICTURES, source=batch)
    torch.testing.assert_close(compiled(PICTURES, source=batch), wanted)
    encoder.body.train()  # type: ignore[union-attr, operator]
    torch.testing.assert_close(compiled(PICTURES, source=batch), wanted)
    assert not encoder.body[1].training  # type: ignore[index]


class Fails(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.error = nn.Conv2d(3, 6, 3), None

    def forward(self, x: Tensor) -> Tensor:
        if self.error is not None:
            raise self.error
        return self.body(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), MemoryError(), KeyboardInterrupt(),
     RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
     RuntimeError("CUDA error: device-side assert triggered"), SystemExit(1), OSError("disk"), StopIteration()],
    ids=repr,
)  # fmt: skip
def test_what_is_no_fault_of_the_batch_is_raised_as_it_is(error: BaseException) -> None:
    encoder = Fails()
    me = read_by(encoder, PICTURES)
    encoder.error = error  # type: ignore[assignment]
    with pytest.raises(type(error)) as caught:
        me(PICTURES, source=PICTURES)
    assert caught.value is error
    encoder.error = None
    me(PICTURES, source=PICTURES)


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyError("ids"), AssertionError("224"), NotImplementedError("Half")]
)
@pytest.mark.fault("sources", "a batch that the encoder does not take", "SourceError with its cause")
def test_what_is_the_batchs_fault_is_said_so(error: Exception) -> None:
    encoder = Fails()
    me = read_by(encoder, PICTURES)
    encoder.error = error  # type: ignore[assignment]
    with complains(SourceError, "does not take this batch", type(error).__name__):
        me(PICTURES, source=PICTURES)
