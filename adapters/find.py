"""From a model to its row: by class name, on the model itself or on the one encoder inside a wrapper."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from mi2p_inject.adapters.row import Adapter
from mi2p_inject.adapters.table import adapters
from mi2p_inject.errors import AdapterError


@dataclass(frozen=True)
class Match:
    """A row and where in the model its architecture stands ("" the model itself, "bert" inside a headed BERT)."""

    adapter: Adapter
    root: str

    def path(self, inner: str) -> str:
        """A path inside the encoder as a path of the whole model."""
        return ".".join(part for part in (self.root, inner) if part)


def find(model: nn.Module) -> Match | None:
    """The row that speaks for a model, or None.

    Looks at the model's class, then, level by level, at the modules inside: a headed model
    (`BertForSequenceClassification`) or a wrapper is found by the encoder it holds.

    Raises:
        AdapterError: two encoders stand at the same depth; which one is meant?

    Example:
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> from mi2p_inject.adapters import find
        >>> tiny = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
        >>> match = find(BertForSequenceClassification(tiny))
        >>> match.adapter.name, match.path("encoder.layer.0")
        ('bert', 'bert.encoder.layer.0')
    """
    _refuse_dual(model)
    rows = {name: row for row in adapters() for name in row.classes}
    level: list[tuple[str, nn.Module]] = [("", model)]
    while level:
        found = [
            Match(row, path)
            for path, module in level
            if (row := next((rows[name] for name in _names(module) if name in rows), None)) is not None
        ]
        if len(found) > 1:
            raise AdapterError(
                f"{type(model).__name__} holds several encoders",
                expected="one unimodal encoder",
                given=", ".join(f"{match.path('') or '(itself)'} ({match.adapter.name})" for match in found),
                fix="pass the one you mean, such as model." + found[0].root,
            )
        if found:
            return found[0]
        level = [
            (f"{path}.{name}" if path else name, child)
            for path, module in level
            for name, child in module.named_children()
        ]
    return None


def _refuse_dual(model: nn.Module) -> None:
    """A model of two modalities is no wrapper around one of its towers."""
    modalities = getattr(model, "input_modalities", ())
    if "open_clip.model.CLIP" in _names(model):
        fix = "pass model.visual; for the text side create the model with force_custom_text=True and pass model.text"
    elif isinstance(modalities, (tuple, list)) and len(modalities) > 1:
        fix = "pass the tower you mean, such as model.vision_model or model.text_model"
    else:
        return
    raise AdapterError(
        f"{type(model).__name__} reads two modalities already",
        expected="a unimodal model",
        given="a dual model",
        fix=fix,
    )


def _names(module: nn.Module) -> list[str]:
    return [f"{cls.__module__}.{cls.__qualname__}" for cls in type(module).__mro__]
