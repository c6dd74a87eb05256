"""A saved pathway on fresh models."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from mi2p_inject.checkpoint.hub import local_folder
from mi2p_inject.checkpoint.tensors import read_weights
from mi2p_inject.core.errors import CheckpointError
from mi2p_inject.reparam.reparameterize import Pathway, pathway
from mi2p_inject.reparam.saved import CONFIG_NAME, read_config

__all__ = ["load_pathway"]


def load_pathway(folder: str | Path, *, model: nn.Module, auxiliary: nn.Module) -> Pathway:
    """A saved pathway on fresh models of the same classes and shapes; all is verified before anything changes.

    Args:
        folder: what `Pathway.save_pretrained` wrote.
        model: the transformer, as it was built before `pathway`.
        auxiliary: the auxiliary transformer; the weights that are used of it come from the file.

    Raises:
        CheckpointError: not a pathway of ours, damaged, of other models, or of a wider dtype than these.
        PathwayError: the two models do not fit.

    Examples:
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
    path = local_folder(folder, CONFIG_NAME)
    config = read_config(path / CONFIG_NAME)
    tensors = read_weights(path, config)
    blocks = [(own, other) for own, other in config["blocks"]]
    pw = pathway(model, auxiliary=auxiliary, blocks=blocks, train_auxiliary=config["train_auxiliary"])
    here = pw.model.state_dict()
    own = {key: tuple(tensor.shape) for key, tensor in here.items()}
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
    for key, tensor in tensors.items():
        if torch.promote_types(tensor.dtype, here[key].dtype) != here[key].dtype:
            pw.eject()
            raise CheckpointError(
                "the models are of a narrower dtype than what was saved: it would be rounded",
                path=key,
                expected=str(tensor.dtype),
                given=str(here[key].dtype),
                fix="load into models of that dtype, and convert what load_pathway gives",
            )
    pw.model.load_state_dict(tensors)
    return pw
