"""A run's model as one function of named tensors, and its graph for every batch and text length."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from mi2p_inject.recipes.encoders.preprocess import TextSpec
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.saving.saved import SavedRun
from mi2p_inject.recipes.systems.inputs import Collator

__all__ = ["EXAMPLE", "MAX_BATCH", "ExportableModel", "Recorded", "blamed", "exported_program"]

MAX_BATCH = 4096
"""Samples of one call of an exported graph."""
EXAMPLE = (3, 5)
"""Samples, and words of each text, that a graph is recorded with: numbers that stand for nothing else in a model."""


class ExportableModel(nn.Module):
    """A run's model in eval mode: named tensors -> probabilities, or logits.

    The frozen source encoder of an expanded model is inside, and so is the temperature of the run's decision.

    Args:
        run: the run.
        logits: give the model's logits, in place of the probabilities that `mi2p predict` says.

    Attributes:
        input_names: the tensors it takes, of all those that `forward` names.
        output: "probabilities" or "logits".

    Raises:
        RecipeError: the run kept no weights, they are damaged, or it reads columns of a table.
    """

    def __init__(self, run: SavedRun, *, logits: bool = False) -> None:
        super().__init__()
        if names := run.config.data.column_names:
            raise RecipeError(
                f"{run.path} reads columns of a table, which an exported graph does not take",
                expected="a run that reads image and text alone",
                given=f"columns {', '.join(names)}",
                fix="train without numeric_cols and categorical_cols, or answer with `mi2p predict`",
            )
        self.run, self.output = run, "logits" if logits else "probabilities"
        self.model, encoders = run.model()
        self._temperature = float(run.decision.get("temperature", 1.0))
        self.collator: Collator = run.collator(encoders)
        self._text = self.collator.text
        self.sources = nn.ModuleList(frozen.encoder.model for frozen in self.model.sources().values())  # to be traced
        self.requires_grad_(False)
        self.input_names = tuple(_names(self.collator))

    @property
    def text(self) -> TextSpec | None:
        """How its texts become token ids; None where it reads none."""
        return self.collator.text

    def pad_texts(self) -> None:
        """Have all texts padded to the most tokens from here on, for a graph of one length."""
        if self.collator.text is not None:
            self.collator = replace(self.collator, text=replace(self.collator.text, padded=True))

    def forward(
        self,
        pixel_values: Tensor | None = None,
        image_present: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        text_present: Tensor | None = None,
    ) -> Tensor:
        """(B, classes).

        Args:
            pixel_values: (B, 3, H, W); anything where the image is missing.
            image_present: (B,) bool; None: all are there.
            text_present: (B,) bool; None: all are there.
            input_ids: (B, L) int64.
            attention_mask: (B, L) int64; none for a tokenizer of one length.
        """
        batch: dict[str, Tensor] = {}
        if pixel_values is not None:
            there = pixel_values.new_ones(pixel_values.shape[0], dtype=torch.bool)
            batch["image_present"] = there if image_present is None else image_present
            batch["pixel_values"] = pixel_values.where(batch["image_present"][:, None, None, None], 0)
        if input_ids is not None:
            there = input_ids.new_ones(input_ids.shape[0], dtype=torch.bool)
            batch["text_present"] = there if text_present is None else text_present
            batch["input_ids"] = input_ids
            mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            # XLNet subtracts it from 1.0, of which torch makes no ONNX where it is of whole numbers
            batch["attention_mask"] = mask.float() if self.text is not None and self.text.padded else mask
        logits = self.model.logits(batch)
        if self.output == "logits":
            return logits
        logits = logits / self._temperature
        return logits.sigmoid() if self.run.task.independent else logits.softmax(-1)

    def batch_of(self, rows: int, words: int, seed: int = 0, *, padded: bool = True) -> dict[str, Tensor]:
        """A batch of noise and of texts of some length, as the run's own preprocessing makes it.

        Where the model reads both modalities the last sample lacks its text and, of three or more, the first its image.

        Args:
            rows: samples.
            words: of each text, before it is cut at the most tokens.
            seed: of the noise.
            padded: as the graph takes it; False: as the run itself does, whose texts are as long as the longest.
        """
        generator = torch.Generator().manual_seed(seed)
        image, text = self.collator.image, self.collator.text
        both = image is not None and text is not None
        items = [
            {
                "pixels": None
                if image is None or (both and rows > 2 and row == 0)
                else torch.randn(3, *image.size, generator=generator),
                "text": None if text is None or (both and rows > 1 and row == rows - 1) else _text(row, words, seed),
                "label": None,
            }
            for row in range(rows)
        ]
        made = (self.collator if padded else replace(self.collator, text=self._text))(items)
        return {name: made[name].contiguous() for name in self.input_names}


@dataclass(frozen=True)
class Recorded:
    """A model's graph.

    Attributes:
        graph: an exported program, or a trace.
        least_tokens: of a batch's texts, padding included.
    """

    graph: Any
    least_tokens: int = 1


def exported_program(model: ExportableModel) -> Recorded:
    """The graph of `torch.export`, for any batch and, where the tokenizer allows, any text length.

    Some models add or take away a token, and torch then wants more of them than one. A model that counts its
    positions in floats (XLNet) is not recorded for every length but for the longest texts, to which others are padded.

    Raises:
        RecipeError: the model cannot be exported; names the module that was running.
    """
    if model.text is None or model.text.one_length:
        return Recorded(_exported(model, None))
    for tokens in (torch.export.Dim("tokens", min=1, max=model.text.max_length), torch.export.Dim.DYNAMIC):
        try:
            program = _exported(model, tokens)
        except RecipeError as error:
            if not isinstance(error.__cause__, torch._dynamo.exc.UserError):
                raise
            continue
        if _takes_one(program, model):
            return Recorded(program, _least_tokens(program))
    model.pad_texts()
    return Recorded(_exported(model, None), model.text.max_length)


def _takes_one(program: torch.export.ExportedProgram, model: ExportableModel) -> bool:
    """Whether a graph that was recorded with several samples takes a single one: some guards are left to its calls."""
    try:
        with torch.no_grad():
            program.module()(**model.batch_of(1, EXAMPLE[1]))
    except (AssertionError, RuntimeError):
        return False
    return True


def _least_tokens(program: torch.export.ExportedProgram) -> int:
    ids = next(one for one in program.graph.nodes if one.op == "placeholder" and one.name == "input_ids")
    return int(program.range_constraints[ids.meta["val"].shape[1].node.expr].lower)


def _exported(model: ExportableModel, tokens: Any) -> torch.export.ExportedProgram:
    example = model.batch_of(*EXAMPLE)
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    shapes: dict[str, dict[int, Any]] = {name: {0: batch} for name in example}
    if tokens is not None:
        shapes["input_ids"][1] = shapes["attention_mask"][1] = tokens
    with torch.no_grad(), blamed(model, "torch.export"):
        return torch.export.export(model, (), example, dynamic_shapes=shapes, strict=False)


@contextmanager
def blamed(model: nn.Module, what: str) -> Iterator[None]:
    """Turn whatever is raised inside into our error, with the module that was running."""
    running: list[nn.Module] = []

    def enter(module: nn.Module, args: Any) -> None:
        running.append(module)

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        while running and running.pop() is not module:  # a module that raised, and whose caller went on
            pass

    before = nn.modules.module.register_module_forward_pre_hook(enter)
    after = nn.modules.module.register_module_forward_hook(leave)
    try:
        yield
    except RecipeError:
        raise
    except Exception as error:
        path = next((path for path, one in model.named_modules() if running and one is running[-1]), "")
        text = " ".join(str(error).split())
        raise RecipeError(
            f"{what} does not take this model"
            + (f": it ended in {path} ({type(running[-1]).__name__})" if path else ""),
            expected="a model whose operations can be recorded for every batch and text length",
            given=f"{type(error).__name__}: {text[:400]}{'…' if len(text) > 400 else ''}",
            fix="export a run of another encoder or system, or give another form of `mi2p export`",
        ) from error
    finally:
        before.remove()
        after.remove()


def _names(collator: Collator) -> Iterator[str]:
    """What the graph takes: presence only where a modality may be missing, a mask only where texts differ in length."""
    both = collator.image is not None and collator.text is not None
    if collator.image is not None:
        yield "pixel_values"
        if both:
            yield "image_present"
    if collator.text is not None:
        yield "input_ids"
        if not collator.text.fixed:
            yield "attention_mask"
        if both:
            yield "text_present"


def _text(row: int, words: int, seed: int) -> str:
    return " ".join(("red", "cat", "on", "a", "blue", "mat")[(row + seed + number) % 6] for number in range(words))
