"""An encoder as a branch of a model, plain or expanded with the other modality's features."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from mi2p_inject.core.expansion_config import UNNAMED
from mi2p_inject.expansion.expanded_model import ExpandedModel
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.systems.base import Batch, FrozenSource, Group
from mi2p_inject.recipes.systems.columns import COLUMNS, cells_inputs
from mi2p_inject.recipes.systems.expand import expand
from mi2p_inject.sources.columns import Columns
from mi2p_inject.sources.features import SourceFeatures

if TYPE_CHECKING:
    from mi2p_inject.recipes.config import ModelConfig

__all__ = ["Branch", "freeze"]

_RAW = {"image": "pixel_values", "text": "input_ids"}


class Branch(nn.Module):
    """An encoder as a branch of a model: a batch -> one vector a sample.

    Where an expanded branch attends to columns of a table too, its sources have names: that of the modality, "columns".

    An expanded branch whose own modality is missing reads a blank sample and still attends to the other one; where the
    other one is missing it is exactly the plain encoder.

    Args:
        encoder: its model is trained.
        source: a frozen encoder of the other modality; None: the branch is not expanded.
        config: the units' options.
        columns: a further source of an expanded branch.
    """

    def __init__(
        self, encoder: Encoder, source: Encoder | None, config: ModelConfig, columns: Columns | None = None
    ) -> None:
        super().__init__()
        self.encoder, self.source = encoder, source
        self.columns = None if source is None else columns
        self.network = encoder.model if source is None else expand(encoder, source, config, columns)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B, width) vectors, and (B,) whether there is anything to go by."""
        inputs = self.encoder.inputs(batch)
        args, kwargs = ((), inputs) if isinstance(inputs, dict) else ((inputs,), {})
        present = batch[f"{self.encoder.modality}_present"]
        if self.source is not None:
            read = batch[f"{self.source.modality}_present"]
            present = present | read
            source = self._source(batch)
            if self.columns is not None:
                there = batch[f"{COLUMNS}_present"]
                present = present | there
                given = {self.source.modality: source, COLUMNS: cells_inputs(batch)}
                masks = {COLUMNS: there} if source is None else {self.source.modality: read, COLUMNS: there}
                kwargs = {**kwargs, "source": given, "source_mask": masks}
            elif source is not None:
                kwargs = {**kwargs, "source": source, "source_mask": read}
        return self.encoder.vector(self.network(*args, **kwargs), batch), present

    def groups(self) -> dict[str, Group]:
        """Name of each parameter, from ``network`` on -> whose learning rate it has."""
        image = self.encoder.modality == "image"
        own: Group = "new" if self.encoder.random else "image" if image else "text"
        units: Group = "image_units" if image else "text_units"
        return {
            f"network.{name}": units if self._is_units(name) else own for name, _ in self.network.named_parameters()
        }

    def frozen_source(self) -> FrozenSource | None:
        """The frozen encoder that it attends to; None for a plain branch."""
        if self.source is None or not isinstance(self.network, ExpandedModel):
            return None
        name = UNNAMED if self.columns is None else self.source.modality
        return FrozenSource(self.source, self.network.frozen_sources[name])

    def _is_units(self, name: str) -> bool:
        return isinstance(self.network, ExpandedModel) and name.startswith("units.")

    def _source(self, batch: Batch) -> Any:
        """What the frozen encoder gave or is given; None where its features are cached and no sample has any."""
        if self.source is None:
            return None
        modality = self.source.modality
        if f"{modality}_source" in batch:
            return SourceFeatures(batch[f"{modality}_source"], batch.get(f"{modality}_source_mask"))
        return self.source.inputs(batch) if _RAW[modality] in batch else None


def freeze(encoder: Encoder, patterns: tuple[str | int, ...]) -> None:
    """Parameters that stay as they are.

    Args:
        encoder: whose parameters.
        patterns: globs of their names.

    Raises:
        RecipeError: a pattern names none.
    """
    for pattern in patterns:
        named = [p for name, p in encoder.model.named_parameters() if fnmatchcase(name, str(pattern))]
        if not named:
            raise RecipeError(
                f"{encoder.name} has no parameter {pattern!r} to freeze",
                expected="globs such as " + ", ".join(name for name, _ in list(encoder.model.named_parameters())[:3]),
                fix="correct vision_freeze or text_freeze",
            )
        for parameter in named:
            parameter.requires_grad_(False)
