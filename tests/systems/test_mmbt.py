"""MMBT against a literal oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bert_oracle import embedded, encoded, linear, pooled, state_of
from compared_systems import batch, built

from mi2p_inject.recipes.config import make_config
from mi2p_inject.recipes.errors import RecipeError

HERE = ([True, True, False, True, False], [True, True, True, False, False])


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (3, 3, 1), (4, 2, 2)])
def test_the_forward(count: int, rows: int, columns: int) -> None:
    model = built("mmbt", system_options={"image_tokens": count})
    given, state = batch(*HERE), state_of(model)
    with torch.no_grad():
        logits, maps = model(**given)["logits"].numpy(), model.image(given).numpy()
    words = state["text.network.embeddings.word_embeddings.weight"]
    for sample in range(len(logits)):
        _, height, width = maps[sample].shape
        cells = []
        for row in range(rows):
            for column in range(columns):
                down = slice(row * height // rows, -(-(row + 1) * height // rows))
                across = slice(column * width // columns, -(-(column + 1) * width // columns))
                cells.append(maps[sample][:, down, across].mean((1, 2)))
        image = np.stack([words[101], *linear(state, "projection", np.stack(cells)), words[102]])
        read = int(given["attention_mask"][sample].sum())
        ids = given["input_ids"][sample, 1 : read - 1].tolist() if HERE[1][sample] else []
        text = words[ids].reshape(-1, 48)
        tokens = np.concatenate(
            [
                embedded(state, "text.network", image, range(count + 2), 0),
                embedded(state, "text.network", text, range(len(ids)), 1),
            ]
        )
        mask = [True, *[HERE[0][sample]] * count, True, *[True] * len(ids)]
        vector = pooled(state, "text.network", encoded(state, "text.network", tokens, mask))
        assert np.abs(linear(state, "head", vector) - logits[sample]).max() < 1e-10


@pytest.mark.parametrize("count", [0, 10])
def test_numbers_of_image_tokens_that_have_no_grid(count: int) -> None:
    with pytest.raises(RecipeError, match="1 to 9"):
        make_config({"data": "-", "model": "mmbt", "system_options": {"image_tokens": count}})
