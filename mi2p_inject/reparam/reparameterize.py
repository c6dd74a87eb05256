"""`pathway`: a transformer that also uses the weights of a transformer of another modality. One line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from mi2p_inject.core.errors import PathwayError
from mi2p_inject.inspection.resolve import resolve
from mi2p_inject.reparam.checks import Blocks, check_plain, check_types, chosen_blocks, linear_layers_without
from mi2p_inject.reparam.pairing import PairedWeight, pair
from mi2p_inject.reparam.saved import save
from mi2p_inject.reparam.weight import CrossModalWeight

__all__ = ["Blocks", "Pathway", "pathway"]


def pathway(
    model: nn.Module, *, auxiliary: nn.Module, blocks: Blocks | None = None, train_auxiliary: bool = True
) -> Pathway:
    """Re-parameterise a transformer with the weights of a transformer of another modality (M2PT).

    The weight of each linear layer in each block (attention and MLP) becomes W + λ·W_aux, λ one learned number a layer
    that starts at 0: the output is the model's, bit for bit, until it is trained. Embeddings, norms, biases and heads
    stay the model's own, the auxiliary's biases are not used, and nothing of the other modality is needed at run time.
    `fold()` gives a plain model back that costs nothing extra.

    Args:
        model: the transformer; its code is not touched.
        auxiliary: a transformer of the same hidden and MLP width. Its parameters are used themselves, not copies.
        blocks: which blocks: numbers (-1 the last), or pairs (of the model, of the auxiliary); None: as many as both
            have, in order.
        train_auxiliary: whether the auxiliary's weights train too (as in the paper) or stay as they are.

    Raises:
        PathwayError: widths that differ, blocks that do not exist, a model whose adapter does not describe its blocks,
            one that is re-parameterised already, or a layer without a plain weight of its own (LoRA, quantisation,
            pruning, tied weights). Nothing is changed then.

    Source: Multimodal Pathway (https://arxiv.org/abs/2401.14405).

    Examples:
        >>> import timm, torch
        >>> from transformers import BertConfig, BertModel
        >>> from mi2p_inject import pathway
        >>> vit = timm.create_model("vit_tiny_patch16_224", depth=2, embed_dim=48, num_heads=4, num_classes=3)
        >>> tiny = BertConfig(hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=192)
        >>> pw = pathway(vit, auxiliary=BertModel(tiny))
        >>> pw(torch.randn(2, 3, 224, 224)).shape
        torch.Size([2, 3])
        >>> pw.fold() is vit
        True
    """
    check_types(model, auxiliary, train_auxiliary)
    if model is auxiliary or {id(one) for one in model.parameters()} & {id(one) for one in auxiliary.parameters()}:
        raise PathwayError(
            "model and auxiliary share parameters",
            expected="two models",
            given=f"{type(model).__name__} and {type(auxiliary).__name__}",
            fix="pass copy.deepcopy(...) of the auxiliary",
        )
    target, other = resolve(model, required=False), resolve(auxiliary, required=False)
    check_plain(target, other)
    depths = len(target.default_paths), len(other.default_paths)
    chosen = chosen_blocks(blocks, *depths)
    pairs = pair(target, other, chosen)
    if not pairs:
        raise PathwayError(
            "no layer of the two models has the same role",
            expected="attention and MLP layers",
            given=f"{type(model).__name__} and {type(auxiliary).__name__}",
            fix="choose another auxiliary model",
        )
    left = linear_layers_without(target, {own for own, _ in chosen}, {one.path for one in pairs})
    return Pathway(model, auxiliary, pairs, chosen, depths, train_auxiliary, left)


class Pathway(nn.Module):
    """A re-parameterised transformer. Built by `pathway` and `load_pathway`, not by hand.

    Attributes:
        model: the transformer; called like it, this object gives what it gives.
        pairs: which weights are re-parameterised, with what of the auxiliary.
    """

    model: nn.Module

    def __init__(
        self,
        model: nn.Module,
        auxiliary: nn.Module,
        pairs: Sequence[PairedWeight],
        blocks: Sequence[tuple[int, int]],
        depths: tuple[int, int],
        train_auxiliary: bool,
        left_out: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.model, self.pairs, self.blocks, self.depths = model, tuple(pairs), tuple(blocks), depths
        self.train_auxiliary, self.auxiliary_class = train_auxiliary, type(auxiliary).__name__
        self._left_out = tuple(left_out)
        self.training = model.training
        # The layers themselves, not their paths: LoRA, for one, moves a layer into a wrapper.
        self._layers = {one.path: _owner(model, one.path) for one in pairs}
        self._orders = [(layer, list(layer._parameters)) for layer, _ in self._layers.values()]
        self._flags = [
            (parameter, parameter.requires_grad)
            for one in pairs
            for parameter in (auxiliary.get_parameter(part.path) for part in one.parts)
        ]
        for one in pairs:
            module, name = self._layers[one.path]
            used = [auxiliary.get_parameter(part.path) for part in one.parts]
            parametrization = CrossModalWeight(used, one.parts).train(model.training)
            parametrize.register_parametrization(module, name, parametrization)
        for parameter, _ in self._flags:
            parameter.requires_grad_(train_auxiliary)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model returns."""
        self._check_live()
        return self.model(*args, **kwargs)

    @property
    def scales(self) -> dict[str, nn.Parameter]:
        """Path of each re-parameterised weight -> its λ, a parameter of shape (1,)."""
        self._check_live()
        return {path: _parametrization(*layer).scale for path, layer in self._layers.items()}

    def fold(self) -> nn.Module:
        """Write W + λ·W_aux into the model and give it back, plain: keys, classes and cost as before.

        Raises:
            PathwayError: folded or ejected already.
        """
        return self._remove(keep=True)

    def eject(self) -> nn.Module:
        """Give the model back without the auxiliary's part; what was trained of its own weights stays trained.

        Raises:
            PathwayError: folded or ejected already.
        """
        return self._remove(keep=False)

    def summary(self) -> str:
        """Which layers were paired, which blocks were left out, and how many parameters train."""
        self._check_live()
        roles = Counter(one.role for one in self.pairs)
        own = {id(one) for one in self.model.parameters()}
        extra = {id(one): one for one, _ in self._flags}
        lines = [
            f"{type(self.model).__name__} + weights of {self.auxiliary_class}: {len(self.pairs)} layers in "
            f"{len(self.blocks)} blocks ({', '.join(f'{count} {role}' for role, count in roles.items())})"
        ]
        for one in self.pairs:
            parts = " + ".join(
                part.path + ("" if part.third is None else f"[third {part.third + 1}]") for part in one.parts
            )
            lines.append(f"  {one.path}  <-  {parts}")
        for what, depth, used in (
            ("model", self.depths[0], {own_block for own_block, _ in self.blocks}),
            ("auxiliary", self.depths[1], {other for _, other in self.blocks}),
        ):
            if left := [str(number) for number in range(depth) if number not in used]:
                lines.append(f"blocks of the {what} left out: {', '.join(left)}")
        if self._left_out:
            lines.append(f"linear layers of these blocks left out: {', '.join(self._left_out)}")
        auxiliary = sum(one.numel() for one in extra.values())
        total = sum(one.numel() for one in self.model.parameters() if id(one) in own and id(one) not in extra)
        lines.append(
            f"parameters: model {total:,} (λ included), auxiliary {auxiliary:,} "
            f"({'trainable' if self.train_auxiliary else 'frozen'})"
        )
        return "\n".join(lines)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `pathway_config.json` and safetensors files; `load_pathway` reads them back.

        Raises:
            CheckpointError: the folder cannot be written.
        """
        self._check_live()
        save(self.model, self.blocks, self.train_auxiliary, folder)

    def _remove(self, keep: bool) -> nn.Module:
        self._check_live()
        there = {id(module) for module in self.model.modules()}
        for path, (module, _) in self._layers.items():
            if id(module) not in there:
                raise PathwayError(
                    "a layer of the pathway has been replaced",
                    path=path,
                    expected="the layer that pathway(...) re-parameterised",
                    given="another one in its place",
                    fix="fold() or eject() first, then quantise or replace layers",
                )
        for module, name in self._layers.values():
            _own_class(module)
            parametrize.remove_parametrizations(module, name, leave_parametrized=keep)
        for module, order in self._orders:
            for name in order:  # removing a parametrization puts its parameter last
                module._parameters[name] = module._parameters.pop(name)
        for parameter, flag in self._flags:
            parameter.requires_grad_(flag)
        self._flags = []
        return self.model

    def _check_live(self) -> None:
        if not self._flags:
            raise PathwayError(
                "this pathway has been folded or ejected",
                expected="a live one",
                given="one whose model was given back",
                fix="use the model that fold() or eject() returned, or call pathway(...) again",
            )


def _owner(model: nn.Module, path: str) -> tuple[nn.Module, str]:
    module, _, name = path.rpartition(".")
    return model.get_submodule(module), name


def _own_class(module: nn.Module) -> None:
    """A copy of a parametrized layer shares its class, which torch takes the weight's property from when it removes the
    parametrization of one: from then on each has a class of its own."""
    cls = type(module)
    content = {name: one for name, one in vars(cls).items() if name not in ("__dict__", "__weakref__")}
    module.__class__ = type(cls.__name__, cls.__bases__, content)


def _parametrization(module: nn.Module, name: str) -> CrossModalWeight:
    found: CrossModalWeight = module.parametrizations[name][0]  # type: ignore[index, assignment]
    return found
