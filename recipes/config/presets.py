"""Sets of options under a name, and the paper's Table 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["PRESETS", "preset_values"]

#: what differs from the defaults
PRESETS: dict[str, dict[str, Any]] = {
    "practical": {},
    # MI2P (CVPR 2022), section 4.2: Adam at a constant rate, backbone and units together, plain addition. What the
    # paper leaves open (augmentation, weight decay, clipping, early stopping) is off.
    "paper": {
        "unit": "mi2p-paper",
        "zero_init": "none",
        "vision_layers": ["paper"],
        "text_layers": ["paper"],
        "branch_loss": False,
        "calibrate": False,
        "optimizer": "adam",
        "schedule": "constant",
        "warmup_ratio": 0.0,
        "weight_decay": 0.0,
        "max_grad_norm": 0.0,
        "augment": False,
        "dropout": 0.0,
        "patience": 0,
        "precision": "fp32",
    },
}

#: data set, task -> batch size, epochs, learning rate: Table 2 of the paper
_PAPER_TABLE_2 = {
    ("crisismmd", "informative"): (128, 50, 3.5e-5),
    ("crisismmd", "humanitarian"): (128, 40, 2.5e-5),
    ("crisismmd", "damage"): (128, 40, 5e-5),
    ("food101", None): (256, 100, 7.5e-5),
    ("mmimdb", None): (128, 80, 5e-5),
}
_OTHER_DATA = _PAPER_TABLE_2["crisismmd", "humanitarian"]


def preset_values(preset: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a preset sets for the data and the learning rate that are given.

    Args:
        preset: a name of `PRESETS`.
        given: options by name; ``data``, ``task`` and ``learning_rate`` are looked at.
    """
    values = dict(PRESETS[preset])
    if preset != "paper":
        return values
    name, _, _ = str(given.get("data", "")).partition(":")
    batch, epochs, rate = _PAPER_TABLE_2.get((name, given.get("task")), _PAPER_TABLE_2.get((name, None), _OTHER_DATA))
    of_data = {"batch_size": batch, "epochs": epochs, "learning_rate": rate}
    one_rate = given.get("learning_rate", rate)
    units = given.get("new_learning_rate", one_rate)
    return values | of_data | {"new_learning_rate": one_rate, "unit_learning_rate": units}
