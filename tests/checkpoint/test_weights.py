"""Weights that do not fit: compared with the JSON and with the backbone before anything is changed."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import hooks, rewrite
from helpers import complains, expanded, net, same
from torch import Tensor, nn

from mi2p_inject import load
from mi2p_inject.core.errors import CheckpointError


class TestWeightsThatDoNotFit:
    """All tensors are compared before the backbone is touched."""

    def refused(self, folder: Path, *words: str) -> None:
        model = net()
        before = copy.deepcopy(model.state_dict())
        with complains(CheckpointError, *words):
            load(folder, backbone=model)
        assert hooks(model) == 0
        same(dict(model.state_dict()), dict(before))

    @pytest.mark.parametrize("prefix", ["backbone.", "backbone.0.bias", "units."])
    def test_missing(self, folder: Path, prefix: str) -> None:
        def strip(tensors: dict[str, Tensor]) -> None:
            for key in [key for key in tensors if key.startswith(prefix)]:
                del tensors[key]

        self.refused_after(folder, strip, re.escape(prefix), "no such tensor")

    @pytest.mark.parametrize("key", ["backbone.9.weight", "units./9.x", "other"])
    def test_extra(self, folder: Path, key: str) -> None:
        self.refused_after(folder, lambda tensors: tensors.update({key: torch.zeros(2)}), key, "no such tensor")

    def test_another_shape(self, folder: Path) -> None:
        change = {"backbone.0.weight": torch.zeros(6, 3, 1, 1)}
        self.refused_after(folder, lambda tensors: tensors.update(change), "backbone.0.weight", r"\(6, 3, 3, 3\)")

    def test_a_backbone_where_only_units_belong(self, tmp_path: Path) -> None:
        expanded(trainable="units").save_pretrained(tmp_path)
        change = {"backbone.0.weight": torch.zeros(6, 3, 3, 3)}
        self.refused_after(tmp_path, lambda tensors: tensors.update(change), "backbone.0.weight")

    def refused_after(self, folder: Path, change: Any, *words: str) -> None:
        rewrite(folder, change)
        self.refused(folder, *words)

    @pytest.mark.parametrize("train", ["all", "units"])
    def test_a_backbone_on_meta(self, tmp_path: Path, train: Any) -> None:
        me = expanded(trainable=train)
        me.save_pretrained(tmp_path)
        with torch.device("meta"):
            fresh = net()
        with complains(CheckpointError, "meta", "to_empty"):
            load(tmp_path, backbone=fresh)
        assert hooks(fresh) == 0
        with complains(CheckpointError, "meta"):
            me.to("meta").save_pretrained(tmp_path)
        assert load(tmp_path, backbone=net()).expansion_config.trainable == train

    def test_a_backbone_that_refuses_its_weights_is_given_back(self, folder: Path) -> None:
        class Refuses(nn.Conv2d):
            def _load_from_state_dict(self, *_: Any, **__: Any) -> None:
                raise RuntimeError("not these")

        model = net()
        model[0].__class__ = Refuses
        with complains(CheckpointError, "not these"):
            load(folder, backbone=model)
        assert hooks(model) == 0
