"""What the tests of checkpoints do to the files of one."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mi2p_inject.checkpoint.schema import CONFIG_NAME
from mi2p_inject.core.files.seal import sealed

DELETE = object()


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def weights_file(folder: Path) -> Path:
    (path,) = folder.glob("*.safetensors")
    return path


def read_json(folder: Path) -> Any:
    return json.loads((folder / CONFIG_NAME).read_text())


def write_json(folder: Path, config: Any) -> None:
    """Write a JSON as a forger would: with a checksum that is right."""
    (folder / CONFIG_NAME).write_text(json.dumps(sealed(config) if isinstance(config, dict) else config))


def edit(folder: Path, **changes: Any) -> None:
    write_json(folder, read_json(folder) | changes)


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the tensors of the weights file, and not what the JSON says of them."""
    tensors = load_file(weights_file(folder))
    change(tensors)
    save_file(tensors, weights_file(folder))


def places(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every node of a JSON tree, leaves and containers alike; of tensors all alike to two of them."""
    if at:
        yield at
    items = list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)) if isinstance(tree, list) else []
    for key, value in items[:2] if at[-1:] == ("tensors",) else items:
        yield from places(value, (*at, key))


def changed(tree: Any, at: tuple[Any, ...], value: Any) -> Any:
    tree = copy.deepcopy(tree)
    inner = tree
    for key in at[:-1]:
        inner = inner[key]
    if value is DELETE:
        del inner[at[-1]]
    else:
        inner[at[-1]] = value
    return tree
