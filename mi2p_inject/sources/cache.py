"""Source features of a whole data set on disk: encoded once (`sources.fill_cache`), memory-mapped from then on.

A folder of safetensors files, each with the features of some hundred samples and their ids, in a subfolder whose name
is the key: a hash of the encoder (`sources.fingerprint`), how it is read, and the preprocessing. Change one of
these and it is another cache.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mi2p_inject.core.errors import SourceError
from mi2p_inject.core.files.digest import raw_bytes
from mi2p_inject.core.files.read import check_regular
from mi2p_inject.sources.features import SourceFeatures

__all__ = ["SourceCache", "checksum"]


@dataclass(frozen=True)
class _Place:
    """Where the features of one sample are."""

    file: Path
    start: int
    stop: int
    check: int


class SourceCache:
    """Features by sample id, read from disk as they are asked for, each verified by a checksum. Built by `fill`.

    Safe to hand to DataLoader workers and to pickle: each process maps the files itself. Padding is not stored: a batch
    is as long as its longest sample, which changes nothing, as a source's tokens have no order for a unit.

    Args:
        folder: the subfolder of one key.

    Raises:
        SourceError: a file in it is damaged.

    Examples:
        >>> import tempfile, torch
        >>> from mi2p_inject import inject
        >>> from mi2p_inject.sources.fill_cache import fill
        >>> net, words = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()), torch.nn.Embedding(9, 5)
        >>> x, ids = torch.zeros(2, 3, 8, 8), torch.zeros(1, 3, dtype=torch.long)
        >>> me = inject(net, "0", source_encoder=words, example_inputs=x, source_example_inputs=ids)
        >>> texts = {"a": [1, 2, 3], "b": [4, 5, 6]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cache = fill(folder, me.frozen_source, list(texts), lambda ids: torch.tensor([texts[i] for i in ids]),
        ...                  preprocessing="three words", say=lambda line: None)
        ...     me(x, source=cache[["b", "a"]]).shape
        torch.Size([2, 4, 6, 6])
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._places: dict[str, _Place] = {}
        self._maps: dict[Path, Tensor] = {}
        self._known: set[Path] = set()
        self.refresh()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, sample: object) -> bool:
        return sample in self._places

    def __getitem__(self, samples: Sequence[str]) -> SourceFeatures:
        """The features of some samples, in order: tokens (B, L, D) with a mask, or a map (B, C, H, W).

        Raises:
            SourceError: a sample is not in the cache, none is asked for, or a file is gone or damaged.
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

    def overlaid(self, other: SourceCache, samples: Collection[str]) -> SourceCache:
        """These features, but some samples' from another cache that has them; one that it lacks is taken out."""
        joined = copy(self)
        kept = {sample: place for sample, place in self._places.items() if sample not in samples}
        joined._places = kept | {sample: place for sample, place in other._places.items() if sample in samples}
        joined._maps = {}
        return joined

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
        data = self._maps[place.file]
        row = data[place.start] if data.dim() == 4 else data[place.start : place.stop]
        if checksum(sample, row) != place.check:
            raise _damaged(place.file, f"the features of sample {sample!r} are not what was encoded")
        return row

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}


def checksum(sample: str, row: Tensor) -> int:
    """CRC-32 of a sample's features, with its id, their type and their shape."""
    header = f"{sample}\0{row.dtype} {tuple(row.shape)}".encode("utf-8", "surrogatepass")
    return zlib.crc32(raw_bytes(row), zlib.crc32(header))


def _places_in(file: Path) -> dict[str, _Place]:
    """Where the samples of a file are in it; all that its header says is checked before anything is read."""
    from safetensors import SafetensorError, safe_open

    try:
        check_regular(file)
        with safe_open(file, "pt") as opened:
            samples = json.loads(opened.metadata()["samples"])
            shapes = {key: opened.get_slice(key).get_shape() for key in opened.keys()}  # noqa: SIM118  # no mapping
            data = shapes["data"]
            if not isinstance(samples, list) or not all(isinstance(sample, str) for sample in samples):
                raise ValueError("its samples are no list of ids")
            if len(data) not in (2, 4) or any(shapes[key] != [len(samples)] for key in ("lengths", "checks")):
                raise ValueError("its tensors have other shapes")
            lengths, checks = (opened.get_tensor(key).tolist() for key in ("lengths", "checks"))
        if not all(isinstance(one, int) for one in (*lengths, *checks)) or min(lengths, default=0) < 0:
            raise ValueError("its lengths are no sizes")
        if data[0] != (sum(lengths) if len(data) == 2 else len(samples)):
            raise ValueError("its lengths are not those of its data")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError, RecursionError) as error:
        raise _damaged(file, f"{type(error).__name__}: {error}") from error
    ends = list(accumulate(lengths)) if len(data) == 2 else range(1, len(samples) + 1)
    starts = (0, *ends)
    return {
        sample: _Place(file, start, end, check)
        for sample, start, end, check in zip(samples, starts, ends, checks, strict=False)
    }


def _mapped(file: Path) -> Tensor:
    """The features of a file, paged in from disk as they are read."""
    from safetensors import SafetensorError, safe_open

    try:
        check_regular(file)
        with safe_open(file, "pt") as opened:
            data: Tensor = opened.get_tensor("data")
    except (OSError, SafetensorError, RuntimeError) as error:
        raise _damaged(file, f"{type(error).__name__}: {error}") from error
    return data


def _damaged(file: Path, why: str) -> SourceError:
    return SourceError(
        f"a file of the source cache is gone or damaged: {why}",
        expected="the file as it was written",
        given=str(file),
        fix="delete it and run again: its samples are encoded again",
    )
