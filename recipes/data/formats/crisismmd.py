"""CrisisMMD v2.0: tweets with images from seven disasters (Alam et al., ICWSM 2018; crisisnlp.qcri.org)."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mi2p_inject.recipes.data.source_table import Row, SourceTable
from mi2p_inject.recipes.data.tables.cells import labels_of
from mi2p_inject.recipes.data.tables.read import line_rows
from mi2p_inject.recipes.errors import RecipeError

if TYPE_CHECKING:
    from mi2p_inject.recipes.data.load import Request

__all__ = ["TASKS", "load_crisismmd"]

_SPLITS = {"train": "train", "validation": "dev", "test": "test"}
_AFFECTED = dict.fromkeys(("injured_or_dead_people", "missing_or_found_people"), "affected_individuals")
_NEEDED = ("tweet_id", "image_id", "tweet_text", "image")


@dataclass(frozen=True)
class Task:
    """One task of CrisisMMD.

    Attributes:
        files: name of its tables, the split in braces.
        column: the one that holds the label.
        published: size of each split.
        merged: label in the file -> label of the task.
        dropped: a label whose samples are not part of the task.
        notes: what a user must know about it.
    """

    files: str
    column: str
    published: tuple[int, int, int]
    merged: dict[str, str]
    dropped: str | None = None
    notes: tuple[str, ...] = ()


_HUMANITARIAN = "task_humanitarian_text_img_agreed_lab_{}.tsv"

#: the tasks; the first is the default
TASKS = {
    "humanitarian": Task(
        _HUMANITARIAN,
        "label",
        (2874, 477, 451),
        _AFFECTED,
        dropped="not_humanitarian",
        notes=("test has 9 affected_individuals and 3 vehicle_damage: macro-F1 rests on them, see intervals",),
    ),
    "humanitarian-common": Task(
        _HUMANITARIAN,
        "label_text",
        (6126, 998, 955),
        {**_AFFECTED, "vehicle_damage": "infrastructure_and_utility_damage"},
    ),
    "informative": Task("task_informative_text_img_agreed_lab_{}.tsv", "label", (9601, 1573, 1534), {}),
    "damage": Task(
        "task_damage_text_img_{}.tsv",
        "label",
        (2468, 529, 529),
        {},
        notes=("the paper's sizes, 2461/529/530, do not follow from the public files, which have 2468/529/529",),
    ),
}


def load_crisismmd(request: Request) -> SourceTable:
    """A task of CrisisMMD, splits as published.

    Args:
        request: its root holds ``data_image/`` and the folders of the tables (or is one level above them); its task is
            one of `TASKS`: "humanitarian" (5 classes without not_humanitarian, as the MI2P paper has it),
            "humanitarian-common" (5 classes with it), "informative", "damage".

    Raises:
        RecipeError: no such task; a table, a column or the images are missing.
    """
    root = request.folder("crisismmd")
    name = request.task or next(iter(TASKS))
    if name not in TASKS:
        raise RecipeError(f"crisismmd has no task {name!r}", expected=", ".join(TASKS), fix="give one as --task")
    task = TASKS[name]
    files = {split: _find(root, task.files.format(word)) for split, word in _SPLITS.items()}
    images = next((path.parent for path in (root / "data_image", *root.glob("*/data_image")) if path.is_dir()), None)
    if images is None:
        raise RecipeError(f"{root} has no folder data_image", fix="unpack CrisisMMD_v2.0.tar.gz there")
    return SourceTable(
        name=f"crisismmd ({name})",
        rows=lambda: _rows(files, task, images),
        files=list(files.values()),
        options={"task": name, "images": str(images)},
        multi_label=False,
        published=dict(zip(_SPLITS, task.published, strict=True)),
        notes=task.notes,
    )


def _find(root: Path, name: str) -> Path:
    for pattern in (name, f"*/{name}", f"*/*/{name}"):
        if found := sorted(root.glob(pattern)):
            return found[0]
    raise RecipeError(
        f"there is no {name} in {root}", fix="unpack crisismmd_datasplit_agreed_label.zip and _all.zip there"
    )


def _rows(files: dict[str, Path], task: Task, images: Path) -> Iterator[Row]:
    seen: Counter[str] = Counter()
    for split, path in files.items():
        for line, fields in line_rows(path, needed=(*_NEEDED, task.column)):
            labels = labels_of(fields[task.column], False, f"{path}, line {line}: {task.column}")
            one = fields["image_id"]
            seen[one] += 1
            yield Row(
                id=one if seen[one] == 1 else f"{one}#{seen[one]}",
                image=str(images / fields["image"]) if fields["image"] else None,
                text=html.unescape(fields["tweet_text"]),
                labels=tuple(task.merged.get(label, label) for label in labels),
                split=split,
                group=fields["tweet_id"],
                dropped=f"labelled {task.dropped}" if task.dropped in labels else None,
            )
