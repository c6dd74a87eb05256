"""VisualBERT, PixelBERT and InterBERT against literal oracles, and against transformers' class where there is one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from bert_oracle import Array, embedded, encoded, layer, linear, norm, pooled, state_of
from compared_systems import batch, built

from mi2p_inject.recipes.config import make_config
from mi2p_inject.recipes.errors import RecipeError

HERE = ([True, True, False, True, False], [True, True, True, False, False])


def text_of(given: dict[str, Any], state: dict[str, Array], sample: int) -> tuple[Array, list[bool]]:
    """Embeddings of a sample's real tokens; [CLS] alone where there is no text."""
    read = int(given["attention_mask"][sample].sum()) if HERE[1][sample] else 1
    words = state["text.network.embeddings.word_embeddings.weight"][given["input_ids"][sample, :read]]
    return embedded(state, "text.network", words, range(read), 0), [True] * read


def cells(features: Array) -> Array:
    _, height, width = features.shape
    return np.stack([features[:, row, column] for row in range(height) for column in range(width)])


def test_visualbert() -> None:
    model = built("visualbert")
    given, state = batch(*HERE), state_of(model)
    with torch.no_grad():
        logits, maps = model(**given)["logits"].numpy(), model.image(given).numpy()
    for sample in range(len(logits)):
        text, read = text_of(given, state, sample)
        regions = linear(state, "projection", cells(maps[sample])) + state["position"] + state["token_type"]
        regions = norm(state, "text.network.embeddings.LayerNorm", regions)
        mask = [*read, *[HERE[0][sample]] * len(regions)]
        hidden = encoded(state, "text.network", np.concatenate([text, regions]), mask)
        expected = linear(state, "head", pooled(state, "text.network", hidden))
        assert np.abs(expected - logits[sample]).max() < 1e-10


def test_visualbert_is_that_of_transformers() -> None:
    torch.manual_seed(0)
    model: Any = built("visualbert")
    bert = model.text.network
    config = transformers.VisualBertConfig(
        **{
            name: getattr(bert.config, name)
            for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        },
        visual_embedding_dim=model.image.channels,
        pad_token_id=0,
    )
    theirs = transformers.VisualBertModel(config).double().eval()
    theirs.load_state_dict(bert.state_dict(), strict=False)
    tables = theirs.embeddings
    with torch.no_grad():
        tables.visual_projection.load_state_dict(model.projection.state_dict())
        tables.visual_position_embeddings.weight[0] = model.position
        tables.visual_token_type_embeddings.weight[1] = model.token_type
        given = batch([True] * 3, [True] * 3)
        expected = theirs(
            input_ids=given["input_ids"],
            attention_mask=given["attention_mask"],
            visual_embeds=model.image(given).flatten(2).transpose(1, 2),
        ).pooler_output
        assert (model.head(expected) - model(**given)["logits"]).abs().max() < 1e-10


def test_visual_tables_start_as_copies_of_the_text_s() -> None:
    torch.manual_seed(0)
    model: Any = built("visualbert", vision="tiny", text="demo")
    tables = model.text.network.embeddings
    noise = (model.position - tables.position_embeddings.weight[0]).std()  # `built` adds noise of 0.1 to all vectors
    assert 0.05 < noise < 0.15
    assert 0.05 < (model.token_type - tables.token_type_embeddings.weight[1]).std() < 0.15


@pytest.mark.parametrize("pool", [1, 2])
def test_pixelbert(pool: int) -> None:
    model = built("pixelbert", system_options={"pool": pool})
    given, state = batch(*HERE), state_of(model)
    with torch.no_grad():
        logits, maps = model(**given)["logits"].numpy(), model.image(given).numpy()
    for sample in range(len(logits)):
        text, read = text_of(given, state, sample)
        _, height, width = maps[sample].shape
        pixels = [
            maps[sample][:, row : row + pool, column : column + pool].max((1, 2))
            for row in range(0, height - pool + 1, pool)
            for column in range(0, width - pool + 1, pool)
        ]
        tokens = linear(state, "projection", np.stack(pixels)) + state["semantic"]
        mask = [*read, *[HERE[0][sample]] * len(tokens)]
        hidden = encoded(state, "text.network", np.concatenate([text, tokens]), mask)
        expected = linear(state, "head", pooled(state, "text.network", hidden))
        assert np.abs(expected - logits[sample]).max() < 1e-10


def test_a_map_too_small_for_pixelbert() -> None:
    with pytest.raises(RecipeError, match="pool=1"):
        built("pixelbert", system_options={"pool": 3})


@pytest.mark.parametrize(("join", "shared"), [("product", None), ("sum", 9)])
def test_interbert(join: str, shared: int | None) -> None:
    model: Any = built("interbert", system_options={"join": join, "shared_layers": shared, "pooled_width": 20})
    given, state = batch(*HERE), state_of(model)
    with torch.no_grad():
        logits, maps = model(**given)["logits"].numpy(), model.image(given).numpy()
    shared = shared or 6
    for sample in range(len(logits)):
        image, has_text = HERE[0][sample], HERE[1][sample]
        text, read = text_of(given, state, sample)
        _, height, width = maps[sample].shape
        found = cells(maps[sample])
        places = [[0, 0, 1, 1, 1]] + [
            [column / width, row / height, (column + 1) / width, (row + 1) / height, 1 / (width * height)]
            for row in range(height)
            for column in range(width)
        ]
        features = np.concatenate([found.mean(0)[None], found])
        regions = norm(
            state, "norm", linear(state, "features", features) + linear(state, "boxes", np.array(places, dtype=float))
        )
        vectors = []
        if image or has_text:
            mask = [*[image] * len(regions), *[has_text] * len(read)]
            both = encoded(state, "text.network", np.concatenate([regions, text]), mask, which=range(shared))
        if image:
            own = both[: len(regions)]
            for number in range(12 - shared):
                own = layer(state, f"image_layers.{number}", own, np.ones(len(own), dtype=bool), 8)
            vectors.append(np.maximum(linear(state, "poolers.image", own[0]), 0))
        if has_text:
            own = encoded(state, "text.network", both[len(regions) :], read, which=range(shared, 12))
            vectors.append(np.maximum(linear(state, "poolers.text", own[0]), 0))
        start = np.full(20, 1.0 if join == "product" else 0.0)
        joint = np.prod([start, *vectors], axis=0) if join == "product" else np.sum([start, *vectors], axis=0)
        assert np.abs(linear(state, "head", joint) - logits[sample]).max() < 1e-10


def test_interbert_learns_to_match() -> None:
    model: Any = built("interbert", system_options={"matching": True, "matching_weight": 2.0}).train()
    given, labels = batch([True, True, False, True], [True] * 4), torch.tensor([0, 1, 2, 1])
    for one in model.modules():
        if isinstance(one, torch.nn.Dropout) or hasattr(one, "num_batches_tracked"):
            one.eval()
        if hasattr(one, "dropout") and isinstance(one.dropout, torch.nn.Dropout):
            one.dropout.p = 0.0
    seed = next(one for one in range(99) if 0 < (torch.manual_seed(one), torch.rand(4)[[0, 1, 3]] < 0.5)[1].sum() < 3)
    torch.manual_seed(seed)
    output = model(**given, labels=labels)
    torch.manual_seed(seed)
    swapped = torch.rand(4) < 0.5
    taken = [(row - 1) % 4 if swapped[row] else row for row in range(4)]
    mixed = {name: given[name][taken] for name in ("input_ids", "attention_mask")}
    joint = model._joint(model._regions(given), {**given, **mixed})
    scores = model.matching(joint).log_softmax(1)
    losses = [-scores[row, int(taken[row] != row)] for row in range(4) if given["image_present"][row]]
    expected = model.loss(output["logits"], labels) + 2 * sum(losses) / len(losses)
    assert output["loss"].item() == pytest.approx(expected.item(), abs=1e-6)
    output["loss"].backward()
    assert model.matching.weight.grad.any()
    model.eval()
    assert model(**given, labels=labels)["loss"] == model.loss(output["logits"], labels)


@pytest.mark.parametrize("options", [{"shared_layers": 12}, {"image_heads": 7}])
def test_layers_and_heads_that_do_not_fit_interbert(options: dict[str, int]) -> None:
    with pytest.raises(RecipeError, match="1 to 11 shared layers"):
        built("interbert", system_options=options)
    with pytest.raises(RecipeError, match="product, sum"):
        make_config({"data": "-", "model": "interbert", "system_options": {"join": "mean"}})
