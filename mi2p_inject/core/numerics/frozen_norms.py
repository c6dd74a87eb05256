"""Normalisations of a frozen backbone: their statistics stand still."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from mi2p_inject.core.errors import InjectionError
from mi2p_inject.core.files.digest import quick_sums

__all__ = ["keep_norms_still"]

MEAN = "running_mean"


def keep_norms_still(backbone: nn.Module, initial: Mapping[str, int | None]) -> None:
    """Put the normalisations of a frozen backbone in eval mode, in which their statistics stand still.

    Before each forward: somebody may have put a part of it into another mode. A compiled graph keeps to what it finds.

    Args:
        backbone: the frozen one.
        initial: what its state was at injection, by `quick_sums`.

    Raises:
        InjectionError: `torch.optim.swa_utils.update_bn` has emptied their statistics, and would find no others.
    """
    for name, module in backbone.named_modules():
        if not isinstance(module, nn.modules.batchnorm._NormBase):
            continue
        if module.training:
            module.eval()
        if module.momentum is None and _is_emptied(module, initial.get(f"{name}.{MEAN}")):
            raise InjectionError(
                "the statistics of a frozen normalisation were emptied, as update_bn does, and none are taken anew",
                path=name,
                expected='no update_bn of a model with trainable="units": its statistics stay the backbone\'s',
                given="means of zero, unlike at injection, and a momentum of None",
                fix="leave update_bn out; build this model anew, as its statistics are lost",
            )


def _is_emptied(module: nn.modules.batchnorm._NormBase, initial: int | None) -> bool:
    mean = module.running_mean
    if mean is None or initial is None or bool(mean.any()):
        return False
    return quick_sums(module)[MEAN] != initial
