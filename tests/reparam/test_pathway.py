"""Multimodal Pathway: W + λ·W_aux against a literal oracle, bit-equal start, fold, eject, save, and bad input."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as T
from helpers import complains, first_tensor
from pathway_models import HF, IMAGE, MLP, MODELS, WIDTH, built, timm_vit
from torch import nn

from mi2p_inject import load_pathway, pathway
from mi2p_inject.adapters import adapters
from mi2p_inject.core.errors import CheckpointError, PathwayError
from mi2p_inject.inspection.resolve import resolve


def literal(model: nn.Module, auxiliary: nn.Module, pairs: Any, scales: dict[str, float]) -> nn.Module:
    """A copy whose weights are W + λ·W_aux, written out."""
    plain = copy.deepcopy(model)
    for one in pairs:
        rows = []
        for part in one.parts:
            whole = auxiliary.get_parameter(part.path)
            third = len(whole) // 3
            rows.append(whole if part.third is None else whole[part.third * third : (part.third + 1) * third])
        with torch.no_grad():
            plain.get_parameter(one.path).add_(scales[one.path] * torch.cat(list(rows)))
    return plain


def test_every_adapter_that_describes_its_blocks_is_tested() -> None:
    assert {one.name for one in adapters() if one.blocks is not None} == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("auxiliary", ["vit", "bert"])  # one with fused projections, one with three
class TestEveryFamily:
    def test_starts_equal_follows_the_formula_folds_and_comes_back(self, name: str, auxiliary: str) -> None:
        model, aux, x = built(name).double(), built(auxiliary, seed=1).double(), MODELS[name][1]
        x = x.double() if x.is_floating_point() else x
        before, keys, kinds = first_tensor(model(x)), list(model.state_dict()), [type(m) for m in model.modules()]
        twin, pw = copy.deepcopy(model), pathway(model, auxiliary=aux)
        assert torch.equal(first_tensor(pw(x)), before)
        assert len({pair.role for pair in pw.pairs}) >= 4  # attention in and out, both layers of the MLP
        first_tensor(pw(x)).square().sum().backward()
        assert all(scale.grad is not None and scale.grad.abs().sum() > 0 for scale in pw.scales.values())
        values = {}
        with torch.no_grad():
            for number, (path, scale) in enumerate(pw.scales.items()):
                values[path] = 0.1 * (number + 1) / len(pw.pairs)
                scale.fill_(values[path])
        expected = first_tensor(literal(twin, aux, pw.pairs, values)(x))
        changed = first_tensor(pw(x))
        torch.testing.assert_close(changed, expected, atol=1e-10, rtol=1e-10)
        assert not torch.equal(changed, before)
        folded = pw.fold()
        assert folded is model
        assert torch.equal(first_tensor(folded(x)), changed)
        assert list(folded.state_dict()) == keys
        assert [type(m) for m in folded.modules()] == kinds


def pair_of(**options: Any) -> Any:
    return pathway(built("vit"), auxiliary=built("bert", seed=1), **options)


def test_auxiliary_weights_train_or_stay() -> None:
    for trains in (True, False):
        aux = built("bert", seed=1)
        aux.encoder.layer[0].attention.self.query.weight.requires_grad_(False)  # its owner's own choice comes back
        pw = pathway(built("vit"), auxiliary=aux, train_auxiliary=trains)
        with torch.no_grad():
            for scale in pw.scales.values():
                scale.fill_(0.5)
        first_tensor(pw(IMAGE)).sum().backward()
        used = [aux.get_parameter(part.path) for pair in pw.pairs for part in pair.parts]
        assert all((one.grad is not None) is trains for one in used)
        pw.eject()
        flags = {name: one.requires_grad for name, one in aux.named_parameters()}
        assert [name for name, flag in flags.items() if not flag] == ["encoder.layer.0.attention.self.query.weight"]


def test_biases_of_the_auxiliary_are_not_used() -> None:
    aux = built("bert", seed=1)
    pw = pathway(built("vit"), auxiliary=aux)
    with torch.no_grad():
        for scale in pw.scales.values():
            scale.fill_(0.5)
        before = pw(IMAGE)
        for name, one in aux.named_parameters():
            if name.endswith("bias"):
                one.add_(1.0)
        assert torch.equal(pw(IMAGE), before)


def test_eject_takes_the_auxiliarys_part_out_and_keeps_what_was_trained() -> None:
    pw = pair_of()
    before = pw(IMAGE)
    with torch.no_grad():
        for scale in pw.scales.values():
            scale.fill_(0.5)
    assert not torch.equal(pw(IMAGE), before)
    model = pw.eject()
    assert torch.equal(model(IMAGE), before)
    for call in (pw.fold, pw.eject, pw.summary, lambda: pw(IMAGE)):
        with complains(PathwayError, "folded or ejected"):
            call()


def test_saves_and_loads(tmp_path: Path) -> None:
    pw = pair_of(blocks=[(0, 1)])
    with torch.no_grad():
        for parameter in pw.parameters():
            parameter.add_(0.05)
    pw.save_pretrained(tmp_path)
    again = load_pathway(tmp_path, model=built("vit", seed=5), auxiliary=built("bert", seed=6))
    assert torch.equal(again(IMAGE), pw(IMAGE))
    assert again.blocks == ((0, 1),)
    pw.save_pretrained(tmp_path)  # over itself
    assert len(list(tmp_path.iterdir())) == 2
    with complains(CheckpointError, "other models"):
        load_pathway(tmp_path, model=timm_vit(num_classes=7), auxiliary=built("bert"))


@pytest.mark.parametrize("name", ["pathway_config.json", "model-*.safetensors"])
def test_a_flipped_byte_is_found(tmp_path: Path, name: str) -> None:
    pair_of().save_pretrained(tmp_path)
    file = next(tmp_path.glob(name))
    content = bytearray(file.read_bytes())
    content[len(content) * 3 // 4] ^= 4
    file.write_bytes(bytes(content))
    with complains(CheckpointError):
        load_pathway(tmp_path, model=built("vit"), auxiliary=built("bert"))


def test_no_checkpoint(tmp_path: Path) -> None:
    with complains(CheckpointError, "not a saved pathway"):
        load_pathway(tmp_path, model=built("vit"), auxiliary=built("bert"))


def test_the_summary_says_what_was_paired_and_what_was_left_out() -> None:
    aux = T.BertModel(T.BertConfig(**{**HF, "num_hidden_layers": 5}, vocab_size=40))
    text = pathway(built("vit"), auxiliary=aux).summary()
    assert "8 layers in 2 blocks" in text
    assert "blocks.0.attn.qkv.weight  <-  encoder.layer.0.attention.self.query.weight + " in text
    assert "blocks of the auxiliary left out: 2, 3, 4" in text


def test_trains_in_an_ordinary_loop_and_copies_are_apart() -> None:
    pw = pair_of()
    other = copy.deepcopy(pw)
    optimizer = torch.optim.SGD(pw.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        first_tensor(pw(IMAGE)).square().sum().backward()
        optimizer.step()
    assert all(float(scale) != 0 for scale in pw.scales.values())
    assert all(float(scale) == 0 for scale in other.scales.values())


@pytest.mark.parametrize("end", ["fold", "eject"])
@pytest.mark.parametrize("what", ["pathway", "model"])
def test_a_copy_outlives_the_pathway_that_it_was_made_of(what: str, end: str) -> None:
    pw = pair_of()
    with torch.no_grad():
        for scale in pw.scales.values():
            scale.fill_(0.5)
    expected = pw(IMAGE)
    copied = copy.deepcopy(pw if what == "pathway" else pw.model)
    getattr(pw, end)()
    assert torch.equal(copied(IMAGE), expected)
    if what == "pathway":
        folded = copied.fold()
        assert torch.equal(folded(IMAGE), expected)
        assert [type(one) for one in folded.modules()] == [type(one) for one in built("vit").modules()]


def test_lora_afterwards() -> None:
    peft = pytest.importorskip("peft")
    pw = pair_of()
    peft.inject_adapter_in_model(peft.LoraConfig(target_modules=["qkv"], r=2), pw.model)
    with torch.no_grad():
        for scale in pw.scales.values():
            scale.fill_(0.5)
    expected = pw(IMAGE)
    folded = pw.fold()
    assert torch.equal(folded(IMAGE), expected)
    assert not any("parametrizations" in key for key in folded.state_dict())


def test_a_layer_that_was_replaced() -> None:
    pw = pair_of()
    pw.model.blocks[0].mlp.fc1 = nn.Linear(WIDTH, MLP)
    with complains(PathwayError, "fc1", "has been replaced"):
        pw.fold()
    assert any("parametrizations" in key for key in pw.model.state_dict())  # all or nothing


def test_adapters_of_the_models_are_those_named() -> None:
    for name in MODELS:
        match = resolve(built(name), required=False).match
        assert match is not None
        assert match.adapter.name == name
