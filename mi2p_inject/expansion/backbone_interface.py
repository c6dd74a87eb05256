"""What other tools ask a model for, answered as the backbone would: transformers' Trainer, Accelerate, PEFT, timm.

An attribute is passed on only if it runs no forward of the backbone; `generate`, which runs many, takes a source.
"""

from __future__ import annotations

import inspect
import re
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from mi2p_inject.core.weights.four_bits import unchanged
from mi2p_inject.units.unit_dict import UnitDict

__all__ = ["BackboneInterface"]


class Forwarded:
    """An attribute of the backbone under the same name; there where the backbone has it, and nowhere else."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, model: BackboneInterface | None, owner: type | None = None) -> Any:
        return self if model is None else getattr(model.backbone, self.name)

    def __set__(self, model: BackboneInterface, value: Any) -> None:
        setattr(model.backbone, self.name, value)


class BackboneInterface(nn.Module):
    """Attributes and methods of the backbone that the expanded model has too, and a `state_dict` that tools can save.

    `forward` has the backbone's signature with `source` and `source_mask` beside it: the Trainer reads from it which
    columns of a data set to keep, what the labels are called, and whether the loss is scaled by the model.
    """

    backbone: nn.Module
    units: UnitDict
    call: Any

    # transformers
    config = Forwarded()
    generation_config = Forwarded()
    main_input_name = Forwarded()
    loss_type = Forwarded()
    accepts_loss_kwargs = Forwarded()
    model_tags = Forwarded()
    add_model_tags = Forwarded()
    hf_device_map = Forwarded()
    supports_gradient_checkpointing = Forwarded()
    is_gradient_checkpointing = Forwarded()
    is_activation_checkpointing = Forwarded()
    gradient_checkpointing_enable = Forwarded()
    gradient_checkpointing_disable = Forwarded()
    activation_checkpointing_enable = Forwarded()
    activation_checkpointing_disable = Forwarded()
    enable_input_require_grads = Forwarded()
    disable_input_require_grads = Forwarded()
    get_input_embeddings = Forwarded()
    set_input_embeddings = Forwarded()
    get_output_embeddings = Forwarded()
    set_output_embeddings = Forwarded()
    resize_token_embeddings = Forwarded()
    tie_weights = Forwarded()
    can_generate = Forwarded()
    prepare_inputs_for_generation = Forwarded()
    name_or_path = Forwarded()
    _no_split_modules = Forwarded()
    # timm and open_clip
    set_grad_checkpointing = Forwarded()
    pretrained_cfg = Forwarded()
    default_cfg = Forwarded()
    num_classes = Forwarded()
    num_features = Forwarded()
    get_classifier = Forwarded()
    reset_classifier = Forwarded()

    def take_signature(self) -> None:
        """Give this object's `forward` the backbone's signature, which tools read off the class: a class of its own."""
        self.__class__ = _class_for(_unsigned(type(self)), self.backbone)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """As the class it was made from: `take_signature` makes the other one again."""
        reduced: Any = super().__reduce_ex__(protocol)
        return (_bare, (_unsigned(type(self)),), *reduced[2:])

    def _get_name(self) -> str:
        """The backbone's name: the Trainer looks up by it how labels are smoothed."""
        return str(self.backbone._get_name())

    def __repr__(self) -> str:
        return super().__repr__().replace(self._get_name(), "ExpandedModel", 1)

    @property
    def device(self) -> torch.device:
        """Where inputs and features belong: the units' device."""
        for parameter in self.units.parameters():  # torch 2.6 compiles no `next` with a default
            return parameter.device
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """The backbone's floating type."""
        floating = (parameter.dtype for parameter in self.backbone.parameters() if parameter.is_floating_point())
        return next(floating, torch.get_default_dtype())

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """The number of parameters, as transformers counts them.

        Args:
            only_trainable: count what requires gradients.
            exclude_embeddings: leave out the weights of `nn.Embedding`.
        """
        embeddings = {id(one.weight) for one in self.modules() if isinstance(one, nn.Embedding) and exclude_embeddings}
        counted = (one for one in self.parameters() if one.requires_grad or not only_trainable)
        return sum(one.numel() for one in counted if id(one) not in embeddings)

    def print_trainable_parameters(self) -> None:
        """Print how many parameters train, as PEFT does."""
        trains, total = self.num_parameters(only_trainable=True), self.num_parameters()
        print(f"trainable params: {trains:,d} || all params: {total:,d} || trainable%: {100 * trains / total:.4f}")

    @property
    def generate(self) -> Callable[..., Any]:
        """transformers: the backbone's `generate`, which takes `source` and `source_mask` beside its own arguments."""
        if not callable(getattr(self.backbone, "generate", None)):
            raise AttributeError("generate")
        return partial(self.call, "generate")

    @property
    def base_model_prefix(self) -> str:
        """transformers: the attribute in which the model stands that has weights of its own; PEFT reads it."""
        return "backbone" if self.backbone.base_model_prefix else ""  # an AttributeError where it has none

    @property
    def _tied_weights_keys(self) -> Any:
        keys = getattr(self.backbone, "_tied_weights_keys", None)
        if isinstance(keys, Mapping):
            return {_prefixed(name): _prefixed(source) for name, source in keys.items()}
        return None if keys is None else [_prefixed(name) for name in keys]

    @property
    def _keys_to_ignore_on_save(self) -> set[str] | None:
        keys = getattr(self.backbone, "_keys_to_ignore_on_save", None)
        return {_prefixed(name) for name in keys} if keys else None

    @property
    def no_weight_decay(self) -> Callable[[], set[str]]:
        """timm: the names of parameters without weight decay."""
        theirs = self.backbone.no_weight_decay  # an AttributeError where it has none
        return lambda: {f"backbone.{name}" for name in theirs()}  # type: ignore[operator]

    @property
    def group_matcher(self) -> Callable[..., Callable[[str], tuple[float, ...]]]:
        """timm: which group of layers a parameter belongs to, for rates that decay from layer to layer.

        A unit is in the group of its site: it trains at the rate of the layer that it is in.
        """
        theirs: Any = self.backbone.group_matcher  # an AttributeError where it has none
        return lambda coarse=False: _Matcher(theirs(coarse=coarse), self.backbone)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """As `nn.Module.state_dict`, with a tied tensor under its first name only: safetensors refuses others.

        `load_state_dict` takes such a state, and one that has all names.
        """
        with unchanged(self):
            state = super().state_dict(*args, **kwargs)
        prefix = kwargs.get("prefix", args[1] if len(args) > 1 else "")
        for names in _tied(self):
            for name in names[1:]:
                state.pop(prefix + name, None)
        return state

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any) -> None:
        for names in _tied(self):
            given = [prefix + name for name in names if prefix + name in state_dict]
            for name in names if given else ():
                state_dict.setdefault(prefix + name, state_dict[given[0]])
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class _Signed:
    """Marks the classes of `_class_for`."""


def _bare(kind: type) -> Any:
    """What is unpickled, before it gets its state."""
    return object.__new__(kind)


def _unsigned(kind: type) -> type:
    return next(cls for cls in kind.__mro__ if issubclass(cls, BackboneInterface) and not issubclass(cls, _Signed))


_CLASSES: weakref.WeakKeyDictionary[type, dict[type, type]] = weakref.WeakKeyDictionary()


def _class_for(base: type, backbone: nn.Module) -> type:
    """A subclass named after the backbone's, whose `forward` has its signature; one for each class of backbones."""
    kind = type(backbone)
    if "forward" in vars(backbone):  # somebody's wrapper around this one
        return _signed(base, backbone)
    made = _CLASSES.setdefault(kind, {})
    if base not in made:
        made[base] = _signed(base, backbone)
    return made[base]


def _signed(base: type, backbone: nn.Module) -> type:
    inherited = base.forward  # type: ignore[attr-defined]

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return inherited(self, *args, **kwargs)

    forward.__doc__ = inherited.__doc__
    signature = _signature(backbone, inherited)
    if signature is not None:
        forward.__signature__ = signature  # type: ignore[attr-defined]
    fields = {"forward": forward, "__doc__": base.__doc__, "__module__": base.__module__}
    return type(f"Expanded{type(backbone).__name__}", (_Signed, base), fields)


def _signature(backbone: nn.Module, inherited: Callable[..., Any]) -> inspect.Signature | None:
    try:
        theirs = list(inspect.signature(backbone.forward).parameters.values())
    except (TypeError, ValueError):  # a traced forward does not say
        return None
    ours = inspect.signature(inherited).parameters
    first = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    if any(one.name == "self" for one in theirs):
        return None
    rest = [one for one in theirs if one.kind is inspect.Parameter.VAR_KEYWORD]
    named = [one for one in theirs if one.kind is not inspect.Parameter.VAR_KEYWORD]
    return inspect.Signature([first, *named, ours["source"], ours["source_mask"], *rest])


def _prefixed(pattern: str) -> str:
    """A name (or regular expression) of the backbone's, as the expanded model has it."""
    return "^backbone." + pattern[1:] if pattern.startswith("^") else f"backbone.{pattern}"


def _tied(model: nn.Module) -> list[list[str]]:
    """Names of the parameters and buffers that have several, in the order of the modules."""
    names: dict[int, list[str]] = {}
    parameters, buffers = model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
    for name, tensor in chain(parameters, buffers):
        names.setdefault(id(tensor), []).append(name)
    return [found for found in names.values() if len(found) > 1]


class _Matcher:
    """timm's matcher of the backbone's names, for the expanded model's."""

    def __init__(self, theirs: Any, backbone: nn.Module) -> None:
        self.theirs = theirs
        self.backbone = backbone
        self.patterns: list[tuple[re.Pattern[str], int, tuple[int, ...]]] = []
        if isinstance(theirs, Mapping):
            for number, specification in enumerate(theirs.values()):
                for one in [specification] if isinstance(specification, str) else specification or ():
                    pattern, suffix = (one, None) if isinstance(one, str) else one
                    self.patterns.append((re.compile(pattern), number, suffix or ()))

    def __call__(self, name: str) -> tuple[float, ...]:
        place, _, rest = name.partition(".")
        if place == "units":
            return self._of_site(rest.partition(".")[0].partition("/")[2].replace("/", "."))
        return self._of(rest) if place == "backbone" else (float("inf"),)

    def _of_site(self, path: str) -> tuple[float, ...]:
        """The last group of the parameters in a module; of one without parameters, that of those before it."""
        before: list[str] = []
        for module, one in self.backbone.named_modules():
            if module == path and (inside := [f"{path}.{name}" for name, _ in one.named_parameters()]):
                return max(map(self._of, inside))
            if module == path:
                break
            before += [f"{module}.{name}".strip(".") for name, _ in one.named_parameters(recurse=False)]
        return self._of(before[-1]) if before else (0.0,)

    def _of(self, name: str) -> tuple[float, ...]:
        if not isinstance(self.theirs, Mapping):
            found = self.theirs(name)
            return tuple(found) if isinstance(found, (tuple, list)) else (found,)
        for pattern, number, suffix in self.patterns:
            if match := pattern.match(name):
                return tuple(float(one) for one in (number, *match.groups(), *suffix) if one is not None)
        return (float("inf"),)
