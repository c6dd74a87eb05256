"""ViLT against transformers' own path and a literal oracle; CentralNet against a literal oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from bert_oracle import attention, gelu, linear, norm, state_of
from compared_systems import SIDE, batch, built
from torch import nn

from mi2p_inject.recipes.errors import RecipeError

HERE = ([True, True, False, True, False], [True, True, True, False, False])


def test_vilt() -> None:
    model: Any = built("vilt")
    with torch.no_grad():
        for one in (model.network.embeddings.position_embeddings, model.network.embeddings.cls_token):
            one.normal_()  # transformers starts them at zero
    given, state = batch(*HERE), state_of(model)
    with torch.no_grad():
        logits = model(**given)["logits"].numpy()
    name = "network.embeddings"
    kernel = state[f"{name}.patch_embeddings.projection.weight"]
    for sample in range(len(logits)):
        read = int(given["attention_mask"][sample].sum()) if HERE[1][sample] else 1
        words = state[f"{name}.text_embeddings.word_embeddings.weight"][given["input_ids"][sample, :read]]
        table = f"{name}.text_embeddings"
        total = words + state[f"{table}.position_embeddings.weight"][:read]
        text = norm(state, f"{table}.LayerNorm", total + state[f"{table}.token_type_embeddings.weight"][0])
        picture = given["pixel_values"][sample].numpy()
        patches = [
            (kernel * picture[None, :, row : row + 32, column : column + 32]).sum((1, 2, 3))
            + state[f"{name}.patch_embeddings.projection.bias"]
            for row in range(0, SIDE, 32)
            for column in range(0, SIDE, 32)
        ]
        image = np.stack([state[f"{name}.cls_token"][0, 0], *patches]) + state[f"{name}.position_embeddings"][0]
        kinds = state[f"{name}.token_type_embeddings.weight"]
        x = np.concatenate([text + kinds[0], image + kinds[1]])
        mask = np.array([True] * read + [HERE[0][sample]] * len(image))
        for number in range(12):
            block = f"network.encoder.layer.{number}"
            normed = norm(state, f"{block}.layernorm_before", x)
            parts = (linear(state, f"{block}.attention.attention.{one}", normed) for one in ("query", "key", "value"))
            x = x + linear(state, f"{block}.attention.output.dense", attention(*parts, mask, 4))
            inner = linear(state, f"{block}.intermediate.dense", norm(state, f"{block}.layernorm_after", x))
            x = x + linear(state, f"{block}.output.dense", gelu(inner))
        vector = np.tanh(linear(state, "network.pooler.dense", norm(state, "network.layernorm", x)[0]))
        hidden = gelu(norm(state, "head.1", linear(state, "head.0", vector), eps=1e-5))
        assert np.abs(linear(state, "head.3", hidden) - logits[sample]).max() < 1e-10


def test_vilt_is_that_of_transformers_but_takes_no_random_numbers() -> None:
    model: Any = built("vilt")
    given = batch([True] * 3, [True] * 3)
    network = model.network
    with torch.no_grad():
        network.embeddings.position_embeddings.normal_()
        before = torch.get_rng_state()
        logits = model(**given)["logits"]
        assert torch.equal(torch.get_rng_state(), before)
        network.config.image_size = SIDE  # transformers' own path takes square pictures only
        theirs = network(
            input_ids=given["input_ids"],
            attention_mask=given["attention_mask"],
            pixel_values=given["pixel_values"],
            pixel_mask=torch.ones(3, SIDE, SIDE),
        )
    assert not torch.equal(torch.get_rng_state(), before)
    assert (model.head(theirs.pooler_output) - logits).abs().max() < 1e-10


def test_vilt_s_graph_is_for_any_number_of_samples() -> None:
    model: Any = built("vilt")

    class OfTensors(nn.Module):
        def forward(self, given: dict[str, torch.Tensor]) -> torch.Tensor:
            logits: torch.Tensor = model.logits(given)
            return logits

    rows = torch.export.Dim("rows", min=1)
    given = batch([True, False, True], [True] * 3)
    shapes = ({name: {0: rows} for name in given},)
    exported = torch.export.export(OfTensors(), (given,), dynamic_shapes=shapes, strict=False).module()
    other = batch([True, True], [True, False])
    assert torch.allclose(exported(other), model.logits(other))


def test_what_a_vilt_takes_of_its_encoders() -> None:
    model: Any = built("vilt", system_options={"layers": 2, "hidden_size": 60, "heads": 3, "patch_size": 16})
    config = model.network.config
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (2, 60, 3)
    assert config.hidden_dropout_prob == 0.1
    assert config.vocab_size == 30522
    given = batch([True], [True])
    long = {name: given[name].repeat(1, 5) for name in ("input_ids", "attention_mask")}
    with pytest.raises(RecipeError, match="at most 40 tokens"):
        model(**{**given, **long})
    with pytest.raises(RecipeError, match="pictures of"):
        model(**{**given, "pixel_values": given["pixel_values"][..., :32]})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text": "tiny:clip"}, "does not fit a ViLT"),
        ({"system_options": {"patch_size": 30}}, "whole number of patches"),
        ({"system_options": {"heads": 5}}, "how large a ViLT"),
        ({"system_options": {"layers": 1, "hidden_size": 8, "heads": 1}}, "is larger than the ViLT"),
    ],
)
def test_what_does_not_fit_a_vilt(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        built("vilt", **settings)


CASES = [
    ({}, "tiny", "tiny", ["features.denseblock1", "features.denseblock4"], [2, 11]),
    ({"project": True, "beta": 0.5, "levels": 2}, "tiny:resnet", "tiny:xlnet", ["layer2", "layer4"], [1, 3]),
]


@pytest.mark.parametrize(("options", "vision", "text", "paths", "numbers"), CASES)
def test_centralnet(options: dict[str, Any], vision: str, text: str, paths: list[str], numbers: list[int]) -> None:
    model: Any = built("centralnet", vision=vision, text=text, system_options=options)
    levels = options.get("levels", 4)
    assert [model.image._sites[0].path, model.image._sites[-1].path] == paths
    assert [int(model.text._sites[at].path.rpartition(".")[2]) for at in (0, -1)] == numbers
    given, state = batch(*HERE), state_of(model)
    labels = torch.tensor([0, 1, 2, 1, 0])
    seen: dict[str, list[np.ndarray[Any, Any]]] = {"image": [], "text": []}

    def watch(modality: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            if modality == "image":
                seen[modality].append(hidden.mean((2, 3)).numpy())
            elif "xlnet" in text:  # length first, padding on either side
                last = [int(torch.nonzero(row).max()) for row in given["attention_mask"]]
                seen[modality].append(np.stack([hidden[at, row].numpy() for row, at in enumerate(last)]))
            else:
                seen[modality].append(hidden[:, 0].numpy())

        return hook

    for modality in ("image", "text"):
        one = getattr(model, modality)
        for site in one._sites:
            one.network.get_submodule(site.path).register_forward_hook(watch(modality))
    with torch.no_grad():
        output = model(**given, labels=labels)
    logits = output["logits"].numpy()
    for sample in range(5):
        central = None
        for level in range(levels):
            wide, total = model.widths[level], 0
            for number, modality in enumerate(("image", "text")):
                vector = seen[modality][level][sample]
                if options.get("project"):
                    vector = linear(state, f"projections.{level}.{modality}", vector)
                else:
                    vector = np.concatenate([vector, np.zeros(wide - len(vector))])
                if HERE[number][sample]:
                    total = total + state[f"scales.{level}"][number] * vector
            if central is not None:
                total = total + state[f"scales.{level}"][2] * central
            central = np.maximum(linear(state, f"central.{level}", total + np.zeros(wide)), 0)
        assert np.abs(linear(state, "head", central) - logits[sample]).max() < 1e-10
    expected = model.loss(output["logits"], labels)
    for number, modality in enumerate(("image", "text")):
        rows = torch.tensor(HERE[number])
        with torch.no_grad():
            vector, _ = getattr(model, modality)(given)
            own = model.heads[modality](vector)
        expected = expected + options.get("beta", 1.0) * model.loss(own[rows], labels[rows])
    assert output["loss"].item() == pytest.approx(expected.item(), abs=1e-6)


def test_centralnet_starts_at_ones_and_leaves_its_encoders_as_they_are() -> None:
    from mi2p_inject.recipes.config import make_config
    from mi2p_inject.recipes.encoders.load import load_encoder
    from mi2p_inject.recipes.systems import build_system
    from mi2p_inject.recipes.tasks import SingleLabel

    config = make_config({"data": "-", "model": "centralnet", "vision": "tiny", "text": "tiny"})
    encoders = {"image": load_encoder("tiny", "image"), "text": load_encoder("tiny", "text")}
    with torch.no_grad():
        pixels = torch.randn(2, 3, SIDE, SIDE)
        expected = encoders["image"].model(pixels)
    model: Any = build_system(config, encoders, SingleLabel(("a", "b")))
    assert [one.tolist() for one in model.scales] == [[1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1]]
    given = {
        name: value.float() if value.is_floating_point() else value
        for name, value in batch([True] * 2, [True] * 2).items()
    }
    with torch.no_grad():
        model.eval()(**given)
        assert torch.equal(encoders["image"].model(pixels), expected)
    assert not any(module._forward_hooks for module in model.modules())


def test_too_many_levels() -> None:
    with pytest.raises(RecipeError, match="at least 5, one a level"):
        built("centralnet", system_options={"levels": 5})
