"""What a source encoder's features depend on: its weights, its buffers, its settings, and how it is read."""

from __future__ import annotations

import hashlib
import json
import types
from typing import Any

from torch import nn

from mi2p_inject.core.errors import SourceError
from mi2p_inject.core.files.digest import contents
from mi2p_inject.core.weights.offload import state_of
from mi2p_inject.sources.encoder import Source

__all__ = ["fingerprint"]

IGNORED = ("training", "name_or_path")
"""Attributes of modules that say nothing of the features: an encoder runs in eval mode, and a folder may be moved."""


def fingerprint(source: Source, *more: str) -> str:
    """A short hash that changes with the features: of an encoder, how it is read, and whatever else is named.

    Two encoders with the same weights need not give the same: a BERT's number of heads, an activation, a stride and a
    normalisation's epsilon are in no state dict. So the classes and plain attributes of all modules count, the
    configuration of a transformers model, and buffers that are not saved.

    Args:
        source: the encoder and its readout.
        more: what else the features depend on.

    Raises:
        SourceError: the encoder has a state of which no checksum can be made.
    """
    digest = hashlib.sha256(repr((more, _readout(source))).encode())
    encoder = source.encoder
    for name, module in encoder.named_modules():
        digest.update(f"{name} {type(module).__module__}.{type(module).__qualname__} {_settings(module)}".encode())
    config: Any = getattr(encoder, "config", None)
    if hasattr(config, "to_dict"):
        stated = {key: value for key, value in config.to_dict().items() if not key.startswith(("_", "transformers_"))}
        digest.update(json.dumps(stated, sort_keys=True, default=str).encode())
    for name, tensor in {**dict(encoder.named_buffers()), **state_of(encoder)}.items():
        digest.update(name.encode())
        _update(digest, name, tensor)
    return digest.hexdigest()[:16]


def _update(digest: hashlib._Hash, name: str, value: object) -> None:
    try:
        for piece in contents(value):
            digest.update(piece)
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise SourceError(
            f"the source encoder has a state of which no checksum can be made: {error}",
            expected="tensors with content, numbers, words and lists of these",
            given=f"{type(value).__name__} in {name}",
            fix="encode in every step instead of caching",
        ) from error


def _readout(source: Source) -> tuple[Any, ...]:
    readout = source.readout
    return source.layout.to_json(), readout.call, source.path, getattr(readout.mask, "__qualname__", None)


def _settings(module: nn.Module) -> list[tuple[str, str]]:
    """Attributes that are numbers, words, sequences of these, or functions (an activation)."""
    stated = []
    for name, value in sorted(vars(module).items()):
        if name.startswith("_") or name in IGNORED:
            continue
        if _plain(value):
            stated.append((name, repr(value)))
        elif isinstance(value, (types.FunctionType, types.BuiltinFunctionType)):
            stated.append((name, value.__qualname__))
    return stated


def _plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_plain(one) for one in value)
    return value is None or isinstance(value, (bool, int, float, str))
