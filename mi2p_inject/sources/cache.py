"""Source features of a whole data set on disk: encoded once (`sources.fill_cache`), memory-mapped from then on.

A folder of safetensors files, each with the features of some hundred samples and their ids, in a subfolder whose name
is the key: a hash of the encoder (`sources.fingerprint`), how it is read, and the preprocessing. Change one of
these and it is another cache.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mi2p_inject.core.errors import SourceError
from mi2p_inject.sources.features import SourceFeatures


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
        >>> from mi2p_inject.sources.fill_cache import fill
        >>> net, words = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()), torch.nn.Embedding(9, 5)
        >>> x, ids = torch.zeros(2, 3, 8, 8), torch.zeros(1, 3, dtype=torch.long)
        >>> me = inject(net, "0", source_encoder=words, example_inputs=x, source_example_inputs=ids)
        >>> texts = {"a": [1, 2, 3], "b": [4, 5, 6]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cache = fill(folder, me.source, list(texts), lambda ids: torch.tensor([texts[i] for i in ids]),
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
