"""A pathway on disk: JSON + safetensors, written whole or not at all, verified when read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from mi2p_inject.checkpoint.hub import as_path, local_folder
from mi2p_inject.checkpoint.schema import damaged, sealed
from mi2p_inject.checkpoint.tensors import described, read_weights, without_aliases
from mi2p_inject.checkpoint.write import shards, write_checkpoint
from mi2p_inject.core.errors import CheckpointError, Mi2pError
from mi2p_inject.core.files.json_rules import TEXT, ListOf, MapOf, Rule, fault
from mi2p_inject.core.files.read import read_regular

if TYPE_CHECKING:
    from mi2p_inject.reparam.reparameterize import Pathway

__all__ = ["CONFIG_NAME", "load_pathway", "save"]

CONFIG_NAME = "pathway_config.json"
FORMAT, VERSION = "mi2p_inject.pathway", 1
MOST_BYTES = 64 * 2**20
_NUMBERS = Rule("a list of pairs of block numbers", lambda value: isinstance(value, list))
_SCHEMA: dict[str, Any] = {
    "weights": ListOf(TEXT),
    "tensors": Rule("an object", lambda value: isinstance(value, dict)),
    "aliases": MapOf(TEXT),
    "blocks": _NUMBERS,
    "train_auxiliary": Rule("true or false", lambda value: isinstance(value, bool)),
}


def save(pw: Pathway, folder: str | Path) -> None:
    """See `Pathway.save_pretrained`."""
    tensors, aliases = without_aliases(pw.model.state_dict())
    files = shards(tensors)
    config = sealed(
        {
            "format": FORMAT,
            "version": VERSION,
            "weights": list(files),
            "tensors": described(tensors),
            "aliases": aliases,
            "blocks": [list(pair) for pair in pw.blocks],
            "train_auxiliary": pw.train_auxiliary,
        }
    )
    write_checkpoint(as_path(folder), CONFIG_NAME, config, files)


def load_pathway(folder: str | Path, *, model: nn.Module, auxiliary: nn.Module) -> Pathway:
    """A saved pathway on fresh models of the same classes and shapes; all is verified before anything changes.

    Args:
        folder: what `Pathway.save_pretrained` wrote.
        model: the transformer, as it was built before `pathway`.
        auxiliary: the auxiliary transformer; the weights that are used of it come from the file.

    Raises:
        CheckpointError: not a pathway of ours, damaged, or of other models.
        PathwayError: the two models do not fit.

    Example:
        >>> import tempfile, timm, torch
        >>> from mi2p_inject.reparam import load_pathway, pathway
        >>> build = lambda: timm.create_model("vit_tiny_patch16_224", depth=1, embed_dim=48, num_heads=4, num_classes=3)
        >>> pw = pathway(build(), auxiliary=build())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pw.save_pretrained(folder)
        ...     again = load_pathway(folder, model=build(), auxiliary=build())
        >>> image = torch.randn(1, 3, 224, 224)
        >>> torch.equal(again.eval()(image), pw.eval()(image))
        True
    """
    from mi2p_inject.reparam.reparameterize import pathway

    path = local_folder(folder)
    config = _read_config(path / CONFIG_NAME)
    tensors = read_weights(path, config)
    blocks = [(own, other) for own, other in config["blocks"]]
    pw = pathway(model, auxiliary=auxiliary, blocks=blocks, train_auxiliary=config["train_auxiliary"])
    own = {key: tuple(tensor.shape) for key, tensor in pw.model.state_dict().items()}
    given = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    if own != given:
        key = min(key for key in own.keys() | given.keys() if own.get(key) != given.get(key))
        pw.eject()
        raise CheckpointError(
            "the pathway belongs to other models",
            path=key,
            expected=str(given.get(key, "no such tensor")),
            given=str(own.get(key, "no such tensor")),
            fix="build both models as they were when saved",
        )
    pw.model.load_state_dict(tensors)
    return pw


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(read_regular(path, MOST_BYTES).decode("utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            "not a saved pathway",
            expected=f"a folder with {CONFIG_NAME}",
            given=str(path.parent),
            fix="pass the folder that Pathway.save_pretrained wrote",
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, str(error)) from error
    if not isinstance(config, dict) or (config.get("format"), config.get("version")) != (FORMAT, VERSION):
        raise damaged(path, "it is not of our format and version")
    if broken := fault(config, _SCHEMA):
        raise damaged(path, f"{broken.place} is wrong", broken.expected, broken.given)
    if config != sealed(config):
        raise damaged(path, "its text is not what was saved")
    try:
        pairs = all(len(pair) == 2 and all(type(one) is int for one in pair) for pair in config["blocks"])
    except (TypeError, Mi2pError):
        pairs = False
    if not pairs:
        raise damaged(path, "blocks is wrong", "pairs of block numbers")
    return config
