"""Which samples have an image and a text that can be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from mi2p_inject.recipes.data.duplicates import file_keys, near_duplicate_groups
from mi2p_inject.recipes.data.images import image_problem
from mi2p_inject.recipes.data.row_index import RowIndex, examples
from mi2p_inject.recipes.data.source_table import SourceTable
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["check_images", "check_read_in_training", "complete_rows"]

_TRIED = 200  # images decoded where not all are
_THREADS = 4


def check_images(
    index: RowIndex,
    extent: Literal["some", "all"],
    on_bad: Literal["missing", "error"],
    *,
    alike: bool,
    notes: list[str],
) -> None:
    """Finds the image files, gives them keys, and sets bad ones to None.

    Every file is looked for; 200 of them, or all, are decoded.

    Args:
        index: its ``images``, ``image_keys`` and ``content`` are set; drawn images are left as they are.
        extent: how many images are decoded.
        on_bad: raise at a bad image, or count it as missing.
        alike: alike images get the same key, not only equal files; decodes all.
        notes: what was found is appended.

    Raises:
        RecipeError: all images are bad or missing; one is, and ``on_bad="error"``.
    """
    if index.image_keys:
        return
    paths = sorted({path for path in index.images if path is not None})
    found = file_keys(paths)
    good = [path for path in paths if found[path] is not None]
    tried = good
    if extent == "some" and len(good) > _TRIED:
        tried = [good[i] for i in np.random.default_rng(0).choice(len(good), _TRIED, replace=False)]
    problems = _problems([path for path in paths if found[path] is None]) | _problems(tried)
    if problems:
        _report(problems, len(paths), len(tried), len(good), on_bad, notes)
    index.images = [None if path in problems else path for path in index.images]
    index.content = [path and found[path] for path in index.images]
    keys = near_duplicate_groups([path for path in good if path not in problems]) if alike else found
    index.image_keys = [path and keys.get(path) for path in index.images]


def complete_rows(
    index: RowIndex, table: SourceTable, missing: Literal["keep", "drop"], training: bool, notes: list[str]
) -> NDArray[np.bool_]:
    """(N,) which samples stay: those with an image or a text; with both, if ``missing="drop"``.

    Args:
        index: after `check_images`.
        table: says which modalities the data set should have.
        missing: whether a sample without one of them is dropped.
        training: an empty modality is then an error, else a note.
        notes: counts are appended.

    Raises:
        RecipeError: no sample has a text, or an image, and there should be one.
    """
    has = {"image": np.array([one is not None for one in index.images])}
    has["text"] = np.array([one is not None for one in index.text_hashes])
    for kind in table.modalities:
        without = np.flatnonzero(~has[kind])
        if len(without) == len(index.ids) and training:
            raise RecipeError(
                f"{table.name}: {'the text is empty everywhere' if kind == 'text' else 'no sample has an image'}",
                fix=f"give the right {kind} column, or train on a table without one",
            )
        if len(without):
            named = examples([index.ids[row] for row in without[:3]])
            what = "dropped" if missing == "drop" else "kept: the modality is missing"
            notes.append(f"{len(without)} samples without {kind} ({named}), {what}")
    neither = int((~has["image"] & ~has["text"]).sum())
    if neither and missing == "keep":
        notes.append(f"{neither} of them have neither image nor text: dropped")
    stay = has["image"] | has["text"]
    if missing == "drop":
        for kind in table.modalities:
            stay &= has[kind]
    if not stay.any():
        raise RecipeError(
            f"{table.name}: no sample is left",
            given="; ".join(notes),
            fix="check the image and text columns, or --missing keep",
        )
    return np.asarray(stay)


def check_read_in_training(index: RowIndex, table: SourceTable, splits: Mapping[str, NDArray[np.int64]]) -> None:
    """A modality that training never saw cannot be learned from.

    Args:
        index: after `check_images`.
        table: says which modalities the data set should have.
        splits: name -> rows; nothing is checked without a "train".

    Raises:
        RecipeError: the samples with an image, or with a text, are all outside the training split.
    """
    seen = {"image": index.images, "text": index.text_hashes}
    for kind in table.modalities:
        if "train" in splits and all(seen[kind][row] is None for row in splits["train"]):
            raise RecipeError(
                f"{table.name}: no training sample has {'an image' if kind == 'image' else 'a text'}",
                given=", ".join(
                    f"{sum(seen[kind][row] is not None for row in rows)} of {len(rows)} in {split}"
                    for split, rows in splits.items()
                ),
                fix=f"give the right {kind} column and split, or train on a table without that column",
            )


def _problems(paths: list[str]) -> dict[str, str]:
    with ThreadPoolExecutor(_THREADS) as pool:
        kinds = tqdm(pool.map(image_problem, paths), "opening images", len(paths), delay=2)
        return {path: kind for path, kind in zip(paths, kinds, strict=True) if kind is not None}


def _report(problems: dict[str, str], total: int, tried: int, found: int, on_bad: str, notes: list[str]) -> None:
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(problems.values()).most_common())
    undecodable = len(problems) - (total - found)
    if len(problems) == total or (tried and undecodable == tried):
        first = next(iter(problems))
        raise RecipeError(
            f"all images are bad: {kinds}",
            given=f"{first}: {problems[first]}",
            fix="check the image column and the folder that its paths start from (--set image_root=...)",
        )
    message = f"{len(problems)} bad images: {kinds} ({examples(list(problems))})"
    if tried < found:
        message += f"; {tried} of {found} files were decoded"
    if on_bad == "error":
        raise RecipeError(message, fix="repair or remove them, or let them count as missing")
    notes.append(message + "; they count as missing")
