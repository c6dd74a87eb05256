"""ONNX: written by torch's exporter, notes inside; read by onnxruntime."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mi2p_inject.recipes.export.graph import EXAMPLE, ExportableModel, blamed

__all__ = ["EXTRA", "LARGEST_FILE", "NOTES", "open_onnx", "write_onnx"]

EXTRA = "mi2p-inject[export]"
NOTES = "mi2p_inject"
"""Key of the notes in the file's metadata_props, as JSON."""
LARGEST_FILE = 2**31 - 2**24
"""Bytes of weights in one ONNX file: a protobuf ends at 2 GB, and the graph needs some of them."""


def write_onnx(
    model: ExportableModel, program: torch.export.ExportedProgram, notes: Mapping[str, Any], path: Path
) -> None:
    """Write the graph with its weights; those of more than `LARGEST_FILE` bytes go into ``NAME.onnx.data`` beside it.

    Raises:
        RecipeError: an operation has no ONNX form; names it.
    """
    example = model.batch_of(*EXAMPLE)
    axes = {name: {0: "batch"} for name in example}
    if model.text is not None and not model.text.one_length:
        axes["input_ids"][1] = axes["attention_mask"][1] = "tokens"
    with _quiet(), blamed(model, "ONNX"):
        made: Any = torch.onnx.export(
            program,
            (),
            kwargs=example,
            dynamo=True,
            dynamic_shapes=axes,
            input_names=list(model.input_names),
            output_names=[model.output],
            verbose=False,
        )
    weights = sum(one.nbytes for one in program.state_dict.values()) + sum(
        one.nbytes for one in program.constants.values() if isinstance(one, Tensor)
    )
    made.model.metadata_props[NOTES] = json.dumps(notes, ensure_ascii=False)
    with _quiet():
        made.save(str(path), external_data=weights > LARGEST_FILE)


def open_onnx(path: Path) -> Callable[[Mapping[str, Tensor]], NDArray[Any]]:
    """The file in an onnxruntime session on the CPU: named tensors -> its one output."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda batch: np.asarray(session.run(None, {name: one.numpy() for name, one in batch.items()})[0])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints its progress and warns of what it does not need."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [one.level for one in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for one in loggers:
            one.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for one, level in zip(loggers, levels, strict=True):
                one.setLevel(level)
