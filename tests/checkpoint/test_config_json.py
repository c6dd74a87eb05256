"""The JSON of a checkpoint: each place changed or deleted is our error, or changes nothing."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from checkpoint_files import DELETE, changed, hooks, places, read_json, write_json
from helpers import PICTURES, complains, expanded, net
from torch import nn

from mi2p_inject import ViewSpec, inject, load
from mi2p_inject.core.errors import CheckpointError

MUTANTS: tuple[Any, ...] = (None, "x", "zz", -1, 0, 2.5, 1e300, 10**40, [], [1], {}, True)


class TestNonsenseInTheJson:
    @pytest.mark.parametrize("kind", ["all", "units", "tied weights, map source"])
    def test_each_place_changed_or_deleted(self, tmp_path: Path, kind: str) -> None:
        model = net()
        if kind in ("all", "units"):
            me = expanded(trainable=kind)
        else:
            model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
            model[1].weight = model[0].weight
            source = ViewSpec.map(10, 3, 4)
            me = inject(copy.deepcopy(model), layers=["0", "1"], source_spec=source, example_inputs=PICTURES)
        me.save_pretrained(tmp_path)
        config = read_json(tmp_path)
        load(tmp_path, backbone=model).eject()
        for at in places(config):
            for value in (*MUTANTS, DELETE):
                write_json(tmp_path, changed(config, at, value))
                try:
                    load(tmp_path, backbone=model).eject()
                except CheckpointError as error:
                    message = str(error)
                    complete = all(part in message for part in ("expected: ", "given: ", "fix: "))
                    if not complete:
                        raise AssertionError(f"{at} = {value!r}: {message}") from error
                except Exception as error:
                    raise AssertionError(f"{at} = {value!r}: {type(error).__name__}") from error
                assert hooks(model) == 0, (at, value)

    @pytest.mark.parametrize(
        ("at", "value"),
        [
            (("strict",), "zz"), (("strict",), 1), (("unit", "options", "channel_embedding_dim"), [1]),
            (("unit", "options", "zero_init"), "zz"), (("unit", "options", "zero_init"), 1), (("num_heads",), 0),
            (("num_heads",), -1),
            (("num_heads",), True), (("num_heads",), 2.0), (("left_out",), "abc"), (("left_out",), [1]),
            (("sites", 0, "path"), ""), (("sites", 0, "layout", "prefix"), True), (("sites", 0, "layout", "grid"), [1]),
            (("sites", 0, "layout", "image"), [1, 0]), (("sites", 0, "layout", "element"), [1]),
            (("sites", 0, "view", "width"), "6"), (("source", "width"), 12.0), (("source", "grid"), []),
            (("backbone", "tensors"), [1]), (("backbone", "class"), None), (("aliases",), {"a": "b"}),
            (("aliases",), {"backbone.0.bias": "backbone.4.bias"}), (("trainable",), "zz"), (("sites",), []),
            (("weights",), "model-0123456789ab.safetensors"), (("weights",), []),
            (("backbone", "trained"), ["9.weight"]),
            (("tensors", "backbone.0.bias", "dtype"), "float64"), (("tensors", "backbone.0.bias", "shape"), [7]),
            (("tensors", "backbone.0.bias", "sha256"), "0" * 64), (("backbone", "tensors"), {"0.bias": {}}),
        ],
    )  # fmt: skip
    def test_never_accepted(self, folder: Path, at: tuple[Any, ...], value: Any) -> None:
        write_json(folder, changed(read_json(folder), at, value))
        model = net()
        with complains(CheckpointError):
            load(folder, backbone=model)
        assert hooks(model) == 0

    def test_the_message_says_where(self, folder: Path) -> None:
        write_json(folder, changed(read_json(folder), ("sites", 0, "view", "width"), "6"))
        with complains(CheckpointError, re.escape("sites[0].view.width"), "expected: a size", "given: '6'"):
            load(folder, backbone=net())

    @pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, "[]", "null", "", "\xff", '{"format": [1]}'])
    def test_other_text(self, folder: Path, text: str) -> None:
        (folder / "mi2p_config.json").write_bytes(text.encode("latin-1"))
        with complains(CheckpointError):
            load(folder, backbone=net())

    @pytest.mark.parametrize("levels", [100, 300, 900, 950, 980, 990, 995])
    @pytest.mark.parametrize("key", ["unit", "format", "sites", "weights", "beside"])
    def test_many_levels(self, folder: Path, levels: int, key: str) -> None:
        text = json.dumps({**read_json(folder), key: "deep"}).replace('"deep"', "[" * levels + "]" * levels)
        (folder / "mi2p_config.json").write_text(text)
        with complains(CheckpointError):
            load(folder, backbone=net())

    @pytest.mark.fault("S8", "a changed value in the JSON of a checkpoint", "CheckpointError: not what was saved")
    def test_a_text_that_was_changed_after_the_save(self, folder: Path) -> None:
        path = folder / "mi2p_config.json"
        text = path.read_text().replace('"strict": false', '"strict": true')
        assert text != path.read_text()
        path.write_text(text)
        with complains(CheckpointError, "not what was saved"):
            load(folder, backbone=net())

    def test_the_same_site_twice(self, folder: Path) -> None:
        config = read_json(folder)
        write_json(folder, config | {"sites": config["sites"] * 2})
        with complains(CheckpointError, "twice"):
            load(folder, backbone=net())
