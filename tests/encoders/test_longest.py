"""How many tokens a text encoder takes: as many as it has positions for, and not one more."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

from mi2p_inject.recipes.encoders.tokenizers import longest

SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 50,
}
FAMILIES = {"Bert": 50, "Roberta": 48, "XLMRoberta": 48, "Camembert": 48, "MPNet": 48, "Longformer": 48, "Electra": 50}
#: without a limit of its own
TOKENIZER = SimpleNamespace(model_max_length=10**30)


@pytest.mark.parametrize(("family", "tokens"), FAMILIES.items())
def test_as_many_tokens_as_there_are_positions(family: str, tokens: int) -> None:
    more = {"attention_window": 4} if family == "Longformer" else {}
    model = getattr(transformers, f"{family}Model")(getattr(transformers, f"{family}Config")(**SIZES, **more)).eval()
    assert longest(TOKENIZER, model) == tokens
    ids = torch.full((1, tokens + 1), 5)
    with torch.no_grad():
        model(input_ids=ids[:, 1:])
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=ids)
