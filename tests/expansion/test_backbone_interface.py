"""What other tools ask a model for: as the backbone answers; and a state that every tool can save."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import timm.optim
import torch
from helpers import PICTURES, differs, expanded, first_tensor, net, same, token_features
from models import BERT, HEADED, PATCHES, TINY, hugging
from torch import Tensor, nn
from transformers.utils.generic import can_return_loss, find_labels

from mi2p_inject import ExpandedModel, ViewSpec, inject

WORDS = ViewSpec.tokens(12)
HUGGING = {
    "BertForSequenceClassification": BERT,
    "BertForQuestionAnswering": BERT,
    "ViTForImageClassification": PATCHES,
    "GPT2LMHeadModel": {**BERT, "n_embd": 24, "n_layer": 2, "n_head": 4},
    "CLIPVisionModelWithProjection": PATCHES,
}


def inputs_of(name: str) -> dict[str, Tensor]:
    ids = torch.randint(3, 50, (2, 6), generator=torch.Generator().manual_seed(0))
    picture = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return {"pixel_values": picture} if HUGGING[name] is PATCHES else {"input_ids": ids}


def over(name: str) -> ExpandedModel:
    return inject(hugging(name, HUGGING[name])(), source_spec=WORDS, zero_init=None)


@pytest.mark.parametrize("name", HUGGING)
@pytest.mark.fault("S3", "signature, accepts_loss_kwargs, label names, config, device, dtype", "those of the backbone")
def test_transformers_reads_off_it_what_it_reads_off_the_backbone(name: str) -> None:
    me = over(name)
    model: Any = me.backbone
    assert isinstance(me, ExpandedModel)
    ours, theirs = inspect.signature(me.forward).parameters, inspect.signature(model.forward).parameters
    assert [one for one in ours if one not in ("source", "source_mask")] == list(theirs)
    assert {"source", "source_mask"} < set(ours)
    assert next(iter(inspect.signature(type(me).forward).parameters)) == "self"
    assert find_labels(type(me)) == find_labels(type(model))
    assert can_return_loss(type(me)) == can_return_loss(type(model))
    assert me._get_name() == type(model).__name__
    assert repr(me).startswith("ExpandedModel(")
    for word in ("config", "main_input_name", "loss_type", "supports_gradient_checkpointing"):
        assert getattr(me, word) == getattr(model, word)
    assert me.get_input_embeddings() is model.get_input_embeddings()
    assert (me.device, me.dtype) == (model.device, model.dtype)
    assert me.num_parameters() == model.num_parameters() + sum(one.numel() for one in me.units.parameters())
    if model.supports_gradient_checkpointing:
        me.activation_checkpointing_enable()
        assert me.is_activation_checkpointing
        assert model.is_activation_checkpointing
        me.activation_checkpointing_disable()
        assert not model.is_activation_checkpointing
    assert me.eject() is model


TRANSFORMERS = (
    "config", "main_input_name", "loss_type", "accepts_loss_kwargs", "model_tags", "add_model_tags", "hf_device_map",
    "generation_config", "supports_gradient_checkpointing", "is_gradient_checkpointing", "is_activation_checkpointing",
    "gradient_checkpointing_enable", "gradient_checkpointing_disable", "activation_checkpointing_enable",
    "activation_checkpointing_disable", "enable_input_require_grads", "disable_input_require_grads",
    "get_input_embeddings", "set_input_embeddings", "get_output_embeddings", "set_output_embeddings",
    "resize_token_embeddings", "tie_weights", "can_generate", "prepare_inputs_for_generation", "name_or_path",
    "_no_split_modules",
)  # fmt: skip
TIMM = (
    "set_grad_checkpointing", "pretrained_cfg", "default_cfg", "num_classes", "num_features", "get_classifier",
    "reset_classifier",
)  # fmt: skip


@pytest.mark.parametrize(("build", "words"), [
    (lambda: over("GPT2LMHeadModel"), TRANSFORMERS),
    (lambda: inject(timm.create_model("resnet10t"), source_spec=WORDS, example_inputs=PICTURES), TIMM),
    (expanded, ()),
], ids=["transformers", "timm", "module"])  # fmt: skip
@pytest.mark.fault("S4", "an attribute that Trainer, Accelerate, PEFT or timm reads or sets", "the backbone's own")
def test_each_attribute_is_the_backbones(build: Callable[[], ExpandedModel], words: tuple[str, ...]) -> None:
    """Each release of transformers asks for others: gradient_checkpointing_enable is activation_… today."""
    me = build()
    model: Any = me.backbone
    there = {word for word in TRANSFORMERS + TIMM if hasattr(model, word)}
    assert there >= {*words} - {"accepts_loss_kwargs", "hf_device_map"}
    for word in TRANSFORMERS + TIMM:
        assert hasattr(me, word) == (word in there), word
        if word in there:
            assert getattr(me, word) == getattr(model, word), word
    for word in {"config", "accepts_loss_kwargs", "hf_device_map", "num_classes"} & {*words}:
        setattr(me, word, "set")
        assert getattr(model, word) == "set", word


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "ViTForImageClassification"])
def test_copies_pickles_and_bindings_keep_the_signature(name: str, tmp_path: Path) -> None:
    me, given, source = over(name), inputs_of(name), token_features(2)
    out = first_tensor(me(**given, source=source))
    torch.save(me, tmp_path / "whole.pt")
    whole = torch.load(tmp_path / "whole.pt", weights_only=False)
    for other in (copy.deepcopy(me), pickle.loads(pickle.dumps(me)), copy.copy(me), whole):
        assert type(other) is type(me)
        assert inspect.signature(other.forward) == inspect.signature(me.forward)
        assert torch.equal(first_tensor(other(**given, source=source)), out)
    assert type(over(name)) is type(me)  # one class for each class of backbones


def test_generate_takes_a_source_as_forward_does() -> None:
    """Tools that generate (Seq2SeqTrainer, PEFT) ask for it; the backbone's own would run without a source."""
    me, source = over("GPT2LMHeadModel"), token_features(2)
    with torch.no_grad():
        for parameter in me.units.parameters():
            parameter.add_(0.5)
    ids, options = torch.full((2, 3), 7), {"do_sample": False, "max_new_tokens": 4, "pad_token_id": 1}
    given = me.generate(ids, source=source, output_logits=True, return_dict_in_generate=True, **options)
    wanted = me.call("generate", ids, source=source, output_logits=True, return_dict_in_generate=True, **options)
    alone = me.backbone.generate(ids, output_logits=True, return_dict_in_generate=True, **options)  # type: ignore[operator]
    same(given.logits, wanted.logits)
    assert differs(given.logits, alone.logits)
    assert torch.equal(me.generate(ids, **options), alone.sequences)


def test_a_backbone_whose_forward_somebody_has_wrapped() -> None:
    model = net()
    forward = model.forward
    model.forward = lambda picture: forward(picture)  # type: ignore[method-assign]
    me = inject(model, layers="0", source_spec=WORDS, example_inputs=PICTURES)
    assert list(inspect.signature(me.forward).parameters) == ["picture", "source", "source_mask"]
    assert list(inspect.signature(expanded().forward).parameters) == ["input", "source", "source_mask"]


@pytest.mark.fault("S4", "an attribute that the backbone lacks", "AttributeError, as on the backbone")
def test_what_the_backbone_lacks_is_lacking() -> None:
    me = expanded()
    for word in ("config", "gradient_checkpointing_enable", "set_grad_checkpointing", "no_weight_decay", "generate"):
        assert not hasattr(me, word), word
    assert me.dtype is torch.float32
    assert me.device == torch.device("cpu")
    assert not hasattr(over("ViTForImageClassification"), "generate")


@pytest.mark.fault("S3", "a backbone that says whether its loss is scaled already", "the expanded model says the same")
def test_who_scales_the_loss() -> None:
    me = expanded()
    assert not hasattr(me, "accepts_loss_kwargs")
    backbone: Any = me.backbone
    for says in (True, False):
        backbone.accepts_loss_kwargs = says
        assert me.accepts_loss_kwargs is says


@pytest.mark.fault("S4", "tied weights", "saved once, loaded by either name")
def test_tied_weights_are_saved_once_and_loaded_by_either_name(tmp_path: Path) -> None:
    me, given, source = over("GPT2LMHeadModel"), inputs_of("GPT2LMHeadModel"), token_features(2)
    assert me._tied_weights_keys == {"backbone.lm_head.weight": "backbone.transformer.wte.weight"}
    state = me.state_dict()
    assert "backbone.lm_head.weight" not in state
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    out = me(**given, source=source).logits
    read = safetensors.torch.load_file(tmp_path / "model.safetensors")
    every = {**read, "backbone.lm_head.weight": read["backbone.transformer.wte.weight"]}
    other_name = {key: one for key, one in every.items() if key != "backbone.transformer.wte.weight"}
    for one in (read, every, other_name):
        fresh = over("GPT2LMHeadModel")
        with torch.no_grad():
            fresh.backbone.transformer.wte.weight.add_(1)  # type: ignore[union-attr, operator]
        assert fresh.load_state_dict(one) == ([], [])
        assert torch.equal(fresh(**given, source=source).logits, out)
        assert fresh.backbone.lm_head.weight is fresh.backbone.transformer.wte.weight  # type: ignore[union-attr]
    holder = nn.ModuleDict({"inner": me})
    assert {f"inner.{key}" for key in state} == set(holder.state_dict())
    assert holder.load_state_dict(holder.state_dict()) == ([], [])
    del read["backbone.transformer.wte.weight"]
    assert set(me.load_state_dict(read, strict=False).missing_keys) == {
        "backbone.lm_head.weight",
        "backbone.transformer.wte.weight",
    }


def test_how_many_parameters_train(capsys: pytest.CaptureFixture[str]) -> None:
    me = inject(HEADED["bert"].build(), layers="paper", source_spec=WORDS, trainable="units")
    me.print_trainable_parameters()
    trains, total = (sum(one.numel() for one in part.parameters()) for part in (me.units, me))
    assert capsys.readouterr().out == (
        f"trainable params: {trains:,d} || all params: {total:,d} || trainable%: {100 * trains / total:.4f}\n"
    )
    assert me.num_parameters(only_trainable=True) == trains
    without = me.backbone.num_parameters(exclude_embeddings=True)  # type: ignore[operator]
    assert me.num_parameters(exclude_embeddings=True) == without + trains


@pytest.mark.parametrize("name", ["vit", "resnet", "swin", "convnext", "efficientnet"])
@pytest.mark.parametrize("coarse", [False, True])
def test_layer_decay_groups_parameters_as_timm_groups_the_backbones(name: str, coarse: bool) -> None:
    model: Any = HEADED[name].build()
    wanted = timm.models.group_parameters(model, model.group_matcher(coarse=coarse), reverse=True)
    me = inject(model, layers="paper", source_spec=WORDS, example_inputs=HEADED[name].inputs(2, 0)[0])
    got = timm.models.group_parameters(me, me.group_matcher(coarse=coarse), reverse=True)
    assert {key: got[f"backbone.{key}"] for key in wanted} == wanted
    of_sites = {}
    for path in [site.path for site in me.sites]:
        (of_sites[path],) = {value for key, value in got.items() if key.startswith(f"units./{path.replace('.', '/')}.")}
        inside = [value for key, value in wanted.items() if key.startswith(f"{path}.")]
        assert of_sites[path] == max(inside, default=of_sites[path])
    assert list(of_sites.values()) == sorted(of_sites.values())  # deeper sites are in later groups
    if hasattr(model, "no_weight_decay"):
        assert me.no_weight_decay() == {f"backbone.{key}" for key in model.no_weight_decay()}
    options = {"opt": "adamw", "lr": 1e-3, "weight_decay": 0.1, "layer_decay": 0.5}
    rates = {}
    for one in (model, me):
        optimizer = timm.optim.create_optimizer_v2(one, **options)
        names = {id(parameter): key.removeprefix("backbone.") for key, parameter in one.named_parameters()}
        found = {names[id(p)]: (g["lr_scale"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
        rates[one] = found
    assert {key: rates[me][key] for key in rates[model]} == rates[model]
    scale = {path: max(rate for key, (rate, _) in rates[me].items() if key.startswith(f"{path}.")) for path in of_sites}
    for path, rate in scale.items():
        unit = f"units./{path.replace('.', '/')}."
        assert {one for key, (one, _) in rates[me].items() if key.startswith(unit)} == {rate}


def test_timms_own_attributes() -> None:
    model: Any = HEADED["resnet"].build()
    me = inject(model, layers="paper", source_spec=WORDS, example_inputs=TINY["resnet"].inputs(1, 0)[0])
    assert me.num_classes == 5
    assert me.get_classifier() is model.get_classifier()
    me.reset_classifier(7)
    assert me(*TINY["resnet"].inputs(2, 0)[0], source=token_features(2)).shape == (2, 7)
    me.set_grad_checkpointing()
    assert model.grad_checkpointing
