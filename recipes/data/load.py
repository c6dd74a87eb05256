"""`load_data`: one specification, one table of loaders, one kind of result."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mi2p_inject.recipes.data.build_samples import Choices, build_samples
from mi2p_inject.recipes.data.formats.crisismmd import load_crisismmd
from mi2p_inject.recipes.data.formats.folders import load_folder
from mi2p_inject.recipes.data.formats.food101 import load_food101, wrong_food101
from mi2p_inject.recipes.data.formats.mmimdb import load_mmimdb
from mi2p_inject.recipes.data.formats.openclipart import load_openclipart
from mi2p_inject.recipes.data.formats.openmoji import load_openmoji_table
from mi2p_inject.recipes.data.formats.tuxpaint import load_tuxpaint
from mi2p_inject.recipes.data.samples import Samples
from mi2p_inject.recipes.data.source_table import SourceTable, store
from mi2p_inject.recipes.data.splits.stratified import LEAST
from mi2p_inject.recipes.data.tables.lines import check_regular
from mi2p_inject.recipes.data.tables.load import Columns, load_table
from mi2p_inject.recipes.data.tables.read import ENDINGS
from mi2p_inject.recipes.data.tables.split_files import tables_in
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.paths import home_path

__all__ = ["LOADERS", "Request", "load_data", "parse_spec"]


@dataclass(frozen=True)
class Request:
    """What a loader is asked for.

    Attributes:
        root: the folder or file after the colon; None if none was given.
        task: which task of a data set that has several; None: its first.
        columns, image_root, multi_label: of a user's own data.
        labelled: samples must have labels.
    """

    root: Path | None
    task: str | None
    columns: Columns
    image_root: Path | None
    multi_label: bool | None
    labelled: bool

    def folder(self, name: str) -> Path:
        """The root of a benchmark.

        Raises:
            RecipeError: none was given, or it does not exist.
        """
        if self.root is None:
            raise RecipeError(f"{name} needs a folder", fix=f"--data {name}:/path/to/it")
        if not self.root.is_dir():
            fix = "unpack it, and give the folder" if self.root.is_file() else "download the data set first"
            raise RecipeError(f"{name}: {self.root} is no folder", fix=f"{fix}, see docs/data.md")
        return self.root


def _own(request: Request) -> SourceTable:
    path = request.root
    if path is None:
        raise RecipeError("no file or folder was given", fix="--data my.csv")
    if path.is_dir():
        if not tables_in(path):
            return load_folder(path)
    elif path.suffix.lower() not in ENDINGS:
        raise RecipeError(
            f"{path} is no table",
            expected=f"a file that ends in {', '.join(ENDINGS)}, or a folder",
            fix="save it as one of these, or give a folder of pictures",
        )
    else:
        check_regular(path)
    return load_table(
        path,
        request.columns,
        image_root=request.image_root,
        labelled=request.labelled,
        multi_label=request.multi_label,
    )


#: name before the colon of a specification -> loader; "own" is a user's file or folder, given without a name
LOADERS: dict[str, Callable[[Request], SourceTable]] = {
    "own": _own,
    "crisismmd": load_crisismmd,
    "food101": load_food101,
    "mmimdb": load_mmimdb,
    "openclipart": load_openclipart,
    "openmoji": load_openmoji_table,
    "tuxpaint": load_tuxpaint,
}


def load_data(
    spec: str | Path,
    *,
    image_col: str | None = None,
    text_col: str | None = None,
    label_col: str | None = None,
    split_col: str | None = None,
    id_col: str | None = None,
    group_col: str | None = None,
    numeric_cols: tuple[str, ...] = (),
    categorical_cols: tuple[str, ...] = (),
    image_root: Path | None = None,
    task: str | None = None,
    missing: Literal["keep", "drop"] = "keep",
    check_images: Literal["some", "all"] = "some",
    on_bad_image: Literal["missing", "error"] = "missing",
    dedupe: Literal["none", "exact", "near"] = "none",
    multi_label: bool | None = None,
    repair_text: bool = False,
    seed: int = 0,
    classes: tuple[str, ...] | None = None,
    labelled: bool = True,
    min_class_samples: int = LEAST,
    rare_classes: Literal["keep", "drop"] = "keep",
    cache_dir: Path | None = None,
) -> Samples:
    """Samples from a user's own file or folder, or from a benchmark.

    Rows are read once and stored memory-mapped; images are looked for, and some are decoded, before anything else runs.

    Args:
        spec: a ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet`` file; a folder with such a file for each split, with
            Hugging Face's ``metadata.csv``, or with ``<split>/<label>/<image>`` or ``<label>/<image>``; or
            ``name:/path`` with a name of `LOADERS`.
        image_col: column of image paths in a table. Default of this and of the next five: the ones named
            ``image``, ``text``, ``label``, ``split``, ``id``, ``group``, if they exist. Without a split, one is made:
            60/10/30, stratified, duplicate texts and images and equal groups together.
        text_col: column of texts.
        label_col: column of labels.
        split_col: column of splits.
        id_col: column of sample ids.
        group_col: column of groups that stay together.
        numeric_cols: columns of a table that a model reads besides image and text. A cell
            holds a number, or nothing.
        categorical_cols: the same, of categories.
        image_root: folder that image paths start from; default: the one the table is in.
        task: of a benchmark with several.
        missing: keep samples without image or text (a missing modality), or drop them.
        check_images: decode 200 images or all of them before training; bad ones are counted by kind.
        on_bad_image: a bad image counts as missing, or is an error.
        dedupe: drop training samples whose text or image file validation or test has, too (``"exact"``), or whose image
            looks alike (``"near"``, decodes all images). Texts are compared by their words. Otherwise only counted.
        multi_label: whether ``|`` separates labels; default: if one label has it.
        repair_text: undo wrong decodings of texts (``â€™`` for ``’``); otherwise only counted.
        seed: of splits that are made.
        classes: of a trained model, to evaluate it: labels must be among them, nothing is split, and samples without
            a split are the split ``"test"``.
        labelled: False: labels and splits are not read, all ``label`` are None, and every row is kept, in the order of
            the file (prediction).
        min_class_samples: a class with fewer independent samples (those of one image, text or group count as one) is
            too rare for splits that are made; less than 3 counts as 3.
        rare_classes: such a class stays in training, with a note, or is dropped.
        cache_dir: where rows are stored; default: the cache folder of `datasets`.

    Raises:
        RecipeError: the data cannot be used; the message says where, why and what to do.
    """
    name, root = parse_spec(str(spec))
    request = Request(
        root=root,
        task=task,
        columns=Columns(image_col, text_col, label_col, split_col, id_col, group_col, numeric_cols, categorical_cols),
        image_root=None if image_root is None else home_path(image_root),
        multi_label=multi_label,
        labelled=labelled,
    )
    table = LOADERS[name](request)
    if (numeric_cols or categorical_cols) and not table.cells:
        raise RecipeError(
            f"{spec} has no columns to read",
            expected="a table, or a folder of tables",
            given=f"numeric_cols and categorical_cols: {', '.join([*numeric_cols, *categorical_cols])}",
            fix="leave numeric_cols and categorical_cols out, or make a table of it",
        )
    stored = store(table, repair_text=repair_text, cache_dir=cache_dir)
    choices = Choices(
        missing, check_images, on_bad_image, dedupe, seed, classes, labelled, min_class_samples, rare_classes
    )
    return build_samples(table, stored, choices)


def parse_spec(spec: str) -> tuple[str, Path | None]:
    """Name of the loader and its root.

    Raises:
        RecipeError: neither a file, a folder, nor a known set.
    """
    try:
        path = home_path(spec)
        if path.exists():
            return "own", path
    except (OSError, ValueError) as error:  # a zero byte, a name too long
        raise RecipeError(f"{spec[:200]!r} names no file: {error}", fix="check the path") from error
    name, _, rest = spec.partition(":")
    if spec.lower().rstrip("/").endswith("ethz/food101"):
        raise wrong_food101(spec)
    if name in LOADERS and name != "own":
        return name, home_path(rest) if rest else None
    named = [f"{one}:/path" for one in LOADERS if one != "own"]
    close = difflib.get_close_matches(name, LOADERS, n=2)
    raise RecipeError(
        f"{spec} does not exist",
        expected=f"a file ({', '.join(ENDINGS)}), a folder, or {', '.join(named)}",
        fix=f"did you mean {' or '.join(close)}?" if close else "check the path",
    )
