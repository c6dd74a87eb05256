"""`mi2p export`: a finished run as a file for other programs, compared with the run before it is there."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mi2p_inject.core.files.atomic_write import temporary_folder, write_file, write_folder
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.export.formats import FORMATS, Format
from mi2p_inject.recipes.export.graph import ExportableModel
from mi2p_inject.recipes.export.notes import notes_of
from mi2p_inject.recipes.saving.saved import load_run
from mi2p_inject.recipes.training.train import quiet

__all__ = ["TOLERANCE", "Exported", "export_run"]

TOLERANCE = 1e-4
"""Largest difference of a probability, or of a logit in parts of the largest one, between the file and the run."""
_BATCHES = (1, 3)
_WORDS = (0, 1, 10_000)  # empty texts, short ones, the longest that are not cut


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        files: the model first; folders end with a slash.
        output: "probabilities" or "logits".
        inputs: names.
        difference: the largest one from the run's own answers.
        checked: (samples, tokens or None) of each batch that was compared.
    """

    files: tuple[str, ...]
    output: str
    inputs: tuple[str, ...]
    difference: float
    checked: tuple[tuple[int, int | None], ...]


def export_run(
    run: Path,
    target: Path,
    form: str = "onnx",
    *,
    logits: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Exported:
    """Write a finished run as one file, with notes for whoever feeds it beside it.

    ``NAME.json`` has the notes, ``NAME.tokenizer/`` the files of the text encoder's tokenizer. Before any of them is
    there, the file is read back and its answers are compared with those of `mi2p predict`, for batches of 1 and 3
    samples and for short texts and the longest ones.

    Args:
        run: its folder.
        target: the file.
        form: of `FORMATS`.
        logits: write logits in place of probabilities.
        overwrite: replace what an earlier export left.
        say: takes lines for people.

    Raises:
        RecipeError: no finished run, a target that is there, a library or a compiler that is missing, a model that
            cannot be exported, or a file that answers otherwise than the run.
    """
    kind = FORMATS[form]
    saved = load_run(run)
    _check_target(target, kind, overwrite)
    kind.check()
    quiet()
    model = ExportableModel(saved, logits=logits).eval()
    source, folder = saved.path / "model" / "encoders" / "text", _tokenizer_folder(target)
    names = (
        [] if model.text is None else sorted(one.name for one in source.iterdir() if one.name.startswith(_TOKENIZER))
    )
    say(f"exporting {saved.config.model.system.describe(saved.config.model)} ({form})")
    recorded = kind.record(model)
    if model.text is not None and model.text.padded:
        say(f"texts are padded to {model.text.max_length} tokens: this model is not recorded for every length")
    notes = notes_of(model, recorded.least_tokens, {name: f"{folder.name}/{name}" for name in names})
    with temporary_folder(target.parent) as temporary:
        made = temporary / "files" / target.name
        made.parent.mkdir()
        kind.write(model, recorded, notes, made)
        difference, checked = _compared(model, kind, made, recorded.least_tokens)
        written = [target.name]
        for one in sorted(made.parent.iterdir(), key=lambda one: one == made):  # weights first, if they are apart
            os.replace(one, target.parent / one.name)
            written += [one.name] if one != made else []
    notes_file = target.with_suffix(".json")
    write_file(
        notes_file, lambda path: path.write_text(json.dumps(notes, indent=2, ensure_ascii=False) + "\n", "utf-8")
    )
    written.append(notes_file.name)
    if names:
        write_folder(folder, lambda path: [shutil.copyfile(source / name, path / name) for name in names])
        written.append(f"{folder.name}/")
    return Exported(tuple(written), model.output, model.input_names, difference, checked)


def _tokenizer_folder(target: Path) -> Path:
    return target.with_name(f"{target.stem}.tokenizer")


#: how the names of a tokenizer's files begin
_TOKENIZER = ("tokenizer", "vocab", "merges", "special_tokens", "added_tokens", "spiece", "sentencepiece")


def _check_target(target: Path, kind: Format, overwrite: bool) -> None:
    if target.suffix != kind.suffix:
        raise RecipeError(
            f"--{kind.name} {target}: not the name of such a file",
            expected=f"a name in {kind.suffix}",
            fix=f"name it {target.with_suffix(kind.suffix).name}",
        )
    if not target.parent.is_dir() or not os.access(target.parent, os.W_OK | os.X_OK):
        raise RecipeError(
            f"cannot write {target}",
            expected="a folder that is there and can be written",
            given=str(target.parent),
            fix="make the folder, or name another",
        )
    if target.is_dir():
        raise RecipeError(
            f"--{kind.name} {target} is a folder",
            expected="the name of a file",
            fix=f"such as {target / ('model' + kind.suffix)}",
        )
    for one in (target, target.with_suffix(".json"), _tokenizer_folder(target)):
        if one.exists() and not overwrite:
            raise RecipeError(f"{one} is there already", fix="add --overwrite to replace it, or name another file")


def _compared(
    model: ExportableModel, kind: Format, path: Path, least_tokens: int
) -> tuple[float, tuple[tuple[int, int | None], ...]]:
    """The largest difference from the run's own answers, and the sizes of the batches."""
    answers, largest, checked = kind.open(path, model), 0.0, []
    for rows, words in itertools.product(_BATCHES, _WORDS if model.text is not None else (0,)):
        batch = model.batch_of(rows, words, seed=rows)
        tokens = int(batch["input_ids"].shape[1]) if "input_ids" in batch else None
        if tokens is not None and tokens < least_tokens:  # every text is empty
            continue
        wanted = _wanted(model, model.batch_of(rows, words, seed=rows, padded=False))
        try:
            difference = _difference(answers(batch), wanted)
        except Exception as error:
            raise _other(kind, rows, tokens, " ".join(str(error).split())[:300]) from error
        if not difference <= TOLERANCE:
            raise _other(kind, rows, tokens, f"{model.output} that differ by {difference:.2g}")
        largest = max(largest, difference)
        if (rows, tokens) not in checked:
            checked.append((rows, tokens))
    return largest, tuple(checked)


def _difference(given: NDArray[Any], wanted: NDArray[Any]) -> float:
    if given.shape != wanted.shape:
        raise ValueError(f"shape {given.shape} in place of {wanted.shape}")
    return float(np.abs(given - wanted).max()) / max(1.0, float(np.abs(wanted).max()))


def _other(kind: Format, rows: int, tokens: int | None, given: str) -> RecipeError:
    size = f"{rows} sample{'s' if rows > 1 else ''}" + ("" if tokens is None else f" of {tokens} tokens")
    return RecipeError(
        f"the {kind.name} file does not answer as the run does ({size}); it was not kept",
        expected=f"differences of at most {TOLERANCE:g}",
        given=given,
        fix="give another form of `mi2p export`, or export a run of another encoder or system",
    )


@torch.no_grad()
def _wanted(model: ExportableModel, batch: dict[str, Any]) -> Any:
    """What `mi2p predict` computes for a batch."""
    defaults = {}
    for modality, name in (("image", "pixel_values"), ("text", "input_ids")):
        if name in batch:
            defaults[f"{modality}_present"] = torch.ones(len(batch[name]), dtype=torch.bool)
    if "input_ids" in batch:
        defaults["attention_mask"] = torch.ones_like(batch["input_ids"])
    logits = model.model(**{**defaults, **batch})["logits"].float().numpy()
    return logits if model.output == "logits" else model.run.probabilities(logits)
