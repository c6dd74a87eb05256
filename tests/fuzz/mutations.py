"""What a fuzzer does to bytes and to JSON, and the bounds within which everything must end."""

from __future__ import annotations

import contextlib
import copy
import os
import resource
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
FUZZ = settings(
    max_examples=3000 if NIGHTLY else 60,
    deadline=None,
    derandomize=not NIGHTLY,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
FEW = settings(FUZZ, max_examples=1000 if NIGHTLY else 12)
"""Where one example takes a quarter of a second."""
fuzz = pytest.mark.fuzz

SECONDS = 60
MEGABYTES = 400

_WORDS = [
    "",
    "all",
    "units",
    "map",
    "tokens",
    "0",
    "mi2p",
    "../x",
    "/dev/zero",
    "\0",
    "\ud800",
    "a" * 300,
    "🙂",
    "NCHW",
    "__proto__",
]
_NUMBERS = [0, 1, -1, 2, 3, 7, 255, 2**31, 2**31 - 1, 2**63, 2**64, -(2**63), 10**40, 1e308, -0.0, 0.5]
_SIMPLE = st.one_of(
    st.none(), st.booleans(), st.sampled_from(_NUMBERS), st.integers(), st.floats(), st.sampled_from(_WORDS), st.text()
)
VALUES = st.recursive(
    _SIMPLE,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
)


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Ends in time, and takes no more memory than a small file can ask for."""

    def late(*_: Any) -> None:
        raise AssertionError(f"more than {SECONDS} seconds")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    handler = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < MEGABYTES, f"{grown:.0f} MB"


def _places(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at] if at else []
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        found += _places(value, (*at, key))
    return found


@st.composite
def mutated_json(draw: st.DrawFn, base: Any) -> Any:
    """A JSON with one to four places changed: another value, another place's value, deleted, doubled, renamed."""
    tree = copy.deepcopy(base)
    for _ in range(draw(st.integers(1, 4))):
        places = _places(tree)
        if not places:
            return draw(VALUES)
        *way, last = draw(st.sampled_from(places))
        parent = tree
        for key in way:
            parent = parent[key]
        kind = draw(st.sampled_from(["value", "value", "other place", "delete", "double", "rename"]))
        if kind == "value":
            parent[last] = draw(VALUES)
        elif kind == "other place":
            *path, end = draw(st.sampled_from(places))
            other = tree
            for key in path:
                other = other[key]
            parent[last] = copy.deepcopy(other[end])
        elif kind == "delete":
            del parent[last]
        elif kind == "double":
            parent[last] = [parent[last], parent[last]]
        elif isinstance(parent, dict):
            parent[draw(st.text(max_size=12))] = parent.pop(last)
    return tree


@st.composite
def mutated_bytes(draw: st.DrawFn, base: bytes) -> bytes:
    """Bytes with one to four changes: bits flipped, cut, a stretch overwritten, doubled, moved or inserted."""
    data = bytearray(base)
    for _ in range(draw(st.integers(1, 4))):
        if not data:
            return draw(st.binary(max_size=64))
        at = draw(st.integers(0, len(data) - 1))
        length = min(draw(st.sampled_from([1, 2, 8, 64, len(data)])), len(data) - at)
        kind = draw(st.sampled_from(["flip", "flip", "cut", "overwrite", "double", "insert", "remove", "number"]))
        if kind == "flip":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del data[at:]
        elif kind == "overwrite":
            data[at : at + length] = bytes([draw(st.sampled_from([0, 255, 32, 34, 91]))]) * length
        elif kind == "double":
            data[at:at] = data[at : at + length]
        elif kind == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=16))
        elif kind == "remove":
            del data[at : at + length]
        else:
            data[at : at + 8] = draw(st.sampled_from([0, 2**63, 2**64 - 1, len(data), 10**8])).to_bytes(8, "little")
    return bytes(data)
