"""Source features of a whole data set on disk: encoded once, memory-mapped from then on.

A folder of safetensors files, each with the features of some hundred samples and their ids, in a subfolder whose name
is the key: a hash of the encoder (`mi2p_inject.fingerprint`), how it is read, and the preprocessing. Change one of
these and it is another cache. Files appear whole or not at all, so a killed run goes on where it was; processes that
fill one cache at the same time share the work.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mi2p_inject.atomic import write_whole
from mi2p_inject.cost import human
from mi2p_inject.errors import SourceError
from mi2p_inject.expanded import ExpandedModel
from mi2p_inject.features import SourceFeatures
from mi2p_inject.fingerprint import fingerprint

Read = Callable[[list[str]], Any]
"""Sample ids -> the batch for the source encoder, as `ExpandedModel.encode` takes it."""
Say = Callable[[str], None]

SAMPLES_PER_FILE = 256
FORMAT = 1


@dataclass(frozen=True)
class _Place:
    """Where the features of one sample are."""

    file: Path
    start: int
    stop: int


class SourceCache:
    """Features by sample id, read from disk as they are asked for. Built by `fill`.

    Safe to hand to DataLoader workers and to pickle: each process maps the files itself. Padding is not stored: a batch
    is as long as its longest sample, which changes nothing, as a source's tokens have no order for a unit.

    Args:
        folder: the subfolder of one key.

    Raises:
        SourceError: a file in it is damaged.

    Example:
        >>> import tempfile, torch
        >>> from mi2p_inject import inject
        >>> from mi2p_inject.source_cache import fill
        >>> net, words = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()), torch.nn.Embedding(9, 5)
        >>> x, ids = torch.zeros(2, 3, 8, 8), torch.zeros(1, 3, dtype=torch.long)
        >>> me = inject(net, "0", source_encoder=words, example_inputs=x, source_example_inputs=ids)
        >>> texts = {"a": [1, 2, 3], "b": [4, 5, 6]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cache = fill(folder, me, list(texts), lambda ids: torch.tensor([texts[i] for i in ids]),
        ...                  preprocessing="three words", say=lambda line: None)
        ...     me(x, source=cache[["b", "a"]]).shape
        torch.Size([2, 4, 6, 6])
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._places: dict[str, _Place] = {}
        self._maps: dict[Path, dict[str, Tensor]] = {}
        self._known: set[Path] = set()
        self.refresh()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, sample: object) -> bool:
        return sample in self._places

    def __getitem__(self, samples: Sequence[str]) -> SourceFeatures:
        """The features of some samples, in order: tokens (B, L, D) with a mask, or a map (B, C, H, W).

        Raises:
            SourceError: a sample is not in the cache, none is asked for, or a file is gone.
        """
        rows = [self._row(sample) for sample in samples]
        if not rows:
            raise SourceError(
                "no samples are asked for", expected="one id or more", given="none", fix="skip this batch"
            )
        if rows[0].dim() == 3:
            return SourceFeatures(torch.stack(rows))
        lengths = torch.tensor([len(row) for row in rows])
        data = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        if data.shape[1] == 0:  # not one real token in the batch
            data = data.new_zeros(len(rows), 1, data.shape[2])
        return SourceFeatures(data, torch.arange(data.shape[1]) < lengths.unsqueeze(1))

    def refresh(self) -> None:
        """Take up files that other processes have written since."""
        for file in sorted(self.folder.glob("*.safetensors")):
            if file not in self._known:
                self._places.update(_places_in(file))
                self._known.add(file)

    def _row(self, sample: str) -> Tensor:
        place = self._places.get(sample)
        if place is None:
            raise SourceError(
                f"sample {sample!r} is not in the source cache",
                expected=f"one of its {len(self)} samples",
                given=sample,
                fix=f"fill the cache in {self.folder} with this id first",
            )
        if place.file not in self._maps:
            self._maps[place.file] = _mapped(place.file)
        data = self._maps[place.file]["data"]
        return data[place.start] if data.dim() == 4 else data[place.start : place.stop]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}


def fill(
    folder: str | Path,
    model: ExpandedModel,
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
        model: an expanded model, for its source encoder.
        samples: unique ids. An id stands for its content: put a hash into it where the content may change.
        read: ids -> the batch for the encoder; deterministic.
        preprocessing: all that `read` does, in words or as a hash: tokenizer, length, image size.
        batch_size: samples a forward.
        dtype: store in this floating dtype; None: as the encoder gives them.
        say: is told the size before anything is written.
        on_batch: called with (samples done, samples to do) after each batch.

    Raises:
        SourceError: no source encoder, ids that repeat or are no strings, a random `read`, too little room on the disk,
            or a damaged file.
    """
    from filelock import FileLock, Timeout

    _check_asked(samples, batch_size, dtype)
    samples = list(samples)
    _check_samples(samples)
    if model.source is None:
        raise SourceError(
            "this model has no source encoder",
            expected="inject(..., source_encoder=...)",
            given="source_spec= only",
            fix="inject with the encoder whose features are to be kept",
        )
    place = Path(folder) / fingerprint(model.source, str(FORMAT), preprocessing, str(dtype))
    _make(place)
    cache = SourceCache(place)
    missing = [sample for sample in samples if sample not in cache]
    if not missing:
        return cache
    _announce(place, model, missing, read, batch_size, dtype, say)
    chunks = [list(samples[start : start + SAMPLES_PER_FILE]) for start in range(0, len(samples), SAMPLES_PER_FILE)]
    done = 0
    for patient in (False, True):  # first what nobody else is at, then wait for what others have begun
        for chunk in chunks:
            if all(sample in cache for sample in chunk):
                continue
            try:
                with FileLock(place / f"{_hash(chunk)}.lock", timeout=-1 if patient else 0):
                    cache.refresh()
                    if todo := [sample for sample in chunk if sample not in cache]:
                        for part in _write(place / f"{_hash(todo)}.safetensors", model, todo, read, batch_size, dtype):
                            done += part
                            if on_batch is not None:
                                on_batch(done, len(missing))
                        cache.refresh()
            except Timeout:
                continue
    for chunk in chunks:  # those of other lists of samples may be held
        (place / f"{_hash(chunk)}.lock").unlink(missing_ok=True)
    return cache


def _write(
    file: Path, model: ExpandedModel, samples: list[str], read: Read, batch_size: int, dtype: torch.dtype | None
) -> Iterator[int]:
    """Encode samples and write them to a file that appears when it is whole; yields how many a batch had."""
    from safetensors.torch import save_file

    rows: list[Tensor] = []
    for start in range(0, len(samples), batch_size):
        part = samples[start : start + batch_size]
        rows += _rows(_encode(model, part, read), dtype)
        yield len(part)
    if len({row.shape[1:] for row in rows} if rows[0].dim() == 2 else {row.shape for row in rows}) > 1:
        raise SourceError(
            "the source features of different samples have different sizes",
            expected=f"maps {tuple(rows[0].shape)} as the first sample's",
            given=", ".join(sorted({str(tuple(row.shape)) for row in rows})[:4]),
            fix="resize the source's input to one size in read()",
        )
    lengths = torch.tensor([len(row) for row in rows])
    tensors = {"data": torch.stack(rows) if rows[0].dim() == 3 else torch.cat(rows), "lengths": lengths}

    def save(name: str) -> None:
        save_file(tensors, name, metadata={"samples": json.dumps(samples), "format": str(FORMAT)})
        (plain := Path(f"{name}.mode")).touch()
        Path(name).chmod(plain.stat().st_mode)  # safetensors lets nobody else read
        plain.unlink()

    try:
        write_whole(file, save)
    except OSError as error:
        raise SourceError(
            f"cannot write the source cache: {error}",
            expected="a writable folder with room",
            given=str(file.parent),
            fix="make room and run again: what is written already is kept",
        ) from error


def _make(place: Path) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SourceError(
            f"cannot make the folder of the source cache: {error}",
            expected="a writable folder",
            given=str(place.parent),
            fix="choose another folder",
        ) from error


def _encode(model: ExpandedModel, samples: list[str], read: Read) -> SourceFeatures:
    features: SourceFeatures = model.encode(read(samples))
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
    model: ExpandedModel,
    missing: list[str],
    read: Read,
    batch_size: int,
    dtype: torch.dtype | None,
    say: Say,
) -> None:
    """Say how large it will be; refuse a random `read` and a full disk before anything is written."""
    first = missing[: min(batch_size, len(missing))]
    rows, again = (_rows(_encode(model, first, read), dtype) for _ in range(2))
    if not all(torch.equal(one.nan_to_num(), other.nan_to_num()) for one, other in zip(rows, again, strict=True)):
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


def _hash(samples: list[str]) -> str:
    return hashlib.sha256(json.dumps(samples).encode()).hexdigest()[:16]


def _places_in(file: Path) -> dict[str, _Place]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            samples = json.loads(opened.metadata()["samples"])
            lengths = opened.get_tensor("lengths").tolist()
            flat = len(opened.get_slice("data").get_shape()) == 2
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"a file of the source cache is damaged: {error}",
            expected="a whole safetensors file of ours",
            given=str(file),
            fix="delete it: its samples are encoded again",
        ) from error
    if not flat:
        return {sample: _Place(file, row, row + 1) for row, sample in enumerate(samples)}
    ends = torch.tensor(lengths).cumsum(0).tolist()
    return {sample: _Place(file, end - length, end) for sample, length, end in zip(samples, lengths, ends, strict=True)}


def _mapped(file: Path) -> dict[str, Tensor]:
    """The tensors of a file, paged in from disk as they are read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(file)
    except (OSError, SafetensorError) as error:
        raise SourceError(
            f"a file of the source cache is gone or damaged: {error}",
            expected="the file that was there when the cache was opened",
            given=str(file),
            fix="fill the cache again",
        ) from error
    return tensors
