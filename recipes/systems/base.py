"""What every system has in common: what it reads, how it is built, what trainer, caching and saving ask its model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.core.layout import describe
from mi2p_inject.core.numerics.recording import is_recording
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.sources.columns import Columns
from mi2p_inject.sources.encoder import Source

if TYPE_CHECKING:
    from mi2p_inject.recipes.config import ModelConfig
    from mi2p_inject.recipes.tasks import Task

__all__ = ["OF_FUSION", "OTHER", "PRETRAINED", "Batch", "FrozenSource", "Group", "System", "SystemModel"]

Batch = Mapping[str, Tensor]
"""What `mi2p_inject.recipes.systems.inputs.Collator` makes of samples."""

Group = Literal["image", "text", "image_units", "text_units", "new"]
"""Which learning rate a parameter has: that of a pre-trained encoder, that of the units in it, or that of whatever else
starts from nothing."""

OTHER: dict[Modality, Modality] = {"image": "text", "text": "image"}
"""Modality -> the one whose features a model of it is expanded with."""

OF_FUSION = ("fusion", "fusion_options", "branch_loss")
"""Options that say something to a late fusion of branches only."""

PRETRAINED: tuple[Group, ...] = ("image", "text")
"""The groups whose parameters come with an encoder."""


class System(ABC):
    """A kind of model that is trained and compared.

    A new kind is a subclass with the class of its model, and a line in `SYSTEMS`. Trainer, caching, saving and reports
    know this class and `SystemModel` only.
    """

    @property
    @abstractmethod
    def reads(self) -> tuple[Modality, ...]:
        """The modalities of which the model reads the samples themselves, "image" first."""

    @property
    def source_modalities(self) -> tuple[Modality, ...]:
        """The modalities that a frozen encoder reads for it; its features may come from a cache instead."""
        return ()

    @property
    def attends(self) -> bool:
        """Whether it has an expanded model, which can attend to columns of a table too: see `with_columns`."""
        return False

    @property
    def unused(self) -> tuple[str, ...]:
        """Names of the options of `ModelConfig` that say nothing to it: a training that sets one notes it."""
        layers = {"vision_layers": "text", "text_layers": "image"}  # of the encoder that reads the other
        trained = {"vision_freeze": "image", "text_freeze": "text"}
        idle = (
            *(name for name, source in layers.items() if source not in self.source_modalities),
            *(name for name, modality in trained.items() if modality not in self.reads),
        )
        return idle if self.attends else ("unit", "unit_options", "zero_init", *idle)

    def with_columns(self, columns: Columns) -> System:
        """The same system, whose expanded models attend to columns besides.

        Args:
            columns: as the training split has them.

        Raises:
            RecipeError: it has no expanded model.
        """
        raise RecipeError(
            "this model reads no columns",
            expected="an expanded model, such as me-vision",
            given=", ".join(columns.names),
            fix="leave numeric_cols and categorical_cols out",
        )

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """All modalities that it needs an encoder and samples for, "image" first."""
        both: tuple[Modality, ...] = ("image", "text")
        return tuple(one for one in both if one in self.reads or one in self.source_modalities)

    @abstractmethod
    def build(
        self, encoders: Mapping[Modality, Encoder], config: ModelConfig, task: Task, loss: nn.Module
    ) -> SystemModel:
        """The model; new parameters take torch's random numbers.

        Args:
            encoders: modality -> encoder, for `modalities`.
            config: the options of the model.
            task: says how many logits, and whether they compete.
            loss: of logits and targets.
        """

    def options(self) -> dict[str, Any]:
        """Option -> value, of the options that it has of its own."""
        return {}

    def configured(self, options: Mapping[str, Any]) -> System:
        """The same system with other values for some of its `options`.

        Raises:
            RecipeError: it has no such option, or the value does not fit.
        """
        if options:
            raise RecipeError(
                "this model has no options of its own", given=", ".join(options), fix="leave system_options out"
            )
        return self

    def describe(self, config: ModelConfig) -> str:
        """Its name and what else tells it apart, for reports."""
        return config.model


@dataclass(frozen=True)
class FrozenSource:
    """A frozen encoder whose features an expanded model attends to.

    Attributes:
        encoder: its preprocessing, its inputs and its weights.
        source: the same encoder as the expanded model holds it.
    """

    encoder: Encoder
    source: Source


class SystemModel(nn.Module, ABC):
    """A system's model: a batch of samples -> logits.

    Args:
        loss: of logits and targets, a mean over samples.
    """

    logit_count: int | None = None
    """How many logits its task asks for; `build_system` sets it."""

    accepts_loss_kwargs = False  # for transformers' Trainer, which else takes the loss for one that it need not scale

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, labels: Tensor | None = None, **batch: Tensor) -> dict[str, Tensor]:
        """``logits`` (B, K), and ``loss`` where there are labels; arguments as `Collator` makes them.

        What else `outputs` gives is left out: a trainer would take it for logits too.

        Raises:
            RecipeError: `outputs` gives no logits, or no loss where there are labels.
        """
        found = self.outputs(batch, labels)
        wanted = ("logits",) if labels is None else ("loss", "logits")
        if not is_recording():
            self._check_outputs(found, wanted)
        return {name: found[name] for name in wanted}

    def outputs(self, batch: Batch, labels: Tensor | None) -> dict[str, Tensor]:
        """``logits``, and ``loss`` where there are labels; a system with losses of its own overrides this.

        It may give more, such as the logits of each branch: `forward` leaves that out, who calls this has it.

        Args:
            batch: what the collator made, without what is None.
            labels: targets, or None.
        """
        logits = self.logits(batch)
        return {"logits": logits} if labels is None else {"loss": self.loss(logits, labels), "logits": logits}

    @abstractmethod
    def logits(self, batch: Batch) -> Tensor:
        """(B, K); ``<modality>_present`` (B,) says which samples have a modality."""

    def _check_outputs(self, found: Mapping[str, object], wanted: Sequence[str]) -> None:
        shapes = {"logits": f"(B, {self.logit_count or 'K'})", "loss": "(), one number"}
        for name in wanted:
            value = found.get(name)
            shape = tuple(value.shape) if isinstance(value, Tensor) else None
            if name == "logits":
                fits = shape is not None and len(shape) == 2 and self.logit_count in (None, shape[1])
            else:
                fits = shape == ()
            if not fits:
                raise RecipeError(
                    f"{type(self).__name__}.outputs gives no {name}",
                    expected=f"{name}: a tensor {shapes[name]}",
                    given=describe(value),
                    fix=f"correct {type(self).__name__}: build says of the task how many logits it asks for",
                )

    def vectors(self, batch: Batch) -> Tensor:
        """(B, width): what the classifier sees.

        Raises:
            RecipeError: this system has no such vectors.
        """
        raise RecipeError(
            f"{type(self).__name__} gives no vectors of samples",
            expected="a model of branches, such as me-vision or late-fusion",
            given=type(self).__name__,
            fix="train one of them",
        )

    @abstractmethod
    def parameter_groups(self) -> dict[str, Group]:
        """Name of each parameter -> whose learning rate it has; parameters that never train may be left out."""

    def sources(self) -> dict[Modality, FrozenSource]:
        """Modality -> the frozen encoder whose features may be cached; its weights are saved with the model."""
        return {}
