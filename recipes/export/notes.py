"""What another program has to know to feed an exported model and to read its answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mi2p_inject
from mi2p_inject.recipes.encoders.preprocess import ImageSpec, TextSpec
from mi2p_inject.recipes.export.graph import ExportableModel

__all__ = ["notes_of"]

_COLOURS = "first frame, turned as its EXIF says, transparency on white, 8-bit RGB; / 255, minus mean, / std"
_CROPS = {
    "center": "the shorter side is resized to size / crop_pct, keeping the aspect ratio, then the centre is cut out",
    "squash": "both sides are resized to size / crop_pct, whatever the aspect ratio, then the centre is cut out",
    "border": "the longer side is resized to size / crop_pct, keeping the aspect ratio, and the rest is padded",
}
_INPUTS: dict[str, dict[str, Any]] = {
    "pixel_values": {"shape": ["batch", 3, "height", "width"], "dtype": "float32"},
    "image_present": {"shape": ["batch"], "dtype": "bool", "note": "false where a sample has no image: any pixels do"},
    "input_ids": {"shape": ["batch", "tokens"], "dtype": "int64"},
    "attention_mask": {"shape": ["batch", "tokens"], "dtype": "int64", "note": "1 for tokens, 0 for padding"},
    "text_present": {
        "shape": ["batch"],
        "dtype": "bool",
        "note": "false where a sample has no text: the tokens of an empty one",
    },
}


def notes_of(model: ExportableModel, least_tokens: int, tokenizer_files: Mapping[str, str]) -> dict[str, Any]:
    """JSON values: inputs, preprocessing, output, classes, decision.

    Args:
        model: what is exported.
        least_tokens: of a batch's texts, padding included.
        tokenizer_files: name of each file of the tokenizer -> where it lies, from the exported file's folder.
    """
    run, collator = model.run, model.collator
    return {
        "made_by": f"mi2p-inject {mi2p_inject.__version__}",
        "system": run.config.model.system.describe(run.config.model),
        "inputs": {name: _input(name, collator.image, collator.text) for name in model.input_names},
        "output": _output(model),
        "classes": list(run.task.classes),
        "decision": dict(run.decision),
        "image": None if collator.image is None else _image(collator.image),
        "text": None if collator.text is None else _text(collator.text, least_tokens, tokenizer_files),
    }


def _input(name: str, image: ImageSpec | None, text: TextSpec | None) -> dict[str, Any]:
    known = _INPUTS[name]
    sizes: dict[Any, int] = {} if image is None else {"height": image.size[0], "width": image.size[1]}
    if text is not None and text.one_length:
        sizes["tokens"] = text.max_length
    return {**known, "shape": [sizes.get(one, one) for one in known["shape"]]}


def _output(model: ExportableModel) -> dict[str, Any]:
    task, temperature = model.run.task, float(model.run.decision.get("temperature", 1.0))
    function = "sigmoid" if task.independent else "softmax"
    if model.output == "logits":
        how = f"probabilities are the {function} of logits / {temperature:g}"
    else:
        how = f"the {function} of logits / {temperature:g}, inside the graph"
    answer = (
        "a class holds from its threshold in `decision` on" if task.multi_label else "the class with the highest one"
    )
    return {
        "name": model.output,
        "shape": ["batch", task.outputs],
        "dtype": "float32",
        "problem_type": task.name,
        "temperature": temperature,
        "how": how,
        "answer": answer,
    }


def _image(spec: ImageSpec) -> dict[str, Any]:
    return {**spec.to_json(), "colours": _COLOURS, "resize": _CROPS.get(spec.crop_mode, spec.crop_mode), "missing": 0.0}


def _text(spec: TextSpec, least: int, files: Mapping[str, str]) -> dict[str, Any]:
    tokenizer = getattr(spec.tokenizer, "tokenizer", spec.tokenizer)
    return {
        "tokenizer": type(tokenizer).__name__,
        "tokenizer_files": dict(files),
        "min_length": spec.max_length if spec.one_length else least,
        "max_length": spec.max_length,
        "padding": "to max_length" if spec.one_length else "to the longest text of a batch",
        "padding_side": getattr(tokenizer, "padding_side", "right"),
        "truncation": "the end of a longer text is left out",
        "whitespace": "stripped at both ends",
    }
