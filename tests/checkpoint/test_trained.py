"""What was trained is saved, or saving refuses; a backbone that is not saved must be the very one, to the last bit."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import PICTURES, WORDS, complains, expanded, net, same, token_features
from safetensors.torch import load_file
from torch import Tensor, nn

from mi2p_inject import ExpandedModel, inject, load
from mi2p_inject.core.errors import CheckpointError

SOURCE = token_features(2)


def train(me: ExpandedModel, parameters: Any) -> None:
    optimizer = torch.optim.AdamW(list(parameters), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        me(PICTURES, source=SOURCE).square().sum().backward()
        optimizer.step()


def comes_back(me: ExpandedModel, folder: Path, backbone: nn.Module) -> ExpandedModel:
    """Save, load on a fresh backbone, and compare what both compute."""
    me.save_pretrained(folder)
    again = load(folder, backbone=backbone)
    same(again.eval()(PICTURES, source=SOURCE), me.eval()(PICTURES, source=SOURCE))
    same(dict(again.state_dict()), dict(me.state_dict()))
    return again


def saved_keys(folder: Path) -> set[str]:
    return {key for file in folder.glob("*.safetensors") for key in load_file(file) if not key.startswith("units.")}


@pytest.mark.fault(
    "S7", "trainable='units' and a head that was unfrozen", "the head is saved, and trains again once loaded"
)
def test_an_unfrozen_head_is_saved(tmp_path: Path) -> None:
    me = expanded(trainable="units")
    me.backbone[4].requires_grad_(True)  # type: ignore[index]
    comes_back(me, tmp_path, net())
    assert saved_keys(tmp_path) == {"backbone.4.weight", "backbone.4.bias"}  # before any step, too
    train(me, me.trainable_parameters())
    again = comes_back(me, tmp_path, net())
    assert saved_keys(tmp_path) == {"backbone.4.weight", "backbone.4.bias"}
    flags = [(name, one.requires_grad) for name, one in me.named_parameters()]
    assert flags == [(name, one.requires_grad) for name, one in again.named_parameters()]
    before = again.backbone[4].weight.detach().clone()  # type: ignore[index]
    train(again, again.trainable_parameters())
    assert not torch.equal(before, again.backbone[4].weight)  # type: ignore[index]
    comes_back(again, tmp_path, net())


@pytest.mark.fault("S7", "trainable='units', a head trained and frozen again", "the head is saved")
@pytest.mark.parametrize("between", [lambda me: me, copy.deepcopy, lambda me: pickle.loads(pickle.dumps(me))])
def test_a_head_that_is_frozen_again_is_saved(tmp_path: Path, between: Any) -> None:
    me = expanded(trainable="units")
    head = me.backbone[4].requires_grad_(True)  # type: ignore[index]
    train(me, me.trainable_parameters())
    head.requires_grad_(False)
    again = comes_back(between(me), tmp_path, net())
    assert not again.backbone[4].weight.requires_grad  # type: ignore[index]


def batch_norm_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.fault("S7", "trainable='units' and BatchNorm statistics that moved", "the statistics are saved")
def test_statistics_that_moved_are_saved(tmp_path: Path) -> None:
    me = inject(batch_norm_net(), "0", source_spec=WORDS, example_inputs=PICTURES, zero_init=None, trainable="units")
    me.backbone[1].running_mean.add_(0.5)  # type: ignore[index]  # somebody recalibrates: a forward leaves them alone
    comes_back(me, tmp_path, batch_norm_net())
    assert "backbone.1.running_mean" in saved_keys(tmp_path)
    assert "backbone.1.weight" not in saved_keys(tmp_path)


@pytest.mark.fault(
    "S7", "trainable='units' and a module of the backbone replaced after injection", "the module is saved"
)
def test_a_replaced_module_is_saved(tmp_path: Path) -> None:
    me = expanded(trainable="units")
    me.backbone[4] = nn.Linear(6, 9)  # type: ignore[index, assignment]
    fresh = net()
    fresh[4] = nn.Linear(6, 9)  # type: ignore[index, assignment]
    comes_back(me, tmp_path, fresh)


@pytest.mark.parametrize(
    "change",
    [
        lambda weight: weight.copy_(weight.flip(0)),
        lambda weight: weight.copy_(weight[torch.randperm(len(weight))]),
        lambda weight: weight.neg_(),
        lambda weight: weight.view(-1).copy_(weight.view(-1).view(-1, 2).flip(0).reshape(-1)),
        lambda weight: weight.view(-1)[-1:].neg_(),
    ],
    ids=["flipped", "shuffled", "negated", "pairs exchanged", "one sign"],
)
@pytest.mark.parametrize("width", [8, 6, 5, 2])
@pytest.mark.fault("S7", "trainable='units' and weights that changed places, or their signs", "they are saved")
def test_values_that_changed_places_are_saved(change: Any, width: int, tmp_path: Path) -> None:
    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, width, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4))

    me = inject(model(), "0", source_spec=WORDS, example_inputs=PICTURES, zero_init=None, trainable="units")
    with torch.no_grad():
        change(me.backbone[3].weight)  # type: ignore[index]
    comes_back(me, tmp_path, model())
    assert "backbone.3.weight" in saved_keys(tmp_path)


def test_a_tied_weight_that_trains_is_saved_under_both_names(tmp_path: Path) -> None:
    def tied() -> nn.Module:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1))
        model[2].weight = model[0].weight
        return model

    me = inject(tied(), "0", source_spec=WORDS, example_inputs=PICTURES, zero_init=None, trainable="units")
    me.backbone[2].weight.requires_grad_(True)  # type: ignore[index]
    train(me, me.trainable_parameters())
    again = comes_back(me, tmp_path, tied())
    assert again.backbone[0].weight is again.backbone[2].weight  # type: ignore[index]
    apart = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1))
    apart.load_state_dict(tied().state_dict())
    same(load(tmp_path, backbone=apart)(PICTURES, source=SOURCE), me(PICTURES, source=SOURCE))


@pytest.mark.parametrize("trainable", ["all", "units"])
@pytest.mark.fault("S7", "a module beside backbone and units, which no checkpoint would hold", "CheckpointError")
def test_a_module_beside_backbone_and_units_is_refused(tmp_path: Path, trainable: Any) -> None:
    me = expanded(trainable=trainable)
    me.head = nn.Linear(4, 2)
    with complains(CheckpointError, "head.weight", "does not hold"):
        me.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("trainable", ["all", "units"])
@pytest.mark.fault("S7", "a trained parameter that state_dict() leaves out", "CheckpointError")
def test_a_parameter_that_the_state_leaves_out_is_refused(tmp_path: Path, trainable: Any) -> None:
    class Forgetful(nn.Linear):
        def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
            destination[prefix + "bias"] = self.bias.detach()

    model = net()
    model[4].__class__ = Forgetful  # type: ignore[index]
    me = inject(model, "0", source_spec=WORDS, example_inputs=PICTURES, trainable=trainable)
    me.backbone.requires_grad_(True)
    with complains(CheckpointError, "4.weight", "does not hold"):
        me.save_pretrained(tmp_path)


@pytest.mark.parametrize("wide", [100, 4096])
@pytest.mark.fault("S7", "trainable='units' and a backbone of which one value differs", "CheckpointError")
def test_every_value_of_an_unsaved_backbone_is_compared(tmp_path: Path, wide: int) -> None:
    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, wide))

    me = inject(model(), "0", source_spec=WORDS, example_inputs=PICTURES, trainable="units")
    me.save_pretrained(tmp_path)
    for place in (1, 6 * wide // 2 + 1, 6 * wide - 2):
        other = model()
        flat = other[3].weight.data.view(-1)  # type: ignore[index, operator]
        flat[place] = torch.nextafter(flat[place], torch.tensor(9.0))
        with complains(CheckpointError, "another backbone", "3.weight", "SHA-256"):
            load(tmp_path, backbone=other)
    load(tmp_path, backbone=model())


def quantised() -> nn.Module:
    """As torchao leaves a model: weights that are a subclass of Tensor made of inner ones."""
    from torch.testing._internal.two_tensor import TwoTensor

    model = net()
    weight = model[4].weight.data  # type: ignore[index]
    model[4].weight = nn.Parameter(TwoTensor(weight, weight.clone()), requires_grad=False)  # type: ignore[index]
    return model


def packed() -> nn.Module:
    """As torch.ao leaves a model: weights packed into an object of its own."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(net(), {nn.Linear})


@pytest.mark.parametrize("build", [quantised, packed])
@pytest.mark.fault("quantised", "a quantised backbone, trainable='units'", "the units are saved, the rest is verified")
def test_units_on_a_quantised_backbone(tmp_path: Path, build: Any) -> None:
    def injected() -> ExpandedModel:
        return inject(build(), "0", source_spec=WORDS, example_inputs=PICTURES, zero_init=None, trainable="units")

    me = injected()
    train(me, me.trainable_parameters())
    me.save_pretrained(tmp_path)
    assert not saved_keys(tmp_path)
    again = load(tmp_path, backbone=build())
    same(dict(again.units.state_dict()), dict(me.units.state_dict()))
    other = net()
    other[4].weight.data.mul_(3)  # type: ignore[index, operator]
    with complains(CheckpointError, "another backbone"):
        load(tmp_path, backbone=other)


@pytest.mark.parametrize("build", [quantised, packed])
@pytest.mark.fault(
    "quantised", "a quantised backbone, trainable='all'", "CheckpointError: inject with trainable='units'"
)
def test_a_quantised_backbone_is_not_saved_whole(tmp_path: Path, build: Any) -> None:
    me = inject(build(), "0", source_spec=WORDS, example_inputs=PICTURES)
    with complains(CheckpointError, "no plain tensor"):
        me.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_packed_weight_is_another_backbone(tmp_path: Path) -> None:
    me = inject(packed(), "0", source_spec=WORDS, example_inputs=PICTURES, trainable="units")
    me.save_pretrained(tmp_path)
    model = net()
    with torch.no_grad():
        model[4].weight[3, 5] *= 2  # type: ignore[index]
    other = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
    with complains(CheckpointError, "another backbone"):
        load(tmp_path, backbone=other)


def test_a_checkpoint_in_half_precision_comes_back(tmp_path: Path) -> None:
    me = expanded(trainable="units").to(torch.bfloat16)
    me.save_pretrained(tmp_path)
    again = load(tmp_path, backbone=net().to(torch.bfloat16))
    same(dict(again.state_dict()), dict(me.state_dict()))


def test_a_state_that_changes_its_size(tmp_path: Path) -> None:
    me = expanded()
    before: dict[str, Tensor] = {key: value.clone() for key, value in me.state_dict().items()}
    me.backbone[4].weight.data = torch.zeros(4, 6)  # type: ignore[index]
    comes_back(me, tmp_path, net())
    assert not torch.equal(before["backbone.4.weight"], me.state_dict()["backbone.4.weight"])
