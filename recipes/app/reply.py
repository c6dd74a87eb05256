"""What the page says to a picture and a text: the run's answer, and those without the one and without the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.core.errors import Mi2pError
from mi2p_inject.expansion.expanded_model import ExpandedModel
from mi2p_inject.recipes.api import Run
from mi2p_inject.recipes.data.images import ImageError
from mi2p_inject.recipes.data.source_table import MAX_CHARACTERS
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.evaluation.evaluate import predict_one
from mi2p_inject.recipes.evaluation.sample_notes import notes_on_sample

__all__ = ["NAMES", "Answer", "Reply", "given_columns", "is_expanded", "one_line", "reply_to"]

#: modality -> what the page calls it
NAMES: Mapping[Modality, str] = {"image": "picture", "text": "text"}


@dataclass(frozen=True)
class Answer:
    """What a model says of one sample.

    Attributes:
        of: what it was given, such as "without the text".
        labels: its answer; several or none where a sample may have any number.
        probabilities: of each class.
    """

    of: str
    labels: tuple[str, ...]
    probabilities: Mapping[str, float]


@dataclass(frozen=True)
class Reply:
    """The answers to one sample.

    Attributes:
        answers: to all that was given; then, where the model reads both and both were given, without each, and without
            the columns where some were given.
        thresholds: of each class, from which on a label holds; {} where one class is chosen.
        notes: what a reader should know of the sample.
    """

    answers: tuple[Answer, ...]
    thresholds: Mapping[str, float]
    notes: tuple[str, ...]


def reply_to(run: Run, image: str | Path | None, text: str | None, columns: Mapping[str, Any] | None = None) -> Reply:
    """The run's answers to one sample, by `mi2p_inject.recipes.evaluation.evaluate.predict_one`.

    Args:
        run: any run.
        image: a file; None: not given.
        text: None or blanks: not given.
        columns: cells of the columns that it reads, by name; those that are empty are not given.

    Raises:
        RecipeError: nothing that the model reads, a file that is no picture, or a text that is too long.
        SourceError: a cell of a numeric column that is no number.
    """
    reads = run.saved.config.model.system.modalities
    typed = {"image": Path(image) if image else None, "text": (text or "").strip() or None}
    given: dict[str, Any] = {modality: one if modality in reads else None for modality, one in typed.items()}
    here = [modality for modality in reads if given[modality] is not None]
    if not here:
        wanted = f"a {' or a '.join(NAMES[one] for one in reads)}"
        raise RecipeError("There is nothing to read", expected=wanted, given="neither", fix=f"give {wanted}")
    if "text" in here and len(given["text"]) > MAX_CHARACTERS:
        length = f"{len(given['text']):,} characters"
        at_most = f"at most {MAX_CHARACTERS:,}"
        raise RecipeError(f"The text has {length}", expected=at_most, given=length, fix=f"give {at_most}")
    samples = {f"{' and '.join(NAMES[one] for one in here)}": {one: given[one] for one in here}}
    if len(here) > 1:
        for one in reversed(here):
            samples[f"without the {NAMES[one]}"] = {other: given[other] for other in here if other != one}
    cells = given_columns(columns)
    found = {of: predict_one(run.saved, one.get("image"), one.get("text"), cells) for of, one in samples.items()}
    if cells:
        found["without the columns"] = predict_one(run.saved, given["image"], given["text"])
    notes = [f"No {NAMES[one]} was given: this is the model's answer without one." for one in reads if one not in here]
    if run.saved.config.data.column_names and not cells:
        notes.append("No column was given: this is the model's answer without them.")
    found_notes = notes_on_sample(run.saved, given["image"], given["text"], cells)
    notes += [f"{note[0].upper()}{note[1:]}." for note in found_notes]
    key = "labels" if run.saved.task.multi_label else "label"
    answers = tuple(Answer(of, _labels(answer[key]), answer["probabilities"]) for of, answer in found.items())
    return Reply(answers, next(iter(found.values())).get("thresholds", {}), tuple(notes))


def given_columns(columns: Mapping[str, Any] | None) -> dict[str, Any]:
    """Those that are filled in."""
    return {name: cell for name, cell in (columns or {}).items() if cell is not None and str(cell).strip()}


def is_expanded(run: Run) -> bool:
    """Whether something in the model attends to another modality, which can be explained."""
    return any(isinstance(module, ExpandedModel) for module in run.model.modules())


def one_line(error: Mi2pError, image: str | None = None) -> str:
    """An error in a line for the page: what is wrong and the fix, without the path of an uploaded file.

    Args:
        error: any of ours.
        image: the path of the uploaded file.

    Examples:
        >>> one_line(RecipeError("There is nothing to read", expected="a text", fix="give a text"))
        'There is nothing to read: give a text.'
    """
    what, *more = str(error).splitlines()
    fixes = [line.partition("fix: ")[2] for line in more if line.strip().startswith("fix: ")]
    if isinstance(error, ImageError):
        fixes = ["give a JPEG, PNG, GIF, WebP, BMP or TIFF file that opens elsewhere"]
    if image is not None:
        what = what.replace(image, Path(image).name)
    return f"{': '.join([what.rstrip('.:'), *fixes])}."


def _labels(answer: Any) -> tuple[str, ...]:
    return tuple(answer) if isinstance(answer, list) else (str(answer),)
