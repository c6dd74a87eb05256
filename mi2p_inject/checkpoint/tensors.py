"""The tensors of a checkpoint: what may be saved, one entry a storage, and reading that verifies every byte."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from mi2p_inject.checkpoint.schema import WEIGHTS_NAME, damaged
from mi2p_inject.core.errors import CheckpointError
from mi2p_inject.core.files.digest import digests
from mi2p_inject.core.files.read import check_regular
from mi2p_inject.core.weights.offload import OffloadedTensor

__all__ = ["check_complete", "check_plain", "check_unsaved", "described", "read_weights", "without_aliases"]

_ADVICE = {
    "meta": "build the model on a real device, or backbone.to_empty(device=...) before its weights are loaded",
    "lazy": "run lazy modules once",
    "offloaded": 'inject with trainable="units", which only verifies the backbone; or save and load before offloading',
    "sharded": "gather it first, with torch.distributed.checkpoint.state_dict and full_state_dict=True",
    "quantised": 'inject with trainable="units", which saves the units and only verifies the backbone',
    "other": "keep other state out of state_dict() (get_extra_state: tensors only)",
}


def check_plain(state: Mapping[str, object]) -> None:
    """Refuse what safetensors cannot hold as it is: a state to be saved is dense tensors with content.

    Raises:
        CheckpointError: names the first one on the meta device, lazy, offloaded, quantised, sharded, sparse, or no
            tensor at all.
    """
    _refuse(state, tuple(_ADVICE))


def check_unsaved(state: Mapping[str, object]) -> None:
    """Refuse what cannot be verified at `load`: a state that is not saved may be quantised, but must be there.

    Raises:
        CheckpointError: names the first one on the meta device, lazy or sharded, or an extra state that is no tensor:
            training may change it.
    """
    _refuse(state, ("meta", "lazy", "sharded"))
    _refuse({key: value for key, value in state.items() if key.endswith("_extra_state")}, ("other",))


def check_complete(model: nn.Module, state: Mapping[str, object]) -> None:
    """Refuse to save less than what trains.

    Raises:
        CheckpointError: the state has something besides backbone and units, or lacks a parameter that is trained.
    """
    beside = [key for key in state if not key.startswith(("backbone.", "units."))]
    held = {value.data_ptr() for value in state.values() if isinstance(value, Tensor) and not value.is_meta}
    lacking = [
        name
        for name, one in model.named_parameters()
        if one.requires_grad and name not in state and (one.is_meta or one.data_ptr() not in held)
    ]
    if beside or lacking:
        raise CheckpointError(
            "the expanded model trains something that a checkpoint does not hold",
            path=[*beside, *lacking][0],
            expected="parameters of the backbone and of the units, under their names in state_dict()",
            given=f"{len(beside)} tensors beside them, {len(lacking)} parameters without a place in state_dict()",
            fix="put new modules into the backbone before inject, or save them yourself",
        )


def _refuse(state: Mapping[str, object], kinds: tuple[str, ...]) -> None:
    for key, value in state.items():
        kind = _obstacle(value)
        if kind not in kinds:
            continue
        raise CheckpointError(
            "a tensor on the meta device has no content" if kind == "meta" else "a state that is no plain tensor",
            path=key,
            expected="a dense tensor with content",
            given=f"a {kind} tensor" if kind in ("meta", "offloaded", "quantised", "sharded") else type(value).__name__,
            fix=_ADVICE[kind],
        )


def described(state: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Type, shape and SHA-256 of each value of a state, tensors and others, as JSON.

    Raises:
        CheckpointError: a value of which no digest can be made.
    """
    try:
        found = digests(state)
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise CheckpointError(
            f"a state of which no checksum can be made: {error}",
            expected="tensors, numbers, words and lists of these",
            given=", ".join(sorted({type(value).__name__ for value in state.values()})),
            fix=_ADVICE["other"],
        ) from error
    return {key: {**_kind_of(value), "sha256": found[key]} for key, value in state.items()}


def without_aliases(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """One entry a storage: tied weights are written once and named again.

    huggingface_hub's `save_torch_state_dict` keeps one name of those that share memory, which is less: of a matrix and
    its transposed view it keeps one, and a model whose views cover no storage as a whole it refuses.
    """
    kept: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple[int, tuple[int, ...], tuple[int, ...]], str] = {}
    storages: set[int] = set()
    for key, tensor in tensors.items():
        if tensor.numel() == 0:
            kept[key] = tensor
            continue
        where = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
        if where in first:
            aliases[key] = first[where]
            continue
        first[where] = key
        storage = tensor.untyped_storage().data_ptr()
        shared = storage in storages or not tensor.is_contiguous()
        kept[key] = tensor.detach().clone(memory_format=torch.contiguous_format) if shared else tensor.detach()
        storages.add(storage)
    return kept, aliases


def read_weights(folder: Path, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint, aliases included, each verified to the last bit.

    Args:
        folder: the checkpoint.
        config: its JSON, which obeys the schema.

    Raises:
        CheckpointError: a weights file is no file of ours, missing or damaged.
    """
    expected: Mapping[str, Any] = config["tensors"]
    tensors: dict[str, Tensor] = {}
    for name in config["weights"]:
        tensors |= _read_file(folder / name, expected, tensors.keys())
    if missing := expected.keys() - tensors.keys():
        raise _unlike(min(missing), expected, None)
    if twice := config["aliases"].keys() & tensors.keys():
        raise damaged(folder, f"{min(twice)} is both a tensor and an alias")
    if dangling := [kept for kept in config["aliases"].values() if kept not in tensors]:
        raise damaged(folder, f"there is no tensor {dangling[0]}, which others are tied to")
    found = digests(tensors)
    wrong = [key for key in tensors if found[key] != expected[key]["sha256"]]
    if wrong:
        raise CheckpointError(
            f"the checkpoint is damaged: {len(wrong)} of {len(tensors)} tensors do not hold what was saved",
            path=wrong[0],
            expected=f"SHA-256 {expected[wrong[0]]['sha256']}",
            given=f"SHA-256 {found[wrong[0]]}",
            fix="copy it again",
        )
    return tensors | {alias: tensors[kept] for alias, kept in config["aliases"].items()}


def _read_file(path: Path, expected: Mapping[str, Any], known: Any) -> dict[str, Tensor]:
    """The tensors of one file, whose names and shapes are compared before anything is read."""
    from safetensors import SafetensorError, safe_open

    if not WEIGHTS_NAME.fullmatch(path.name):
        raise CheckpointError(
            "the checkpoint names a weights file that is not one of ours; nothing was read from it",
            expected="model-<12 hex digits>.safetensors beside the JSON",
            given=repr(path.name),
            fix="never load a pickle from a stranger; ask for a checkpoint that save_pretrained wrote",
        )
    try:
        check_regular(path)
        with safe_open(path, "pt") as opened:
            names = list(opened.keys())
            for key in names:
                shape = list(opened.get_slice(key).get_shape())
                if key in known or key not in expected or shape != expected[key]["shape"]:
                    raise _unlike(key, expected, shape)
            tensors = {key: opened.get_tensor(key) for key in names}
    except FileNotFoundError as error:
        raise damaged(path, "it is missing") from error
    except (SafetensorError, OSError, AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from error
    for key, tensor in tensors.items():
        if _kind_of(tensor)["dtype"] != expected[key]["dtype"]:
            raise damaged(path, f"{key} is of another type", expected[key]["dtype"], str(tensor.dtype))
    return tensors


def _unlike(key: str, expected: Mapping[str, Any], shape: list[int] | None) -> CheckpointError:
    wanted = expected[key]["shape"] if key in expected else None
    return CheckpointError(
        "the weights do not fit the model described beside them",
        path=key,
        expected="no such tensor" if wanted is None else str(tuple(wanted)),
        given="no such tensor" if shape is None else str(tuple(shape)),
        fix="the files are not from one save; ask for the checkpoint again",
    )


def _kind_of(value: Any) -> dict[str, Any]:
    if isinstance(value, Tensor | OffloadedTensor):
        return {"dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape)}
    return {"dtype": type(value).__name__, "shape": []}


def _obstacle(value: object) -> str:
    """Why safetensors cannot hold a value; "" where it can."""
    if isinstance(value, OffloadedTensor):
        return "offloaded"
    if not isinstance(value, Tensor):
        return "other"
    if is_lazy(value):
        return "lazy"
    if value.is_meta:
        return "meta"
    if is_traceable_wrapper_subclass(value):
        return "sharded" if hasattr(value, "full_tensor") else "quantised"
    if value.is_quantized:
        return "quantised"
    return "" if value.layout is torch.strided and type(value) in (Tensor, nn.Parameter, nn.Buffer) else "other"
