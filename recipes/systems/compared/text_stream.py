"""BERT as the trunk of a single-stream model: its embeddings, its layers and its pooler, for tokens of any origin."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.encoders.preprocess import TextSpec
from mi2p_inject.recipes.encoders.tokenizers import longest
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.systems.base import Batch
from mi2p_inject.recipes.systems.compared.base import initialize

__all__ = ["Pooler", "TextStream", "additive"]

_BERT = ("BertModel",)
_FAMILY = (*_BERT, "RobertaModel", "XLMRobertaModel", "CamembertModel")


class Pooler(nn.Module):
    """BERT's: ``tanh(W x_0 + b)`` of the first token, for encoders that come without one.

    Args:
        width: of the tokens, and of the result.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, L, width) -> (B, width)."""
        return torch.tanh(self.dense(hidden[:, 0]))


class TextStream(nn.Module):
    """A BERT-like text encoder whose layers also read tokens that are no words.

    Args:
        encoder: its model is trained.
        segments: the system embeds tokens by two token types, and counts positions itself.
        pooled: the system pools by BERT's pooler; else a pooler that the encoder has stays as it is.

    Attributes:
        network: the encoder's model.
        width: of a token.
        class_id, separator_id: of [CLS] and [SEP].

    Raises:
        RecipeError: the encoder is of another family; names what fits.
    """

    network: Any

    def __init__(self, encoder: Encoder, *, segments: bool = False, pooled: bool = True) -> None:
        super().__init__()
        _check(encoder, segments)
        self.network = encoder.model
        self.width = int(self.network.config.hidden_size)
        spec = cast(TextSpec, encoder.spec)
        self.class_id, self.separator_id = int(spec.tokenizer.cls_token_id), int(spec.tokenizer.sep_token_id)
        self._longest, self._name = longest(spec.tokenizer, self.network), encoder.name
        own = getattr(self.network, "pooler", None)
        self.pooler = None if own is not None or not pooled else initialize(Pooler(self.width))
        if own is not None and not pooled:
            own.requires_grad_(False)

    def tokens(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Token ids (B, L), and (B, L) which of them are read.

        A missing text is [CLS] alone, whatever stands in its place.

        Raises:
            RecipeError: more tokens than the encoder has positions for.
        """
        ids, mask, present = batch["input_ids"], batch["attention_mask"].bool(), batch["text_present"].unsqueeze(1)
        if ids.shape[1] > self._longest:
            raise RecipeError(
                f"a text is too long for {self._name}",
                expected=f"at most {self._longest} tokens",
                given=str(ids.shape[1]),
                fix="cut it, as max_length does",
            )
        first = torch.arange(ids.shape[1], device=ids.device) == 0
        return ids.where(present, self.class_id), (mask & present) | first

    def words(self, ids: Tensor) -> Tensor:
        """Embeddings of words alone, without position, type and norm: (B, L) -> (B, L, width)."""
        found: Tensor = self.network.embeddings.word_embeddings(ids)
        return found

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings of a text as the encoder makes them: words, positions, type 0, norm, dropout."""
        found: Tensor = self.network.embeddings(input_ids=ids)
        return found

    def normalized(self, embedded: Tensor) -> Tensor:
        """The encoder's own norm and dropout over embeddings that are no words."""
        found: Tensor = self.network.embeddings.dropout(self.network.embeddings.LayerNorm(embedded))
        return found

    def layers(self, hidden: Tensor, mask: Tensor, which: slice = slice(None)) -> Tensor:
        """Run some of the encoder's layers.

        Args:
            hidden: (B, L, width).
            mask: (B, L), which tokens are attended to.
            which: of the layers.
        """
        bias = additive(mask, hidden)
        for layer in self.network.encoder.layer[which]:
            given = layer(hidden, bias)
            hidden = given[0] if isinstance(given, tuple) else given  # as the release has it
        return hidden

    def pool(self, hidden: Tensor) -> Tensor:
        """The first token through the encoder's pooler, or a new one where it has none: (B, width)."""
        pooled: Tensor = (self.pooler or self.network.pooler)(hidden)
        return pooled


def additive(mask: Tensor, hidden: Tensor) -> Tensor:
    """What is added to attention scores: (B, 1, 1, L), 0 where a token is read, else the lowest number.

    Args:
        mask: (B, L) bool. A sample that reads nothing attends to everything: its result has to be left out.
        hidden: gives the dtype.
    """
    read = mask | ~mask.any(1, keepdim=True)
    lowest = torch.finfo(hidden.dtype).min
    return torch.zeros_like(mask, dtype=hidden.dtype).masked_fill(~read, lowest)[:, None, None]


def _check(encoder: Encoder, segments: bool) -> None:
    family = _BERT if segments else _FAMILY
    kinds = {f"{cls.__module__.split('.')[0]}.{cls.__name__}" for cls in type(encoder.model).__mro__}
    config: Any = getattr(encoder.model, "config", None)
    types = getattr(config, "type_vocab_size", 0)
    fits = any(f"transformers.{name}" in kinds for name in family)
    if not fits or (segments and types < 2):
        raise RecipeError(
            f"{encoder.name} does not fit: this model's layers are those of a BERT that reads more than words",
            expected=f"{', '.join(family)} of transformers{' with two token types' if segments else ''}, such as "
            "google-bert/bert-base-uncased, demo",
            given=type(encoder.model).__name__ + (f" with {types} token type" if fits else ""),
            fix="name another --text",
        )
    if getattr(config, "is_decoder", False):
        raise RecipeError(
            f"{encoder.name} is a decoder: its [CLS] reads no token that comes after it",
            expected="an encoder",
            given="is_decoder=true in its config.json",
            fix="set it to false, or name another --text",
        )
    tokenizer = cast(TextSpec, encoder.spec).tokenizer
    ids, ends = tokenizer("a")["input_ids"], (tokenizer.cls_token_id, tokenizer.sep_token_id)
    if None in ends or (ids[0], ids[-1]) != ends:
        raise RecipeError(
            f"the tokenizer of {encoder.name} does not put a text between [CLS] and [SEP]",
            expected="a BERT's: [CLS] a [SEP]",
            given=" ".join(map(str, tokenizer.convert_ids_to_tokens(ids))) or "nothing",
            fix="put the tokenizer that the model was trained with into its folder, or name another --text",
        )
    if getattr(tokenizer, "padding_side", "right") != "right":
        raise RecipeError(
            f"the tokenizer of {encoder.name} pads on the left; this model reads [CLS] as the first token",
            fix='set "padding_side": "right" in its tokenizer_config.json',
        )
