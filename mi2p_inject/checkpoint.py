"""Checkpoints: one JSON, one safetensors file; written atomically, validated before anything is changed.

The JSON names its weights file, whose name is new at every save: it is replaced last, so a crash at any moment leaves
either the old checkpoint or the new one, whole. Nothing in a checkpoint is ever executed or unpickled.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mi2p_inject.adapters.find import find
from mi2p_inject.errors import CheckpointError, Mi2pError
from mi2p_inject.expanded import Blueprint, ExpandedModel
from mi2p_inject.probe import as_inputs
from mi2p_inject.sites import Site
from mi2p_inject.source import Source
from mi2p_inject.units import UNITS, unit_config
from mi2p_inject.views import ViewSpec

CONFIG_NAME = "mi2p_config.json"
FORMAT, VERSION = "mi2p_inject", 1
_WEIGHTS_NAME = re.compile(r"model-[0-9a-f]{12}\.safetensors")


def save(model: ExpandedModel, folder: str | Path) -> None:
    """Write an expanded model to a folder: `mi2p_config.json` and `model-<id>.safetensors`.

    The units are always saved, the backbone's weights and buffers unless train="units" left them as they came. The
    source encoder is never saved.

    Args:
        model: the expanded model.
        folder: created if needed. A checkpoint already there is replaced, atomically; other files are left alone.

    Raises:
        CheckpointError: the folder is a file, or cannot be written. The old checkpoint, if any, is still whole.

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
    from safetensors.torch import save_file

    folder = Path(folder)
    blueprint = model.blueprint
    name = f"model-{uuid.uuid4().hex[:12]}.safetensors"
    tensors = dict(model.state_dict())
    if blueprint.train == "units":
        tensors = {key: tensor for key, tensor in tensors.items() if key.startswith("units.")}
    tensors, aliases = _without_aliases(tensors)
    config = {
        "format": FORMAT,
        "version": VERSION,
        "weights": name,
        "aliases": aliases,
        "backbone": _fingerprint(model.backbone, values=blueprint.train == "units"),
        "unit": {"kind": blueprint.unit.kind, "options": dataclasses.asdict(blueprint.unit)},
        "source": blueprint.source.to_json(),
        "sites": [site.to_json() for site in blueprint.sites],
        "heads": blueprint.heads,
        "train": blueprint.train,
        "strict": blueprint.strict,
        "left_out": list(blueprint.left_out),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        old = [path for path in folder.iterdir() if _WEIGHTS_NAME.fullmatch(path.name)]
        _write(folder / name, lambda path: save_file(tensors, path, metadata={"format": "pt"}))
        _write(folder / CONFIG_NAME, lambda path: Path(path).write_text(json.dumps(config, indent=2) + "\n"))
        for path in old:
            path.unlink()
    except OSError as error:
        raise CheckpointError(
            f"cannot write a checkpoint: {error}",
            expected="a writable folder",
            given=str(folder),
            fix="choose another folder, or make room; a checkpoint that was there before is still whole",
        ) from error


def load(
    folder: str | Path,
    *,
    backbone: nn.Module,
    source_encoder: nn.Module | None = None,
    example_inputs: Any = None,
    source_example_inputs: Any = None,
) -> ExpandedModel:
    """An expanded model from a checkpoint, on a fresh backbone.

    All is validated before the backbone is touched: a checkpoint that does not fit leaves it as it was.

    Args:
        folder: what `save_pretrained` wrote: a folder, or the id of a Hugging Face Hub repository.
        backbone: a model of the class and shapes that were injected. With train="units" it must also have the very
            weights, since these are not in the checkpoint.
        source_encoder: as in `inject`; without it, features must be given.
        example_inputs: as in `inject`, only used by the summary's cost table where no adapter row knows the backbone.
        source_example_inputs: as in `inject`.

    Raises:
        CheckpointError: not a checkpoint of ours, damaged, with an unknown unit, holding a pickle, or of another
            backbone or source encoder.
    """
    folder = _local(folder)
    config = _read_config(folder)
    tensors = _read_weights(folder, config)
    _check_backbone(config["backbone"], backbone, values=config["train"] == "units")
    try:
        blueprint = _blueprint(config)
        match = find(backbone)
        inputs = (
            as_inputs(example_inputs)
            if example_inputs is not None
            else match.adapter.inputs(backbone.get_submodule(match.root))
            if match
            else ((), {})
        )
        source = Source(source_encoder, source_example_inputs) if source_encoder is not None else None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(folder / CONFIG_NAME, f"{type(error).__name__}: {error}") from error
    if source is not None and not blueprint.source.accepts(source.spec):
        raise CheckpointError(
            "the checkpoint was made with another source encoder",
            expected=str(blueprint.source),
            given=str(source.spec),
            fix="pass the source encoder it was trained with",
        )
    from mi2p_inject.injection import check_injectable, example_on_meta

    check_injectable(backbone, source_encoder, [site.path for site in blueprint.sites])
    _check_units(tensors, blueprint, folder / config["weights"])
    model = ExpandedModel(backbone, blueprint, source, example_on_meta(inputs))
    model.load_state_dict(tensors, strict=False)
    return model


def _blueprint(config: dict[str, Any]) -> Blueprint:
    kind = config["unit"]["kind"]
    if kind not in UNITS:
        raise CheckpointError(
            f"the checkpoint holds an unknown unit {kind!r}",
            expected=f"one of {', '.join(UNITS)}",
            given=kind,
            fix="upgrade mi2p_inject, or install the distribution that defines this unit",
        )
    if config["train"] not in ("all", "units"):
        raise ValueError(f"train is {config['train']!r}")
    return Blueprint(
        sites=tuple(Site.from_json(site) for site in config["sites"]),
        unit=unit_config(kind, config["unit"]["options"]),
        source=ViewSpec.from_json(config["source"]),
        heads=int(config["heads"]),
        train=config["train"],
        strict=bool(config["strict"]),
        left_out=tuple(config["left_out"]),
    )


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_NAME
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            "not a checkpoint of an expanded model",
            expected=f"a folder with {CONFIG_NAME}",
            given=f"{folder} with {', '.join(sorted(os.listdir(folder))[:6]) or 'nothing'}",
            fix="pass the folder that save_pretrained wrote",
        ) from error
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise _damaged(path, "it is not of our format")
    if config.get("version") != VERSION:
        raise CheckpointError(
            "the checkpoint is of another version",
            expected=f"version {VERSION}",
            given=f"version {config.get('version')}",
            fix="use the release of mi2p_inject that wrote it, or a newer one",
        )
    keys = {"weights", "aliases", "backbone", "unit", "source", "sites", "heads", "train", "strict", "left_out"}
    if missing := keys - set(config):
        raise _damaged(path, f"it lacks {', '.join(sorted(missing))}")
    return config


def _read_weights(folder: Path, config: dict[str, Any]) -> dict[str, Tensor]:
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
        aliases: dict[str, str] = config["aliases"]
        return tensors | {alias: tensors[kept] for alias, kept in aliases.items()}
    except FileNotFoundError as error:
        raise _damaged(path, "it is missing") from error
    except (SafetensorError, OSError, KeyError, AttributeError, ValueError) as error:
        raise _damaged(path, str(error)) from error


def _check_units(tensors: dict[str, Tensor], blueprint: Blueprint, path: Path) -> None:
    """The saved unit tensors are those that the blueprint builds, in name and shape."""
    try:
        with torch.device("meta"):
            units = nn.ModuleDict(
                {
                    site.path.replace(".", "/"): blueprint.unit.build(site.spec, blueprint.source, blueprint.heads)
                    for site in blueprint.sites
                }
            )
    except Mi2pError as error:
        raise _damaged(path.parent / CONFIG_NAME, str(error)) from error
    expected = {f"units.{key}": tuple(tensor.shape) for key, tensor in units.state_dict().items()}
    given = {key: tuple(tensor.shape) for key, tensor in tensors.items() if key.startswith("units.")}
    if expected != given:
        differing = sorted(key for key in expected.keys() | given.keys() if expected.get(key) != given.get(key))
        key = differing[0]
        raise CheckpointError(
            f"the weights do not fit the units described beside them ({len(differing)} tensors differ)",
            path=key,
            expected=str(expected.get(key, "no such tensor")),
            given=str(given.get(key, "no such tensor")),
            fix="the two files are not from one save; ask for the checkpoint again",
        )


def _fingerprint(backbone: nn.Module, values: bool) -> dict[str, Any]:
    """What identifies a backbone: class, names and shapes; with `values` also a digest of its weights' samples."""
    state = backbone.state_dict()
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


def _check_backbone(saved: dict[str, Any], backbone: nn.Module, values: bool) -> None:
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
            "the weights it was injected with (train='units' does not save them)",
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


def _write(path: Path, write: Callable[[str], object]) -> None:
    """Write through a temporary file in the same folder, flushed to disk and renamed."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _local(folder: str | Path) -> Path:
    path = Path(folder)
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


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint is damaged: {why}",
        expected="the files as save_pretrained wrote them",
        given=path.name,
        fix="copy it again",
    )
