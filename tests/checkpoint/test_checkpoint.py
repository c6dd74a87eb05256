"""Checkpoints: what is damaged or does not fit gets our error, and leaves the backbone without a hook."""

from __future__ import annotations

import copy
import json
import os
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import PICTURES, WORDS, complains, expanded, net, same, token_features
from models import TINY
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mi2p_inject import ViewSpec, inject, load
from mi2p_inject.core.errors import CheckpointError, InjectionError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    expanded().save_pretrained(tmp_path)
    return tmp_path


class TestCheckpoints:
    def config(self, folder: Path, **changes: Any) -> None:
        path = folder / "mi2p_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    def test_not_a_checkpoint(self, tmp_path: Path) -> None:
        with complains(CheckpointError, "not a checkpoint"):
            load(tmp_path, backbone=net())
        for absent in (tmp_path / "absent", str(tmp_path / "absent"), "nobody/nothing-here"):
            with complains(CheckpointError):
                load(absent, backbone=net())

    def test_another_backbone(self, folder: Path) -> None:
        other = nn.Sequential(*list(net())[:-1], nn.Linear(6, 7))
        with complains(CheckpointError, "another backbone", r"4\.(weight|bias)"):
            load(folder, backbone=other)
        assert not other[0]._forward_hooks

    def test_other_weights_under_train_units(self, tmp_path: Path) -> None:
        expanded(trainable="units").save_pretrained(tmp_path)
        assert load(tmp_path, backbone=net()).expansion_config.trainable == "units"
        other = net()
        other[0].weight.data.add_(1)
        with complains(CheckpointError, "another backbone", "weights"):
            load(tmp_path, backbone=other)

    def test_another_source_encoder(self, folder: Path) -> None:
        with complains(CheckpointError, "another source encoder"):
            load(folder, backbone=net(), source_encoder=TINY["bert"].build())

    @pytest.mark.parametrize("keep", [0, 5, 100, -1])
    def test_truncated_weights(self, folder: Path, keep: int) -> None:
        path = next(folder.glob("*.safetensors"))
        path.write_bytes(path.read_bytes()[:keep])
        with complains(CheckpointError, "damaged"):
            load(folder, backbone=net())

    def test_truncated_json(self, folder: Path) -> None:
        path = folder / "mi2p_config.json"
        path.write_text(path.read_text()[:200])
        with complains(CheckpointError, "damaged"):
            load(folder, backbone=net())

    @pytest.mark.parametrize("key", ["sites", "unit", "source", "weights", "aliases", "num_heads"])
    def test_nonsense_in_the_json(self, folder: Path, key: str) -> None:
        for nonsense in (None, "x", [7], {"kind": 1}):
            self.config(folder, **{key: nonsense})
            with pytest.raises(CheckpointError):
                load(folder, backbone=net())

    def test_missing_weights(self, folder: Path) -> None:
        next(folder.glob("*.safetensors")).unlink()
        with complains(CheckpointError, "missing"):
            load(folder, backbone=net())

    def test_unknown_unit(self, folder: Path) -> None:
        self.config(folder, unit={"kind": "mi3p", "options": {}})
        with complains(CheckpointError, "unknown unit", "mi3p"):
            load(folder, backbone=net())

    def test_unknown_site(self, folder: Path) -> None:
        path = folder / "mi2p_config.json"
        path.write_text(path.read_text().replace('"path": "0"', '"path": "9"'))
        with pytest.raises(CheckpointError):
            load(folder, backbone=net())

    def test_weights_of_other_units(self, folder: Path) -> None:
        config = json.loads((folder / "mi2p_config.json").read_text())
        config["unit"]["options"]["head_dim"] = 5
        self.config(folder, unit=config["unit"])
        with complains(CheckpointError, "do not fit"):
            load(folder, backbone=net())

    def test_another_version(self, folder: Path) -> None:
        self.config(folder, version=99)
        with complains(CheckpointError, "version"):
            load(folder, backbone=net())

    def test_a_pickle_is_never_opened(self, folder: Path, tmp_path: Path) -> None:
        fired = tmp_path / "fired"

        class Bomb:
            def __reduce__(self) -> Any:
                return (Path.touch, (fired,))

        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
        for name in ("pytorch_model.bin", "../pytorch_model.bin", "/etc/passwd"):
            self.config(folder, weights=name)
            with complains(CheckpointError, "weights file"):
                load(folder, backbone=net())
        path = next(folder.glob("*.safetensors"))
        path.write_bytes(pickle.dumps(Bomb()))
        self.config(folder, weights=path.name)
        with complains(CheckpointError, "damaged"):
            load(folder, backbone=net())
        assert not fired.exists()

    def test_a_save_that_fails_leaves_the_old_checkpoint_whole(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = {path.name: path.read_bytes() for path in folder.iterdir()}

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        for step in ("fsync", "replace"):
            with monkeypatch.context() as patch:
                patch.setattr(os, step, full)
                with complains(CheckpointError, "No space left"):
                    expanded().save_pretrained(folder)
            assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    def test_a_folder_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with complains(CheckpointError):
            expanded().save_pretrained(tmp_path / "file")

    def test_saving_again_replaces_and_leaves_other_files(self, folder: Path) -> None:
        (folder / "notes.txt").write_text("mine")
        me = expanded()
        me.save_pretrained(folder)
        assert len(list(folder.iterdir())) == 3
        same(load(folder, backbone=net())(PICTURES, source=token_features(2)), me(PICTURES, source=token_features(2)))

    def test_tied_weights_are_written_once(self, tmp_path: Path) -> None:
        model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
        model[1].weight = model[0].weight
        me = inject(model, layers="0", source_spec=WORDS, example_inputs=PICTURES)
        me.save_pretrained(tmp_path)
        assert "backbone.1.weight" in json.loads((tmp_path / "mi2p_config.json").read_text())["aliases"]
        fresh = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
        load(tmp_path, backbone=fresh)
        assert torch.equal(fresh[1].weight, model[0].weight)


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


class TestWeightsThatDoNotFit:
    """All tensors are compared before the backbone is touched."""

    def rewrite(self, folder: Path, change: Any) -> None:
        path = next(folder.glob("*.safetensors"))
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)

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
        self.rewrite(folder, change)
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


MUTANTS: tuple[Any, ...] = (None, "x", "zz", -1, 0, 2.5, 1e300, 10**40, [], [1], {}, True)
DELETE = object()


def places(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every node of a JSON tree, leaves and containers alike."""
    if at:
        yield at
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
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
        path = tmp_path / "mi2p_config.json"
        config = json.loads(path.read_text())
        load(tmp_path, backbone=model).eject()
        for at in places(config):
            for value in (*MUTANTS, DELETE):
                path.write_text(json.dumps(changed(config, at, value)))
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
        ],
    )  # fmt: skip
    def test_never_accepted(self, folder: Path, at: tuple[Any, ...], value: Any) -> None:
        path = folder / "mi2p_config.json"
        path.write_text(json.dumps(changed(json.loads(path.read_text()), at, value)))
        model = net()
        with complains(CheckpointError):
            load(folder, backbone=model)
        assert hooks(model) == 0

    def test_the_message_says_where(self, folder: Path) -> None:
        path = folder / "mi2p_config.json"
        path.write_text(json.dumps(changed(json.loads(path.read_text()), ("sites", 0, "view", "width"), "6")))
        with complains(CheckpointError, re.escape("sites[0].view.width"), "expected: a size", "given: '6'"):
            load(folder, backbone=net())

    @pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, "[]", "null", "", "\xff", '{"format": [1]}'])
    def test_other_text(self, folder: Path, text: str) -> None:
        (folder / "mi2p_config.json").write_bytes(text.encode("latin-1"))
        with complains(CheckpointError):
            load(folder, backbone=net())

    def test_the_same_site_twice(self, folder: Path) -> None:
        path = folder / "mi2p_config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps(config | {"sites": config["sites"] * 2}))
        with complains(CheckpointError, "twice"):
            load(folder, backbone=net())


class TestArguments:
    @pytest.mark.parametrize("backbone", [None, "resnet", nn.Conv2d])
    def test_a_backbone_that_is_no_module(self, folder: Path, backbone: Any) -> None:
        with complains(InjectionError, "no module"):
            load(folder, backbone=backbone)

    def test_a_source_encoder_that_is_no_module(self, folder: Path) -> None:
        model = net()
        with complains(InjectionError, "source_encoder is no module"):
            load(folder, backbone=model, source_encoder="bert")  # type: ignore[arg-type]
        assert hooks(model) == 0

    @pytest.mark.parametrize("folder", [None, 5, ["a"], "a\0b", b"folder"])
    def test_a_folder_that_is_no_path(self, folder: Any) -> None:
        with complains(CheckpointError):
            load(folder, backbone=net())
        with complains(CheckpointError):
            expanded().save_pretrained(folder)


class TestSaving:
    @pytest.mark.skipif(not hasattr(os, "fork"), reason="RLIMIT_FSIZE")
    def test_no_room_leaves_the_old_checkpoint_whole(self, folder: Path) -> None:
        import resource
        import signal

        me = expanded()
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (512, hard))
            with complains(CheckpointError, "cannot write"):
                me.save_pretrained(folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, handler)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    def test_a_json_that_fails_leaves_no_weights_behind(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        real = os.replace

        def full(source: Any, target: Any) -> None:
            if str(target).endswith(".json"):
                raise OSError(28, "No space left on device")
            real(source, target)

        monkeypatch.setattr(os, "replace", full)
        with complains(CheckpointError, "No space left"):
            expanded().save_pretrained(folder)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    @pytest.mark.parametrize("train", ["all", "units"])
    def test_a_state_that_is_no_tensor(self, folder: Path, tmp_path: Path, train: Any) -> None:
        class Stateful(nn.ReLU):
            def get_extra_state(self) -> dict[str, int]:
                return {"seen": 1}

        model = net()
        model[1] = Stateful()
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        me = inject(model, layers="0", source_spec=WORDS, example_inputs=PICTURES, trainable=train)
        with complains(CheckpointError, "1._extra_state", "dict"):
            me.save_pretrained(folder)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        me.eject()
        with complains(CheckpointError, "1._extra_state"):
            load(folder, backbone=model)
        assert hooks(model) == 0

    def test_a_lazy_backbone(self, folder: Path) -> None:
        model = nn.Sequential(*list(net())[:-1], nn.LazyLinear(4))
        with complains(CheckpointError, "4.weight"):
            load(folder, backbone=model)
        assert hooks(model) == 0
