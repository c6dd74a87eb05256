"""ViLT: one transformer on words and on patches of pixels, without a CNN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.encoders.preprocess import ImageSpec, TextSpec
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.systems.base import Batch, SystemModel
from mi2p_inject.recipes.systems.compared.base import Compared, ComparedModel, initialize
from mi2p_inject.recipes.systems.compared.options import check_least

if TYPE_CHECKING:
    from mi2p_inject.recipes.config import ModelConfig
    from mi2p_inject.recipes.tasks import Task

__all__ = ["ViLT", "ViLTModel"]


@final
@dataclass(frozen=True)
class ViLT(Compared):
    """transformers' ViLT, as large as the text encoder. It starts at random: of the two encoders it takes how a picture
    is prepared, the tokenizer and the sizes, no weights.

    Source: Kim et al., ViLT: Vision-and-Language Transformer Without Convolution or Region Supervision
    (https://arxiv.org/abs/2102.03334).

    Attributes:
        patch_size: side of a patch in pixels.
        text_positions: most tokens of a text; the rest is cut off.
        hidden_size, layers, heads: None: the text encoder's.
        hidden_dropout: inside the transformer, in training.
    """

    patch_size: int = 32
    text_positions: int = 40
    hidden_size: int | None = None
    layers: int | None = None
    heads: int | None = None
    hidden_dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("patch_size", "hidden_size", "layers", "heads"):
            check_least(name, getattr(self, name), 1)
        check_least("text_positions", self.text_positions, 2)
        if not 0 <= self.hidden_dropout < 1:
            raise RecipeError(
                f"system_options.hidden_dropout={self.hidden_dropout} is out of range",
                expected="0 up to 1",
                fix="give a number from 0 up to 1",
            )

    @property
    def unused(self) -> tuple[str, ...]:
        return (*super().unused, "trainable", "vision_freeze", "text_freeze", "dropout")

    def build(
        self, encoders: Mapping[Modality, Encoder], config: ModelConfig, task: Task, loss: nn.Module
    ) -> SystemModel:
        """As `System.build`. From here on the text encoder's tokenizer cuts texts at `text_positions`."""
        image, text = encoders["image"], encoders["text"]
        class_id = int(_tokenizer(text).cls_token_id)
        model = ViLTModel(self._network(image, text), class_id, task.outputs, loss)
        size = sum(one.numel() for one in model.parameters())
        for encoder in (image, text):  # a run folder is read back within the size of its weights
            if (own := sum(one.numel() for one in encoder.model.parameters())) > size:
                raise RecipeError(
                    f"{encoder.name} is larger than the ViLT, which takes none of its weights",
                    expected=f"at most {size:,} parameters",
                    given=f"{own:,}",
                    fix=f"name a smaller {encoder.modality} encoder with the same preprocessing",
                )
        spec: Any = text.spec
        text.spec = replace(spec, max_length=min(spec.max_length, self.text_positions))
        return model

    def _network(self, image: Encoder, text: Encoder) -> Any:
        from transformers import ViltConfig, ViltModel

        tokenizer, like = _tokenizer(text), getattr(text.model, "config", None)
        sizes: dict[str, Any] = {
            "hidden_size": self.hidden_size or getattr(like, "hidden_size", None),
            "num_hidden_layers": self.layers or getattr(like, "num_hidden_layers", None),
            "num_attention_heads": self.heads or getattr(like, "num_attention_heads", None),
        }
        if None in sizes.values() or sizes["hidden_size"] % sizes["num_attention_heads"]:
            raise RecipeError(
                f"{text.name} does not say how large a ViLT shall be",
                expected="hidden_size, layers, and a number of heads that divides hidden_size",
                given=", ".join(f"{name}={value}" for name, value in sizes.items()),
                fix="set system_options.hidden_size, .layers and .heads",
            )
        sides = image.spec.size if isinstance(image.spec, ImageSpec) else ()
        if any(side % self.patch_size for side in sides):
            raise RecipeError(
                f"pictures of {' x '.join(map(str, sides))} pixels are no whole number of patches",
                expected=f"multiples of {self.patch_size}",
                given=" x ".join(map(str, sides)),
                fix="change image_size, or system_options.patch_size",
            )
        return ViltModel(
            ViltConfig(
                vocab_size=len(tokenizer),
                max_position_embeddings=self.text_positions,
                intermediate_size=4 * sizes["hidden_size"],
                hidden_dropout_prob=self.hidden_dropout,
                image_size=list(sides),
                patch_size=self.patch_size,
                **sizes,
            )
        )


class ViLTModel(ComparedModel):
    """transformers' `ViltModel` on the embeddings of words and of all patches, in their order; its pooler (the text's
    [CLS]); Linear, LayerNorm, GELU, Linear.

    transformers draws which patches are read anew in each forward, in an order that changes, and raises where a picture
    is masked. All pictures have one size here: the patches are embedded as there, without that step, so the result is
    the same, no random number is taken, and a missing picture is masked. A missing text: [CLS] alone is read.

    Args:
        network: a `ViltModel`.
        class_id: of [CLS].
        outputs: K.
        loss: of logits and targets.
    """

    def __init__(self, network: Any, class_id: int, outputs: int, loss: nn.Module) -> None:
        super().__init__({}, loss)
        self._class_id = class_id
        self.network = network
        width = network.config.hidden_size
        self.head = initialize(
            nn.Sequential(
                nn.Linear(width, 2 * width), nn.LayerNorm(2 * width), nn.GELU(), nn.Linear(2 * width, outputs)
            )
        )

    def logits(self, batch: Batch) -> Tensor:
        """(B, K).

        Raises:
            RecipeError: more tokens than positions, or pictures of another size.
        """
        ids, present = batch["input_ids"], batch["text_present"].unsqueeze(1)
        self._check(ids, batch["pixel_values"])
        first = torch.arange(ids.shape[1], device=ids.device) == 0
        mask = (batch["attention_mask"].bool() & present) | first
        patches = self._patches(batch["pixel_values"])
        output = self.network(
            input_ids=ids.where(present, self._class_id),
            attention_mask=mask.long(),
            image_embeds=patches,
            pixel_mask=batch["image_present"].unsqueeze(1).expand(patches.shape[:2]).long(),
        )
        logits: Tensor = self.head(output.pooler_output)
        return logits

    def _patches(self, pixels: Tensor) -> Tensor:
        """The image's class token and its patches with their positions, (B, 1 + patches, width)."""
        embeddings = self.network.embeddings
        patches = embeddings.patch_embeddings(pixels).flatten(2).transpose(1, 2)
        tokens = torch.cat([embeddings.cls_token.expand(patches.shape[0], -1, -1), patches], dim=1)
        embedded: Tensor = embeddings.dropout(tokens + embeddings.position_embeddings)
        return embedded

    def _check(self, ids: Tensor, pixels: Tensor) -> None:
        config = self.network.config
        if ids.shape[1] > config.max_position_embeddings or list(pixels.shape[2:]) != list(config.image_size):
            raise RecipeError(
                "a sample does not fit this ViLT",
                expected=f"at most {config.max_position_embeddings} tokens, pictures of {list(config.image_size)}",
                given=f"{ids.shape[1]} tokens, pictures of {list(pixels.shape[2:])}",
                fix="cut texts and size pictures as its encoders' preprocessing does",
            )


def _tokenizer(text: Encoder) -> Any:
    """The text encoder's tokenizer, if texts begin with [CLS] in it."""
    spec = text.spec
    if isinstance(spec, TextSpec) and not spec.fixed and spec.tokenizer.cls_token_id is not None:
        ids = spec.tokenizer("a")["input_ids"]
        if ids[0] == spec.tokenizer.cls_token_id and spec.tokenizer.padding_side == "right":
            return spec.tokenizer
    raise RecipeError(
        f"the tokenizer of {text.name} does not fit a ViLT",
        expected="texts that begin with [CLS] and are padded on the right, such as those of bert-base-uncased or demo",
        given=type(getattr(spec, "tokenizer", None)).__name__,
        fix="name another --text",
    )
