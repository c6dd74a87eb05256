"""What a tensor holds, to the last bit: as bytes, as a digest, and as a quick sum that tells whether it has changed."""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from mi2p_inject.core.files.read import check_regular
from mi2p_inject.core.weights.offload import OffloadedTensor, state_of

__all__ = ["contents", "digests", "file_digest", "quick_sums", "raw_bytes"]

_PLAIN = (bool, int, float, str, bytes, torch.dtype, torch.device, torch.layout, torch.qscheme, type(None))
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""What a representation says of this process only."""
_THREADS = 4
"""More than one, as hashing leaves the interpreter; few, as each may hold a copy of a tensor from another device."""
_PIECE = 2**20
_WORTH_THREADS = 2**24
"""Bytes below which starting threads takes longer than hashing."""


def raw_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a dense tensor in the order of its elements; without a copy where it is contiguous on the CPU."""
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data


def contents(value: object) -> Iterator[bytes | memoryview]:
    """All that a value of a state dict consists of: tensors of any kind, numbers, words, and collections of these.

    Quantised tensors, sparse ones and subclasses made of inner tensors (torchao, DTensor) are taken apart.

    Raises:
        TypeError: it holds something else, or a tensor on the meta device.

    Examples:
        >>> b"".join(contents((torch.zeros(2, dtype=torch.int8), "a")))
        b"tuple 2;Tensor torch.int8 (2,);\\x00\\x00'a';"
    """
    if isinstance(value, Tensor):
        yield from _contents_of_tensor(value)
    elif isinstance(value, OffloadedTensor):
        yield from contents(value.read())
    elif isinstance(value, (list, tuple)):
        yield f"{type(value).__name__} {len(value)};".encode()
        for one in value:
            yield from contents(one)
    elif isinstance(value, Mapping):
        yield f"mapping {len(value)};".encode()
        for key, one in value.items():
            yield from contents((key, one))
    elif isinstance(value, _PLAIN):
        yield f"{value!r};".encode()
    else:
        raise TypeError(f"{type(value).__name__} is neither a tensor nor a plain value")


def file_digest(path: Path) -> str:
    """SHA-256 of a regular file's bytes, read piece by piece.

    Raises:
        OSError: it cannot be read, is a device, a pipe or a folder, or gives more than its size says.
    """
    left = check_regular(path)
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(min(_PIECE, left + 1)):
            left -= len(piece)
            if left < 0:  # as files of /proc, some of which never end
                raise OSError(errno.EINVAL, "more bytes than the file's size", str(path))
            digest.update(piece)
    return digest.hexdigest()


def digests(tensors: Mapping[str, object]) -> dict[str, str]:
    """SHA-256 of each value's `contents`, by name.

    Raises:
        TypeError: as `contents`.

    Examples:
        >>> digests({"a": torch.zeros(3)}) == digests({"a": torch.tensor([0.0, 0.0, 1e-45])})
        False
    """
    if sum(value.nbytes for value in tensors.values() if isinstance(value, Tensor)) < _WORTH_THREADS:
        return {name: _digest(value) for name, value in tensors.items()}
    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip(tensors, pool.map(_digest, tensors.values()), strict=True))


def quick_sums(module: nn.Module) -> dict[str, int | None]:
    """A number for each tensor of a module's state that changes when training changes it; None for what has none.

    It is made of sums of the tensor's bits taken as integers, of the rows and of the columns of a square: two passes
    over memory, on the tensor's own device. Numbers that change places change it. It tells whether a tensor was written
    to, not whether somebody has forged it.
    """
    return {name: _quick_sum(value) for name, value in state_of(module).items()}


def _digest(value: object) -> str:
    digest = hashlib.sha256()
    for piece in contents(value):
        digest.update(piece)
    return digest.hexdigest()


def _contents_of_tensor(tensor: Tensor) -> Iterator[bytes | memoryview]:
    if tensor.is_meta:
        raise TypeError("a tensor on the meta device holds nothing")
    tensor = tensor.detach()
    yield f"{type(tensor).__name__} {tensor.dtype} {tuple(tensor.shape)};".encode()
    if is_traceable_wrapper_subclass(tensor):
        names, context = tensor.__tensor_flatten__()
        yield f"{_ADDRESS.sub('', repr(context))};".encode()
        for name in names:
            yield from contents((name, getattr(tensor, name)))
    elif tensor.is_quantized:
        yield from contents(tensor.int_repr())
        if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
            yield from contents((tensor.q_scale(), tensor.q_zero_point()))
        else:
            channels = (tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points(), tensor.q_per_channel_axis())
            yield from contents(channels)
    elif tensor.layout is torch.strided:
        yield raw_bytes(tensor)
    else:
        yield from contents(tensor.to_dense())


def _quick_sum(value: object) -> int | None:
    if not isinstance(value, Tensor) or type(value) not in (Tensor, nn.Parameter):
        return None
    if value.is_meta or value.is_quantized or value.layout is not torch.strided:
        return None
    flat = value.detach().contiguous().view(-1).view(torch.uint8)
    words = flat.view(torch.int64) if len(flat) % 8 == 0 else flat
    side = 2 ** (len(words).bit_length() // 2)
    square, rest = words[: len(words) // side * side].view(-1, side), words[len(words) // side * side :]
    return hash(tuple(_weighted(sums) for sums in (square.sum(1), square.sum(0), rest)))


def _weighted(numbers: Tensor) -> int:
    """A sum that depends on the order."""
    weights = 2 * torch.arange(len(numbers), device=numbers.device) + 1
    return int((numbers.to(torch.int64) * weights).sum())
