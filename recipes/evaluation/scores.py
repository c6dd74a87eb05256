"""A model's logits for records, in order, and what it could not read of them; a batch at a time."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mi2p_inject.recipes.config import Config
from mi2p_inject.recipes.encoders.preprocess import TextSpec
from mi2p_inject.recipes.evaluation.mean import unread_note
from mi2p_inject.recipes.evaluation.records import Records
from mi2p_inject.recipes.saving.saved import SavedRun
from mi2p_inject.recipes.systems.columns import unusual_cells
from mi2p_inject.recipes.systems.inputs import ImageTextDataset, Item
from mi2p_inject.recipes.training.hf_trainer import arguments
from mi2p_inject.recipes.training.trainer import finite

__all__ = ["Scored", "Scores", "Tally", "for_answers"]

_NAMED = 3  # records that a note names
_THREADS = 4  # that decode pictures
_AHEAD = 2  # batches that are decoded while the model works


@dataclass
class Tally:
    """How many records have each problem, and the first of them."""

    kinds: Counter[str] = field(default_factory=Counter)
    names: list[str] = field(default_factory=list)

    def add(self, kind: str, name: str) -> None:
        """Counts a record."""
        self.kinds[kind] += 1
        if len(self.names) < _NAMED and name not in self.names:
            self.names.append(name)

    def __bool__(self) -> bool:
        return bool(self.kinds)

    def of(self, total: int) -> str:
        """How many of all."""
        return f"{self.kinds.total()} of {total} records"

    @property
    def such(self) -> str:
        """Its first names."""
        return f" (such as {', '.join(self.names)})"

    def __str__(self) -> str:
        counted = ", ".join(f"{count} {kind}" for kind, count in self.kinds.most_common())
        return f"{counted}{self.such}"


class Scored(NamedTuple):
    """What one model makes of one record.

    Attributes:
        id: of the record.
        logits: (outputs,); None where the model has nothing to read.
        problems: what it could not read.
    """

    id: str
    logits: NDArray[np.float32] | None
    problems: list[str]


class Scores:
    """One model's logits for each record, made while it is iterated; never more than a few batches in memory.

    Args:
        run: the model.
        records: what it is asked about; where there is no column of what the model reads, it gives no logits.
        config: batch size and precision count.

    Raises:
        RecipeError: the run kept no weights; while it is iterated, logits that are no numbers.
    """

    def __init__(self, run: SavedRun, records: Records, config: Config) -> None:
        reads = run.config.model.system.modalities
        self.run, self.records = run, records
        self._reads = [modality for modality in reads if modality in records.modalities]
        self.model, encoders = run.model()
        self._collator = run.collator(encoders)
        self._size = config.run.eval_batch_size
        config, self._of_machine = for_answers(config)
        with tempfile.TemporaryDirectory() as folder:  # precision and device as the training's evaluation has them
            given = arguments(config, Path(folder))
        self._device = given.device
        self._autocast = torch.bfloat16 if given.bf16 else torch.float16 if given.fp16 else None
        self.model.to(self._device)
        spec = encoders["text"].spec if "text" in self._reads else None
        self._texts = spec if isinstance(spec, TextSpec) else None
        self._unread, self._cut, self._unusual = Tally(), Tally(), dict[str, Tally]()

    def __iter__(self) -> Iterator[list[Scored]]:
        self._unread, self._cut, self._unusual = Tally(), Tally(), {}
        with ThreadPoolExecutor(_THREADS) as pool:
            for start, items in self._items(pool):
                yield list(self._batch(start, items))

    def batches(self) -> Iterator[dict[str, Tensor]]:
        """What the model reads of the records, in order, on its device."""
        with ThreadPoolExecutor(_THREADS) as pool:
            for _, items in self._items(pool):
                yield {name: value.to(self._device) for name, value in self._collator(items).items()}

    @property
    def notes(self) -> list[str]:
        """What a user should know of these records; complete after an iteration."""
        found, total = [*self.records.notes, *self._of_machine], len(self.records)
        if not self._reads:
            found.append(unread_note(self.run))
        if self._unread:
            fix = f"; paths start from {self.records.image_root}, or --image-root" if self.records.image_root else ""
            found.append(f"{self._unread.of(total)} have an image that cannot be read: {self._unread}{fix}")
        if self._cut and self._texts is not None:
            most = f"max_length={self._texts.max_length} tokens"
            found.append(
                f"{self._cut.of(total)} have a text of more than {most}: what is beyond is not read{self._cut.such}"
            )
        for what, tally in self._unusual.items():
            found.append(f"{tally.of(total)}: {what}{tally.such}")
        return found

    def _items(self, pool: ThreadPoolExecutor) -> Iterator[tuple[int, list[Item]]]:
        """Batches of opened records, with the number of their first; the next ones are opened meanwhile."""
        data = ImageTextDataset(self.records.stored, self._collator.image)
        waiting: list[tuple[int, list[Future[Item]]]] = []
        for start in range(0, len(data), self._size):
            rows = range(start, min(start + self._size, len(data)))
            waiting.append((start, [pool.submit(data.__getitem__, row) for row in rows]))
            if len(waiting) > _AHEAD:
                yield _opened(waiting.pop(0))
        while waiting:
            yield _opened(waiting.pop(0))

    def _batch(self, start: int, items: list[Item]) -> Iterator[Scored]:
        images = self.records.stored.select_columns(["image"])[start : start + len(items)]["image"]
        remarks = self.records.remarks(start, start + len(items))
        read = [item for item in items if self._has_input(item)]
        self._count_cut(items)
        logits = iter(self._logits(read) if read else ())
        for item, image, remark in zip(items, images, remarks, strict=True):
            problems = [*self._problems(item, image is not None), *(remark if "text" in self._reads else [])]
            yield Scored(item["id"], next(logits) if self._has_input(item) else None, problems)

    def _has_input(self, item: Item) -> bool:
        text = "text" in self._reads and bool((item["text"] or "").strip())
        return text or item["pixels"] is not None

    def _problems(self, item: Item, has_image: bool) -> list[str]:
        """What the model reads and could not."""
        found = []
        if "image" in self._reads and item["bad"] is not None:
            found.append(f"image: {item['bad']}")
            self._unread.add(item["bad"], item["id"])
        elif "image" in self._reads and not has_image:
            found.append("no image")
        if "text" in self._reads and not (item["text"] or "").strip():
            found.append("no text")
        if self._collator.columns is not None and item["cells"] is not None:
            for what, cell in unusual_cells(self._collator.columns, item["cells"]):
                found.append(f"{what}: {cell}")
                self._unusual.setdefault(what, Tally()).add(what, cell)
        return found

    def _count_cut(self, items: Sequence[Item]) -> None:
        """Records of whose text the model reads the beginning only."""
        given = [(item["id"], item["text"]) for item in items if (item["text"] or "").strip()]
        if self._texts is not None and given:
            names, texts = zip(*given, strict=True)
            for name, cut in zip(names, self._texts.cuts(list(texts)), strict=True):
                if cut:
                    self._cut.add("", name)

    def _logits(self, items: Sequence[Item]) -> NDArray[np.float32]:
        batch = {name: value.to(self._device) for name, value in self._collator(items).items()}
        with torch.no_grad(), torch.autocast(self._device.type, self._autocast, enabled=self._autocast is not None):
            logits = self.model(**batch)["logits"]
        return finite(np.asarray(logits.float().cpu().numpy(), dtype=np.float32))


def for_answers(config: Config) -> tuple[Config, list[str]]:
    """The configuration with a precision that this machine can answer in, and a note where that is another one."""
    if config.run.precision != "fp16" or torch.cuda.is_available():
        return config, []
    note = "precision=fp16 needs a GPU: these answers are in fp32"
    return replace(config, run=replace(config.run, precision="fp32")), [note]


def _opened(batch: tuple[int, list[Future[Item]]]) -> tuple[int, list[Item]]:
    return batch[0], [one.result() for one in batch[1]]
