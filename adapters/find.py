"""From a model to its adapter: by class name, on the model or on the one encoder inside a wrapper; else derived."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from mi2p_inject.adapters.adapter import Adapter
from mi2p_inject.adapters.derive import base_of, derive
from mi2p_inject.adapters.table import adapters
from mi2p_inject.core.errors import AdapterError

__all__ = ["Match", "find", "only_carries"]

_CARRIERS = frozenset({
    "torch.nn.parallel.data_parallel.DataParallel",
    "torch.nn.parallel.distributed.DistributedDataParallel",
    "torch.distributed.fsdp.fully_sharded_data_parallel.FullyShardedDataParallel",
    "torch._dynamo.eval_frame.OptimizedModule",
    "torch.optim.swa_utils.AveragedModel",
    "peft.peft_model.PeftModel",
    "peft.tuners.tuners_utils.BaseTuner",
})  # fmt: skip
"""Wrappers whose forward does nothing of its own to what the model inside takes and gives."""


@dataclass(frozen=True)
class Match:
    """An adapter and where in the model its architecture stands ("" the model itself, "bert" inside a headed BERT)."""

    adapter: Adapter
    root: str

    def path(self, inner: str) -> str:
        """A path inside the encoder as a path of the whole model."""
        return ".".join(part for part in (self.root, inner) if part)

    def site_patterns(self, model: nn.Module) -> list[str]:
        """Globs (or plain paths) of the default sites, in the whole model."""
        sites = self.adapter.sites
        return [self.path(site) for site in (sites(model.get_submodule(self.root)) if callable(sites) else sites)]


def find(model: nn.Module) -> Match | None:
    """The adapter that matches a model, or None.

    Looks at the model's class, then, level by level, at the modules inside: a headed model
    (`BertForSequenceClassification`) or a wrapper is found by the encoder it holds. For a timm or transformers model
    that the table does not know an adapter is derived (`derive`); its `layout` is None.

    Raises:
        AdapterError: two encoders stand at the same depth; which one is meant?

    Examples:
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> from mi2p_inject.adapters import find
        >>> tiny = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
        >>> match = find(BertForSequenceClassification(tiny))
        >>> match.adapter.name, match.path("encoder.layer.0")
        ('bert', 'bert.encoder.layer.0')
    """
    _refuse_dual(model)
    known = {name: adapter for adapter in adapters() for name in adapter.classes}
    level: list[tuple[str, nn.Module]] = [("", model)]
    while level:
        found = [match for path, module in level if (match := _match(module, path, known)) is not None]
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


def only_carries(model: nn.Module, root: str) -> bool:
    """Whether a model gives what the module at `root` gives: that module itself, a head of its library, or a wrapper
    that only carries it (`torch.compile`, data parallel, PEFT without prompts)."""
    if _is_carrier(model):
        name, _, rest = root.partition(".")
        return bool(rest or name) and only_carries(model.get_submodule(name), rest)
    headed = "transformers.modeling_utils.PreTrainedModel" in _names(model) and base_of(model)[1] == root
    return headed or not root


def _is_carrier(module: nn.Module) -> bool:
    prompts = getattr(getattr(module, "active_peft_config", None), "is_prompt_learning", False)
    return not prompts and not _CARRIERS.isdisjoint(_names(module))


def _match(module: nn.Module, path: str, known: dict[str, Adapter]) -> Match | None:
    """An adapter of the table for this module or for the base model that its head stands on, else a derived adapter."""
    base, inner = base_of(module)
    root = ".".join(part for part in (path, inner) if part)
    for candidate, at in ((module, path), (base, root)):
        adapter = next((known[name] for name in _names(candidate) if name in known), None)
        if adapter is not None:
            return Match(adapter, at)
    made = derive(base)
    return None if made is None else Match(made, root)


def _refuse_dual(model: nn.Module) -> None:
    """A model of two modalities is no wrapper around one of its towers."""
    modalities = getattr(model, "input_modalities", ())
    if "open_clip.model.CLIP" in _names(model):
        fix = "pass model.visual; for the text side create the model with force_custom_text=True and pass model.text"
    elif not (hasattr(model, "vision_model") and hasattr(model, "text_model")) and (
        not isinstance(modalities, (tuple, list)) or len(modalities) < 2 or _transcribes(model)
    ):
        return
    else:
        towers = [name for name, child in model.named_children() if hasattr(child, "config")]
        fix = f"pass the tower you mean, such as model.{towers[0] if towers else 'vision_model'}" + (
            "; where it is one tower after all, name layers= and example_inputs="
        )
    raise AdapterError(
        f"{type(model).__name__} reads two modalities already",
        expected="a unimodal model",
        given=f"a model of {', '.join(modalities) if len(modalities) > 1 else 'images and texts'}",
        fix=fix,
    )


def _transcribes(model: nn.Module) -> bool:
    """A speech encoder with a text decoder reads audio; the text is its output."""
    takes_audio = getattr(model, "main_input_name", "") in ("input_features", "input_values")
    return takes_audio and set(getattr(model, "input_modalities", ())) == {"audio", "text"}


def _names(module: nn.Module) -> list[str]:
    return [f"{cls.__module__}.{cls.__qualname__}" for cls in type(module).__mro__]
