"""transformers' common model tests on six classes; pytest collects it, beside the unpacked sdist.

The sdist ships the common tests without those of each model, and without two files that they import (exports and
generation, which have tests of their own): empty classes stand in for these, and small configurations are made here.
"""

from __future__ import annotations

import importlib
import os
import sys
import types
import unittest
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.peers.classes import TRANSFORMERS

package = types.ModuleType("tests")  # other distributions install a package of this name
package.__path__ = [str(Path(os.environ["MI2P_PEERS_FOLDER"]) / "tests")]
sys.modules["tests"] = package
for path, missing in (("tests.exporters", ""), ("tests.exporters.test_export", "ExportTesterMixin"),
                      ("tests.generation", ""), ("tests.generation.test_utils", "GenerationTesterMixin")):  # fmt: skip
    try:
        __import__(path)
    except ModuleNotFoundError:
        sys.modules[path] = types.ModuleType(path)
        setattr(sys.modules[path], missing or "__path__", type(missing, (), {}) if missing else [])

ModelTesterMixin: Any = importlib.import_module("tests.test_modeling_common").ModelTesterMixin

__all__ = ["Tester"]


class Tester:
    """What the common tests ask of a model's own tests: a configuration and a batch."""

    batch_size, seq_length, encoder_seq_length, num_choices, is_training = 7, 7, 7, 4, True
    hidden_size, num_hidden_layers, num_attention_heads = 32, 2, 4
    image_size, patch_size = 30, 2

    def __init__(self, name: str) -> None:
        self.cls: Any = getattr(transformers, name)
        self.pixels = self.cls.main_input_name == "pixel_values"
        self.decodes = self.cls.config_class().is_encoder_decoder
        if self.pixels and "patch_size" in TRANSFORMERS[name]:
            self.seq_length = self.encoder_seq_length = (self.image_size // self.patch_size) ** 2 + 1

    def get_config(self) -> Any:
        """A small configuration of the class."""
        return self.cls.config_class(**TRANSFORMERS[self.cls.__name__])

    def prepare_config_and_inputs_for_common(self) -> tuple[Any, dict[str, torch.Tensor]]:
        """A configuration and a batch of seven."""
        if self.pixels:
            return self.get_config(), {"pixel_values": torch.randn(7, 3, self.image_size, self.image_size)}
        ids = torch.randint(3, 99, (7, 7))
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return self.get_config(), {**inputs, "decoder_input_ids": ids} if self.decodes else inputs


def _case(name: str) -> type[unittest.TestCase]:
    tester = Tester(name)

    def set_up(self: Any) -> None:
        self.model_tester = tester

    body = {
        "all_model_classes": (tester.cls,),
        "setUp": set_up,
        "is_encoder_decoder": tester.decodes,
        "has_attentions": name != "ConvNextForImageClassification",
        "test_resize_embeddings": not tester.pixels,
        "__module__": __name__,
    }
    return type(f"Test{name}", (ModelTesterMixin, unittest.TestCase), body)


for _name in TRANSFORMERS:
    globals()[f"Test{_name}"] = _case(_name)
