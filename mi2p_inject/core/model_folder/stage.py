"""A copy of a model folder that holds known files with known keys only."""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from mi2p_inject.core.errors import ZooError
from mi2p_inject.core.model_folder.open_clip import open_clip_config
from mi2p_inject.core.model_folder.timm import timm_config
from mi2p_inject.core.model_folder.transformers import (
    model_config,
    processor_config,
    special_tokens,
    tokenizer_config,
)
from mi2p_inject.core.model_folder.values import check_regular, read_json

__all__ = ["DATA_FILES", "JSON_FILES", "WEIGHTS", "checked_folder", "own_file"]

#: read, checked and written anew
JSON_FILES = (
    "config.json", "open_clip_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "preprocessor_config.json", "processor_config.json", "model.safetensors.index.json",
)  # fmt: skip
#: vocabularies: data that the tokenizers' parsers read
DATA_FILES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model",
    "sentencepiece.model", "tokenizer.model", "spm.model", "bpe.codes", "vocab-src.json", "vocab-tgt.json",
    "emoji.json", "entity_vocab.json", "prophetnet.tokenizer", "word_shape.json", "word_pronunciation.json",
)  # fmt: skip
#: tensors without code
WEIGHTS = (
    "model.safetensors", "model-*-of-*.safetensors", "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
)  # fmt: skip
_OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt", "*.npz", "*.h5", "*.msgpack", "*.gguf", "*.onnx")
#: how names of tensors end that quantised weights are multiplied with
_SCALES = ("weight_scale", "weight_scale_inv", "scale_weight", ".qweight", ".SCB", ".absmax")
_MAX_DATA = 2**29
_MAX_WEIGHTS = 2**42


@contextmanager
def checked_folder(folder: Path, library: str, *, weights: bool, strict: bool = False) -> Iterator[Path]:
    """A temporary folder that a library may read: see this package.

    Args:
        folder: as it was given.
        library: "timm", "transformers" or "open_clip".
        weights: with the safetensors; refuse a folder without.
        strict: refuse keys that name code or files; else they are left out, as strangers' folders are full of them.

    Raises:
        ZooError: the folder cannot be used; the message says which file, key or value is wrong.
    """
    with tempfile.TemporaryDirectory(prefix="mi2p-model-") as name:
        staged = Path(name)
        for file in DATA_FILES:
            if os.path.lexists(folder / file):
                _link(folder, file, staged, _MAX_DATA)
        found = _weights(folder, library, staged) if weights else []
        for file in found:
            _check_floats(staged / file, folder / file)
        dropped: list[str] = []
        for file in _read_by(folder, library):
            if os.path.lexists(folder / file):
                value = _checked_json(folder, file, library, staged, found, dropped)
                if value is not None:
                    (staged / file).write_text(json.dumps(value), encoding="utf-8")
        if strict and dropped:
            raise ZooError(
                f"{folder} has keys that name code, files or repositories",
                expected="what `mi2p train` wrote",
                given=", ".join(sorted(set(dropped)))[:300],
                fix="do not use it: nobody but a stranger put them there",
            )
        yield staged


def _weights(folder: Path, library: str, staged: Path) -> list[str]:
    """Puts the weights into the staged folder; the names that they have there."""
    found = [one for one in os.listdir(folder) if any(fnmatch.fnmatchcase(one, pattern) for pattern in WEIGHTS)]
    for file in found:
        _link(folder, file, staged, _MAX_WEIGHTS)
    if not found:
        raise _no_weights(folder)
    if library != "transformers" and len(found) == 1:
        target = "open_clip_model.safetensors" if library == "open_clip" else "model.safetensors"
        os.replace(staged / found[0], staged / target)
        found = [target]
    return found


def _check_floats(path: Path, named: Path) -> None:
    """Refuse quantised weights: a loader takes integers for the numbers themselves, and leaves scales out."""
    try:
        with safe_open(path, framework="pt") as tensors:
            kinds = {name: tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError):  # what is torn, the loader names
        return
    whole = [name for name, kind in kinds.items() if name.endswith(".weight") and not kind.startswith(("F", "BF"))]
    if found := sorted([*whole, *(name for name in kinds if name.endswith(_SCALES))]):
        raise _quantised(str(named), f"{found[0]} of {kinds[found[0]]}")


def _quantised(where: str, given: str) -> ZooError:
    return ZooError(
        f"{where}: the weights are quantised",
        expected="weights of floats",
        given=given,
        fix="name the folder of the model before quantisation",
    )


def _read_by(folder: Path, library: str) -> tuple[str, ...]:
    """The JSON files that a library has a use for."""
    if library == "timm":
        return ("config.json",)
    if library == "transformers":
        return tuple(file for file in JSON_FILES if file != "open_clip_config.json")
    if not os.path.lexists(folder / "open_clip_config.json"):  # of a run: that one is in its encoder.json
        return JSON_FILES
    model_cfg = read_json(own_file(folder, "open_clip_config.json")).get("model_cfg")
    text = model_cfg.get("text_cfg") if isinstance(model_cfg, dict) else None
    hf = isinstance(text, dict) and text.get("hf_model_name")
    return tuple(file for file in JSON_FILES if hf or file != "config.json")


def _checked_json(
    folder: Path, file: str, library: str, staged: Path, weights: list[str], dropped: list[str]
) -> dict[str, Any] | None:
    where = str(folder / file)
    value = read_json(own_file(folder, file))
    if file == "config.json":
        if library == "timm":
            return timm_config(value, where)
        if weights and value.get("quantization_config"):
            raise _quantised(where, "a quantization_config")
        return model_config(value, where, dropped)
    if file == "open_clip_config.json":
        text_model = str(staged) if os.path.lexists(folder / "config.json") else None
        return open_clip_config(value, where, text_model)
    if file == "tokenizer_config.json":
        return tokenizer_config(value, where, dropped)
    if file == "special_tokens_map.json":
        return special_tokens(value, where)
    if file == "added_tokens.json":
        return {key: one for key, one in value.items() if isinstance(one, int) and not isinstance(one, bool)}
    if file == "model.safetensors.index.json":
        return _shards(value, where, weights) if weights else None
    return processor_config(value, where, dropped)


def _shards(index: dict[str, Any], where: str, found: list[str]) -> dict[str, Any]:
    placed = index.get("weight_map")
    if not isinstance(placed, dict) or not set(map(str, placed.values())) <= set(found):
        raise ZooError(
            f"{where} names files that are not in the folder",
            expected=", ".join(found)[:200],
            given=str(sorted(set(map(str, placed.values())) - set(found)) if isinstance(placed, dict) else placed)[
                :200
            ],
            fix="download the folder again, whole",
        )
    return {"metadata": {}, "weight_map": placed}


def own_file(folder: Path, file: str) -> Path:
    """The file that a name leads to: in the folder itself, or in the blobs of the hub's cache.

    Raises:
        ZooError: it is a link to elsewhere.
    """
    real, root = Path(os.path.realpath(folder / file)), Path(os.path.realpath(folder))
    # a snapshot itself, or an encoder of a run in one: model/encoders/<modality>
    snapshots = [one for one in (root, *list(root.parents)[:3]) if one.parent.name == "snapshots"]
    allowed = [root, *(one.parent.parent / "blobs" for one in snapshots)]
    if not any(real.is_relative_to(one) for one in allowed):
        raise ZooError(
            f"{folder / file} is a link to a file outside the folder",
            expected="a file in the folder",
            given=str(real)[:200],
            fix="copy the file into the folder",
        )
    return real


def _link(folder: Path, file: str, staged: Path, most: int) -> None:
    real = own_file(folder, file)
    check_regular(real, most)
    try:
        os.symlink(real, staged / file)
    except OSError:  # Windows without the right to link
        shutil.copyfile(real, staged / file)


def _no_weights(folder: Path) -> ZooError:
    others = sorted(one for one in os.listdir(folder) if any(fnmatch.fnmatchcase(one, x) for x in _OTHER_WEIGHTS))
    return ZooError(
        f"{folder} has no weights" + (f" that are read: {others[0]} may run code when it is loaded" if others else ""),
        expected="model.safetensors",
        given=", ".join(others or sorted(os.listdir(folder))[:8]) or "an empty folder",
        fix="load it where you trust it, and save it with save_pretrained: it writes safetensors"
        if others
        else "--set pretrained=false for random weights",
    )
