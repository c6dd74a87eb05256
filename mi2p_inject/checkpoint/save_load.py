"""Checkpoints: one JSON, one safetensors file; written atomically, validated before anything is changed.

The JSON names its weights file, whose name is new at every save: it is replaced last, so a crash at any moment leaves
either the old checkpoint or the new one, whole. Nothing in a checkpoint is ever executed or unpickled.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
import uuid
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mi2p_inject.checkpoint.schema import CONFIG_NAME, FORMAT, VERSION, damaged
from mi2p_inject.core.atomic_write import write_whole
from mi2p_inject.core.errors import CheckpointError, Mi2pError
from mi2p_inject.core.expansion_config import ExpansionConfig

_WEIGHTS_NAME = re.compile(r"model-[0-9a-f]{12}\.safetensors")


def save(model: nn.Module, backbone: nn.Module, expansion: ExpansionConfig, folder: str | Path) -> None:
    """Write an expanded model to a folder: `mi2p_config.json` and `model-<id>.safetensors`.

    The units are always saved, the backbone's weights and buffers unless trainable="units" left them as they came. The
    source encoder is never saved.

    Args:
        model: the expanded model: backbone and units.
        backbone: its backbone, as it is inside `model`.
        expansion: what the expanded model was built from.
        folder: created if needed. A checkpoint already there is replaced, atomically; other files are left alone.

    Raises:
        CheckpointError: the folder is a file or cannot be written, or the state is not all plain tensors. The old
            checkpoint, if any, is still whole.

    Example:
        >>> import tempfile, torch
        >>> from mi2p_inject import ViewSpec, inject, load
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
        >>> x = torch.zeros(1, 3, 8, 8)
        >>> me = inject(net, layers="0", source_spec=ViewSpec.tokens(4), example_inputs=x)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     me.save_pretrained(folder)
        ...     net = me.eject()
        ...     me = load(folder, backbone=net)
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    folder = _as_path(folder)
    name = f"model-{uuid.uuid4().hex[:12]}.safetensors"
    tensors = _plain_tensors(model)
    if expansion.trainable == "units":
        tensors = {key: tensor for key, tensor in tensors.items() if key.startswith("units.")}
    tensors, aliases = _without_aliases(tensors)
    config = {
        "format": FORMAT,
        "version": VERSION,
        "weights": name,
        "aliases": aliases,
        "backbone": _fingerprint(backbone, values=expansion.trainable == "units"),
        "unit": {"kind": expansion.unit.kind, "options": dataclasses.asdict(expansion.unit)},
        "source": expansion.source.to_json(),
        "sites": [site.to_json() for site in expansion.sites],
        "num_heads": expansion.num_heads,
        "trainable": expansion.trainable,
        "strict": expansion.strict,
        "left_out": list(expansion.left_out),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        old = [path for path in folder.iterdir() if _WEIGHTS_NAME.fullmatch(path.name)]
        write_whole(folder / name, lambda path: save_file(tensors, path, metadata={"format": "pt"}))
        try:
            write_whole(folder / CONFIG_NAME, lambda path: Path(path).write_text(json.dumps(config, indent=2) + "\n"))
        except BaseException:
            (folder / name).unlink()
            raise
        for path in old:
            with contextlib.suppress(OSError):  # no harm in it: the next save tries again
                path.unlink()
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"cannot write a checkpoint: {error}",
            expected="a writable folder",
            given=str(folder),
            fix="choose another folder, or make room; a checkpoint that was there before is still whole",
        ) from error


def read_weights(folder: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    name = config["weights"]
    if not isinstance(name, str) or not _WEIGHTS_NAME.fullmatch(name):
        raise CheckpointError(
            "the checkpoint names a weights file that is not one of ours; nothing was read from it",
            expected="model-<12 hex digits>.safetensors beside the JSON",
            given=repr(name),
            fix="never load a pickle from a stranger; ask for a checkpoint that save_pretrained wrote",
        )
    path = folder / name
    try:
        tensors: dict[str, Tensor] = load_file(path)
        if twice := config["aliases"].keys() & tensors.keys():
            raise ValueError(f"{min(twice)} is both a tensor and an alias")
        return tensors | {alias: tensors[kept] for alias, kept in config["aliases"].items()}
    except FileNotFoundError as error:
        raise damaged(path, "it is missing") from error
    except KeyError as error:
        raise damaged(path, f"it lacks {error}, or has a type of numbers unknown here") from error
    except (SafetensorError, OSError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise damaged(path, str(error)) from error


def check_tensors(tensors: dict[str, Tensor], expansion: ExpansionConfig, backbone: nn.Module, path: Path) -> None:
    """The saved tensors are those of the units that the blueprint builds and of the backbone, in name and shape."""
    try:
        for site in expansion.sites:
            backbone.get_submodule(site.path)
        with torch.device("meta"):
            units = {
                site.key: expansion.unit.build(site.spec, expansion.source, expansion.num_heads)
                for site in expansion.sites
            }
    except (Mi2pError, AttributeError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise damaged(path.parent / CONFIG_NAME, str(error)) from error
    expected = {
        f"units.{at}.{key}": tuple(tensor.shape)
        for at, unit in units.items()
        for key, tensor in unit.state_dict().items()
    }
    if expansion.trainable == "all":
        expected |= {f"backbone.{key}": tuple(tensor.shape) for key, tensor in backbone.state_dict().items()}
    given = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    if expected != given:
        differing = sorted(key for key in expected.keys() | given.keys() if expected.get(key) != given.get(key))
        key = differing[0]
        raise CheckpointError(
            f"the weights do not fit the model described beside them ({len(differing)} tensors differ)",
            path=key,
            expected=str(expected.get(key, "no such tensor")),
            given=str(given.get(key, "no such tensor")),
            fix="the two files are not from one save; ask for the checkpoint again",
        )


def _plain_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The state of a module, all of it strided tensors with content: what a checkpoint can hold and be compared to."""
    state = dict(module.state_dict())
    for key, value in state.items():
        if isinstance(value, Tensor) and not is_lazy(value) and value.layout is torch.strided and not value.is_meta:
            continue
        meta = isinstance(value, Tensor) and value.is_meta
        raise CheckpointError(
            "a tensor on the meta device has no content" if meta else "a state that is no plain tensor",
            path=key,
            expected="a dense tensor with content",
            given="a meta tensor" if meta else type(value).__name__,
            fix="build the model on a real device, or backbone.to_empty(device=...) before its weights are loaded"
            if meta
            else "run lazy modules once, and keep other state out of state_dict() (get_extra_state: tensors only)",
        )
    return state


def _fingerprint(backbone: nn.Module, values: bool) -> dict[str, Any]:
    """What identifies a backbone: class, names and shapes; with `values` also a digest of its weights' samples."""
    state = _plain_tensors(backbone)
    print_: dict[str, Any] = {
        "class": f"{type(backbone).__module__}.{type(backbone).__qualname__}",
        "tensors": {key: list(tensor.shape) for key, tensor in state.items()},
    }
    if values:
        digest = hashlib.sha256()
        for key, tensor in state.items():
            flat = tensor.detach().flatten()
            sample = flat[:: max(1, len(flat) // 64)].to("cpu", torch.float64)
            digest.update(key.encode() + sample.numpy().tobytes())
        print_["values"] = digest.hexdigest()
    return print_


def check_backbone(saved: dict[str, Any], backbone: nn.Module, values: bool) -> None:
    own = _fingerprint(backbone, values)
    if saved == own:
        return
    theirs, ours = saved.get("tensors", {}), own["tensors"]
    differing = [key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key)]
    if differing:
        key = differing[0]
        detail = (f"{key} {theirs.get(key, 'absent')}", f"{key} {ours.get(key, 'absent')}")
    elif saved.get("class") != own["class"]:
        detail = (str(saved.get("class")), own["class"])
    else:
        detail = (
            "the weights it was injected with (trainable='units' does not save them)",
            "other values in the same shapes",
        )
    raise CheckpointError(
        "the checkpoint belongs to another backbone",
        path=differing[0] if differing else "",
        expected=detail[0],
        given=detail[1],
        fix=f"build the backbone as it was when saved: {saved.get('class')}, same head, same configuration",
    )


def _without_aliases(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """One entry a storage: tied weights are written once and named again."""
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


def _as_path(folder: str | Path) -> Path:
    if not isinstance(folder, (str, Path)):
        raise CheckpointError(
            "a folder is named by a string or a path", expected="str or Path", given=repr(folder), fix="pass a folder"
        )
    return Path(folder)


def local_folder(folder: str | Path) -> Path:
    path = _as_path(folder)
    if path.is_dir():
        return path
    if path.exists() or isinstance(folder, Path) or str(folder).count("/") != 1 or str(folder).startswith((".", "/")):
        raise CheckpointError(
            "no checkpoint folder there",
            expected="a folder that save_pretrained wrote",
            given=str(folder),
            fix="check the path",
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(folder), allow_patterns=[CONFIG_NAME, "model-*.safetensors"]))
    except Exception as error:
        raise CheckpointError(
            f"neither a local folder nor a repository that can be reached: {type(error).__name__}: {error}",
            expected="a folder, or the id of a Hub repository",
            given=str(folder),
            fix="check the path, or the id and the network",
        ) from error
