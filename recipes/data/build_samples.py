"""From stored rows to `Samples`: labels numbered, missing and bad ones counted, parts made, differences reported."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mi2p_inject.recipes.data.assign_splits import (
    Rows,
    duplicates_across,
    given_or_made,
    report_sizes,
    without_duplicates,
)
from mi2p_inject.recipes.data.check_modalities import check_images, check_read_in_training, complete_rows
from mi2p_inject.recipes.data.duplicates import merge_groups
from mi2p_inject.recipes.data.labels import check_seen_in_training, classes_of, number_labels
from mi2p_inject.recipes.data.row_index import Light, read_light
from mi2p_inject.recipes.data.samples import Samples
from mi2p_inject.recipes.data.source_table import RawData

if TYPE_CHECKING:
    import datasets

__all__ = ["Choices", "assemble"]


@dataclass(frozen=True)
class Choices:
    """What the user decides about the rows; `load_data` explains each."""

    missing: Literal["keep", "drop"] = "keep"
    check_images: Literal["some", "all"] = "some"
    on_bad_image: Literal["missing", "error"] = "missing"
    dedupe: Literal["none", "exact", "near"] = "none"
    seed: int = 0
    classes: tuple[str, ...] | None = None
    labelled: bool = True


def assemble(raw: RawData, stored: datasets.Dataset, choices: Choices) -> Samples:
    """The samples of a data set.

    Args:
        raw: what the loader said about it.
        stored: its rows, by `raw.store`.
        choices: the user's.

    Raises:
        RecipeError: there is nothing to learn from these rows; the message says why.
    """
    notes = list(raw.notes)
    training = choices.classes is None and choices.labelled
    light = read_light(raw, stored, notes)

    multi_label = raw.multi_label if raw.multi_label is not None else any(len(one) > 1 for one in light.labels)
    classes = choices.classes or raw.classes or (classes_of(light.labels, raw.name) if choices.labelled else ())
    numbers: list[Any] = [None] * len(light.ids)
    if choices.labelled:
        numbers = number_labels(light.labels, light.ids, classes, multi_label, raw.name)

    check_images(light, choices.check_images, choices.on_bad_image, alike=choices.dedupe == "near", notes=notes)
    light.drop_common_keys(notes)
    light.groups = merge_groups(light.groups, light.text_keys, light.image_keys)

    parts = given_or_made(light, numbers, classes, choices.seed, training, notes)
    report_sizes(parts, raw.published, notes)
    complete = complete_rows(light, raw, choices.missing, training, notes)
    parts = {name: rows[complete[rows]] for name, rows in parts.items()}
    duplicates_across(light, parts, notes)
    if choices.dedupe != "none":
        parts = without_duplicates(light, parts, notes)
    if training:
        check_seen_in_training(light.labels, parts, classes, raw.name)
        check_read_in_training(light, raw, parts)

    data = _with_columns(stored, light, numbers, multi_label, drawn=raw.drawn)
    return Samples(
        parts={name: data.select(light.index[rows]) for name, rows in parts.items() if len(rows)},
        classes=classes,
        multi_label=multi_label,
        notes=(*notes, *_contents(parts, light)),
        fingerprint=_fingerprint(light, parts, numbers, classes),
    )


def _with_columns(
    stored: datasets.Dataset, light: Light, numbers: list[Any], multi_label: bool, drawn: bool
) -> datasets.Dataset:
    """All stored rows, with the columns of `Samples`: the texts stay on disk, the new columns are small."""
    import datasets

    def spread(values: list[Any]) -> list[Any]:
        column: list[Any] = [None] * len(stored)
        for row, value in zip(light.index.tolist(), values, strict=True):
            column[row] = value
        return column

    number, text = datasets.Value("int64"), datasets.Value("string")
    new: dict[str, tuple[list[Any], Any]] = {
        "label": (spread(numbers), datasets.List(number) if multi_label else number),
        "group": (spread([str(group) for group in light.groups]), text),
    }
    if not drawn:
        new["image"] = (spread(light.images), text)
    data = stored.select_columns(["id", "text", "image"] if drawn else ["id", "text"])
    for name, (column, feature) in new.items():
        data = data.add_column(name, column, new_fingerprint=f"{stored._fingerprint}-{name}", feature=feature)
    return data.select_columns(["id", "image", "text", "label", "group"])


def _contents(parts: dict[str, Rows], light: Light) -> list[str]:
    lines = [", ".join(f"{len(rows)} {name}" for name, rows in parts.items()) + " samples"]
    if "train" in parts:
        counts = Counter(label for row in parts["train"] for label in light.labels[row])
        shown = ", ".join(f"{label} {count}" for label, count in counts.most_common(30))
        lines.append(f"classes in training: {shown}" + (" ..." if len(counts) > 30 else ""))
    return lines


def _fingerprint(light: Light, parts: dict[str, Rows], numbers: list[Any], classes: tuple[str, ...]) -> str:
    digest = hashlib.sha256(repr(classes).encode(errors="replace"))
    for name, rows in parts.items():
        digest.update(name.encode())
        for row in rows.tolist():
            one = (light.ids[row], light.content[row], light.text_hashes[row], numbers[row])
            digest.update(repr(one).encode(errors="replace"))
    return digest.hexdigest()[:32]
