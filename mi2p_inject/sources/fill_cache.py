"""Encode a whole data set into a source cache.

Files appear whole or not at all, so a killed run goes on where it was; processes that fill one cache at the same time
share the work.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mi2p_inject.core.errors import SourceError
from mi2p_inject.core.files.atomic_write import remove_leftovers, write_file
from mi2p_inject.core.files.lock import LockHeldError, WriterLock
from mi2p_inject.core.human import human
from mi2p_inject.core.weights.offload import computing_device
from mi2p_inject.sources.cache import SourceCache, checksum
from mi2p_inject.sources.encoder import Source
from mi2p_inject.sources.features import SourceFeatures
from mi2p_inject.sources.fingerprint import fingerprint

__all__ = ["FORMAT", "SAMPLES_PER_FILE", "Read", "Say", "fill"]

Read = Callable[[list[str]], Any]
"""Sample ids -> the batch for the source encoder, as `Source.encode` takes it."""
Say = Callable[[str], None]

SAMPLES_PER_FILE = 256
FORMAT = 2


def fill(
    folder: str | Path,
    source: Source | None,
    samples: Sequence[str],
    read: Read,
    *,
    preprocessing: str,
    batch_size: int = 64,
    dtype: torch.dtype | None = None,
    say: Say = print,
    on_batch: Callable[[int, int], None] | None = None,
) -> SourceCache:
    """Encode the samples that are not in the cache yet, and open it.

    Not for augmented sources: what is stored is what the first pass saw, so a source input that changes from epoch to
    epoch would be frozen silently. `read` is therefore asked twice for its first batch, and refused where the answers
    differ.

    Args:
        folder: holds caches of any keys.
        source: the source encoder, as an expanded model holds it: `me.frozen_source`.
        samples: unique ids. An id stands for its content: put a hash into it where the content may change.
        read: ids -> the batch for the encoder; deterministic.
        preprocessing: all that `read` does, in words or as a hash: tokenizer, length, image size.
        batch_size: samples a forward.
        dtype: store in this floating dtype; None: as the encoder gives them.
        say: gets the size as a line before anything is written.
        on_batch: called with (samples done, samples to do) after each batch.

    Raises:
        SourceError: no source encoder, ids that repeat or are no strings, a random `read`, too little room on the disk,
            or a damaged file.
    """
    _check_asked(samples, batch_size, dtype)
    samples = list(samples)
    _check_samples(samples)
    if not isinstance(source, Source):
        raise SourceError(
            "there is no source encoder to fill the cache from",
            expected="the `source` of a model injected with source_encoder=",
            given=type(source).__name__,
            fix="inject with the encoder whose features are to be kept, and pass me.frozen_source",
        )
    place = Path(folder) / fingerprint(source, str(FORMAT), preprocessing, str(dtype), _autocast(source))
    _make(place)
    cache = SourceCache(place)
    ordered = sorted(samples)  # processes that have the same samples in other orders share the work
    chunks = [ordered[start : start + SAMPLES_PER_FILE] for start in range(0, len(ordered), SAMPLES_PER_FILE)]
    _clean(place, chunks)
    missing = [sample for sample in samples if sample not in cache]
    if not missing:
        return cache
    _announce(place, source, missing, read, batch_size, dtype, say)
    done = 0
    for patient in (False, True):  # first what nobody else is at, then wait for what others have begun
        for chunk in chunks:
            if all(sample in cache for sample in chunk):
                continue
            lock = _take(place, chunk, patient, say)
            if lock is None:
                continue
            try:
                cache.refresh()
                if todo := [sample for sample in chunk if sample not in cache]:
                    for part in _write(place / f"{_hash(todo)}.safetensors", source, todo, read, batch_size, dtype):
                        done += part
                        if on_batch is not None:
                            on_batch(done, len(missing))
                    cache.refresh()
            finally:
                lock.release()
    return cache


def _take(place: Path, chunk: list[str], patient: bool, say: Say) -> WriterLock | None:
    """The lock of a chunk, held; None where another process has it. A patient one waits, and says for whom."""
    lock = WriterLock(place / f"{_hash(chunk)}.lock")
    try:
        lock.acquire()
    except LockHeldError as error:
        if not patient:
            return None
        say(f"source cache: {error}: waiting for what it encodes")
        try:
            lock.acquire(timeout=-1)
        except OSError as failed:
            raise _unwritable(place, failed) from failed
    except OSError as error:
        raise _unwritable(place, error) from error
    return lock


def _clean(place: Path, chunks: list[list[str]]) -> None:
    """Remove what killed processes left: half-written files, and locks that nobody holds."""
    remove_leftovers(place)
    for chunk in chunks:
        lock = WriterLock(place / f"{_hash(chunk)}.lock")
        if lock.path.exists():
            with suppress(OSError):
                lock.acquire()
            lock.release()


def _write(
    file: Path, source: Source, samples: list[str], read: Read, batch_size: int, dtype: torch.dtype | None
) -> Iterator[int]:
    """Encode samples and write them to a file that appears when it is whole; yields how many a batch had."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    rows: list[Tensor] = []
    for start in range(0, len(samples), batch_size):
        part = samples[start : start + batch_size]
        rows += _rows(_encode(source, part, read), dtype)
        yield len(part)
    if len({row.shape[1:] for row in rows} if rows[0].dim() == 2 else {row.shape for row in rows}) > 1:
        raise SourceError(
            "the source features of different samples have different sizes",
            expected=f"maps {tuple(rows[0].shape)} as the first sample's",
            given=", ".join(sorted({str(tuple(row.shape)) for row in rows})[:4]),
            fix="resize the source's input to one size in read()",
        )
    tensors = {
        "data": torch.stack(rows) if rows[0].dim() == 3 else torch.cat(rows),
        "lengths": torch.tensor([len(row) for row in rows]),
        "checks": torch.tensor([checksum(sample, row) for sample, row in zip(samples, rows, strict=True)]),
    }
    metadata = {"samples": json.dumps(samples), "format": str(FORMAT)}
    try:
        write_file(file, lambda path: save_file(tensors, path, metadata))
    except (OSError, SafetensorError) as error:  # the latter where a disk fills up while it writes
        raise _unwritable(file.parent, error) from error


def _make(place: Path) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(place, error) from error


def _unwritable(place: Path, error: Exception) -> SourceError:
    return SourceError(
        f"cannot write the source cache: {error}",
        expected="a writable folder with room",
        given=str(place),
        fix="make room, or choose another folder, and run again: what is written already is kept",
    )


def _autocast(source: Source) -> str:
    """The precision that autocast computes in here: features of another one are other features."""
    device = computing_device(source.encoder).type
    return str(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else ""


def _encode(source: Source, samples: list[str], read: Read) -> SourceFeatures:
    features: SourceFeatures = source.encode(read(samples))
    if len(features) != len(samples):
        raise SourceError(
            "read() gave another number of samples than it was asked for",
            expected=f"{len(samples)} rows",
            given=f"{len(features)}",
            fix="give one row for each id, in the order of the ids",
        )
    return features


def _rows(features: SourceFeatures, dtype: torch.dtype | None) -> list[Tensor]:
    """The features of each sample without padding, on the CPU."""
    data = features.data.detach().cpu()
    rows = list(data) if features.mask is None else [r[m] for r, m in zip(data, features.mask.cpu(), strict=True)]
    if dtype is None or dtype == data.dtype:
        return rows
    stored = [row.to(dtype) for row in rows]
    if any(bool((row.isfinite() & ~one.float().isfinite()).any()) for row, one in zip(rows, stored, strict=True)):
        raise SourceError(
            f"the source features are too large for {dtype}",
            expected=f"at most {torch.finfo(dtype).max:.3g}",
            given=f"{max(float(row.abs().max()) for row in rows if row.numel()):.3g}",
            fix="store them in torch.bfloat16, or as the encoder gives them: dtype=None",
        )
    return stored


def _announce(
    place: Path,
    source: Source,
    missing: list[str],
    read: Read,
    batch_size: int,
    dtype: torch.dtype | None,
    say: Say,
) -> None:
    """Say how large it will be; refuse a random `read` and a full disk before anything is written."""
    first = missing[: min(batch_size, len(missing))]
    rows, again = (_rows(_encode(source, first, read), dtype) for _ in range(2))
    if not all(_alike(one, other) for one, other in zip(rows, again, strict=True)):
        raise SourceError(
            "read() gives something else each time, so its features cannot be kept",
            expected="the same batch for the same ids",
            given="two answers that differ",
            fix="switch the augmentation off, or encode in every step instead of caching",
        )
    size = sum(row.nbytes for row in rows) / len(rows) * len(missing)
    free = shutil.disk_usage(place).free
    say(f"source cache: {len(missing)} samples, about {human(size, 'B')} in {place} ({human(free, 'B')} free)")
    if size > free:
        raise SourceError(
            "the source cache does not fit on this disk",
            expected=f"{human(size, 'B')} free",
            given=f"{human(free, 'B')}",
            fix="choose another folder, dtype=torch.float16 for half the size, or no cache",
        )


def _check_asked(samples: Sequence[str], batch_size: int, dtype: torch.dtype | None) -> None:
    for name, value, right, expected in (
        ("samples", samples, not isinstance(samples, str), "a list of ids"),
        ("batch_size", batch_size, batch_size >= 1, "1 or more"),
        ("dtype", dtype, dtype is None or dtype.is_floating_point, "a floating dtype, or None"),
    ):
        if not right:
            raise SourceError(f"{name}= is wrong", expected=expected, given=repr(value), fix=f"change {name}=")


def _check_samples(samples: Sequence[str]) -> None:
    wrong = next((sample for sample in samples if not isinstance(sample, str)), None)
    if wrong is not None or not samples:
        raise SourceError(
            "samples are known by strings", expected="one id or more", given=repr(wrong), fix="use str(id)"
        )
    if len(set(samples)) != len(samples):
        twice = next(sample for sample in samples if samples.count(sample) > 1)
        raise SourceError("two samples have one id", expected="unique ids", given=twice, fix="make the ids unique")


def _alike(one: Tensor, other: Tensor) -> bool:
    """The same numbers, but for the last digits: some kernels of GPUs sum in another order each time."""
    one, other = one.float().nan_to_num(), other.float().nan_to_num()
    if one.shape != other.shape or not one.numel():
        return one.shape == other.shape
    return bool((one - other).abs().max() <= 1e-4 * one.abs().max())


def _hash(samples: list[str]) -> str:
    return hashlib.sha256(json.dumps(samples).encode()).hexdigest()[:16]
