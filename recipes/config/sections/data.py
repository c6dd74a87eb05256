"""Options of the data."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from mi2p_inject.recipes.config.option import AT_LEAST_THREE, NOT_NEGATIVE, Layer, option
from mi2p_inject.recipes.tasks import TASKS

__all__ = ["DataConfig"]


@dataclass(frozen=True)
class DataConfig:
    """What is read, and how; `mi2p_inject.recipes.data.load_data` explains the options of a table."""

    data: str = option(
        "", "a CSV, TSV, JSONL or Parquet file, a folder, or a known set with its folder: crisismmd:/path"
    )
    image_col: str | None = option(None, "column of image paths; default: image, where there is one")
    text_col: str | None = option(None, "column of texts; default: text, where there is one")
    label_col: str | None = option(None, "column of labels, | separates several; default: label")
    split_col: str | None = option(None, "column of splits; default: split, where there is one, else a split is made")
    id_col: str | None = option(None, "column of sample ids; default: id, where there is one, else the row's number")
    group_col: str | None = option(
        None, "column of groups that are kept together when a split is made; default: group, where there is one"
    )
    numeric_cols: tuple[Layer, ...] | None = option(
        None, "columns of numbers that an expanded model attends to besides, as a source of their own: [age, price]"
    )
    categorical_cols: tuple[Layer, ...] | None = option(
        None, "columns of categories for the same source, such as [town, brand]"
    )
    image_root: str | None = option(None, "folder that image paths start from; default: the table's")
    task: str | None = option(None, "task of a known set that has several")
    missing: Literal["keep", "drop"] = option("keep", "keep samples without image or text, or drop them (counted)")
    check_images: Literal["some", "all"] = option("some", "decode 200 images before training, or all")
    on_bad_image: Literal["missing", "error"] = option("missing", "a bad image counts as missing, or is an error")
    dedupe: Literal["none", "exact", "near"] = option(
        "none", "drop training samples that validation or test has too: equal ones, or images that look alike as well"
    )
    problem_type: str | None = option(
        None,
        "what is learned; default: multi-label if a sample has several labels, else single-label",
        choices=lambda: tuple(TASKS),
    )
    min_class_samples: int = option(
        3, "independent samples that a class must have to be in each split that is made", check=AT_LEAST_THREE
    )
    rare_classes: Literal["keep", "drop"] = option(
        "keep", "a class with fewer stays in training, with a note, or is dropped"
    )
    repair_text: bool = option(False, "undo wrong decodings of texts")
    split_seed: int = option(0, "of the split, where the data have none of their own", check=NOT_NEGATIVE)

    @property
    def columns_by_kind(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The columns of numbers and those of categories that a model reads besides image and text."""
        return tuple(map(str, self.numeric_cols or ())), tuple(map(str, self.categorical_cols or ()))

    @property
    def column_names(self) -> tuple[str, ...]:
        """All of `columns_by_kind`, those of numbers first."""
        numeric, categorical = self.columns_by_kind
        return (*numeric, *categorical)

    def for_loading(self) -> dict[str, Any]:
        """What `load_data` takes besides the specification and the seed."""
        own = ("data", "split_seed", "problem_type")
        given = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in own}
        numeric, categorical = self.columns_by_kind
        return given | {
            "numeric_cols": numeric,
            "categorical_cols": categorical,
            "image_root": None if self.image_root is None else Path(self.image_root),
            "multi_label": None if self.problem_type is None else TASKS[self.problem_type].multi_label,
        }
