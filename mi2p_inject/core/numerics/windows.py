"""Window means: what convolution followed by global average pooling really reads of a map."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from mi2p_inject.core.numerics.recording import is_recording

__all__ = ["window_means"]


def window_means(maps: Tensor, kernel_size: int) -> Tensor:
    """The k² shifted-window means of every channel.

    A k×k convolution with same padding followed by a global average is linear in the map: its result is
    ``window_means(z, k) @ kernels.flatten(1).T + bias``, exactly (paper, section 3.3, the map
    query). Tap (i, j) is the sum of the pixels that this tap of the kernel meets on its way over the padded map,
    divided by H·W.

    Args:
        maps: (B, C, H, W).
        kernel_size: k, odd.

    Returns:
        (B, C, k²), taps in row-major order, in the dtype of `maps`.

    Examples:
        >>> import torch
        >>> from mi2p_inject.core.numerics.windows import window_means
        >>> z = torch.randn(1, 1, 5, 6)
        >>> kernel = torch.randn(1, 1, 3, 3)
        >>> literal = torch.nn.functional.conv2d(z, kernel, padding=1).mean((2, 3))
        >>> torch.allclose(window_means(z, 3)[:, :, :] @ kernel.flatten(), literal, atol=1e-6)
        True
    """
    height, width = maps.shape[2], maps.shape[3]
    if maps.device.type != "cpu" and type(maps) is Tensor and not is_recording():
        # one product: launching many small ones would take a GPU longer than their numbers
        return maps.flatten(2) @ _all_taps(height, width, kernel_size, maps.device, maps.dtype)
    rows = _taps(height, kernel_size, maps)
    columns = _taps(width, kernel_size, maps) / (height * width)
    return (rows @ (maps @ columns.mT)).flatten(2)


@lru_cache(maxsize=64)
def _all_taps(height: int, width: int, kernel_size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(H·W, k²): the share of each position in each tap; kept, as making it anew launches a dozen kernels."""
    with torch.inference_mode(False), torch.no_grad():
        like = torch.empty((), device=device, dtype=torch.promote_types(dtype, torch.float32))
        rows, columns = _taps(height, kernel_size, like), _taps(width, kernel_size, like)
        return (torch.kron(rows, columns) / (height * width)).mT.contiguous().to(dtype)


def _taps(size: int, kernel_size: int, like: Tensor) -> Tensor:
    """(k, size): one where tap i of a same-padded kernel meets position p, else zero."""
    position = torch.arange(size, device=like.device)
    shift = torch.arange(kernel_size, device=like.device).unsqueeze(1) - kernel_size // 2
    shifted = position - shift  # the output position at which tap i reads input position p
    return ((shifted >= 0) & (shifted < size)).to(like.dtype)
