"""The Multimodal Information Injection Plug-in (CVPR 2022), in its four combinations of map and tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mi2p_inject.core.numerics.precision import full_range, saturated
from mi2p_inject.core.numerics.weights_taken import Axis
from mi2p_inject.core.views import ViewSpec
from mi2p_inject.sources.prepared import PreparedSource
from mi2p_inject.units.attention import attend
from mi2p_inject.units.base import (
    Unit,
    UnitConfig,
    ZeroInit,
    check_flag,
    check_option,
    is_positive,
    largest_divisor,
    later_option,
)
from mi2p_inject.units.embed import key_for, query_for, value_for
from mi2p_inject.units.layers.gate import ZeroGate
from mi2p_inject.units.layers.linear import PlainLinear
from mi2p_inject.units.product_order import Sizes, cheapest

__all__ = ["MI2P", "MI2PUnit"]

TYPICAL_BATCH, TYPICAL_LENGTH = 8, 64
"""What the order of the products is chosen for; it is right for any other, if not the cheapest."""


@final
@dataclass(frozen=True)
class MI2P(UnitConfig):
    """Options of the MI2P unit.

    Args:
        num_heads: attention heads asked for; None: the adapter's number (8 for CNNs, 12 for BERT). A unit takes the
            largest divisor of the site's vector (H·W of a map, D of tokens) up to it, and the summary says which.
        head_dim: width of queries and keys, a head.
        kernel_size: k of the k×k kernels that embed a map's channels, odd.
        zero_init: how the unit starts at zero, so that the expanded model is the backbone bit for bit.
            "value_proj": its last linear layers (the value embedder, or the output projection and the readout's rows
            of the value embedder) start at zero. "scalar", "channel": a learned weight for the site, or for each
            channel, starts at zero. None: the paper's plain addition from the start.
        channel_embedding_dim: width of the learned embedding of each channel of a map, in query, key and value; 8 more
            or fewer where products are faster for it. 0: the paper's literal form, which cannot tell channels apart.
        readout: numbers r that each head reads for a map's channels beside its map of values; 0: none. Without them a
            head adds to every channel some mixture of the same maps, and after global pooling one number a source token
            is left, the same for all channels. With them channel c gets Σ_h e_{c,h}·u_{c,h} at every pixel, where
            u_{c,h} = Σ_l α_{c,l,h}(U_h t_l + b_h) has r numbers and e_{c,h} is learned. Site tokens have no use for
            it: their values are feature vectors, and the option is ignored there.
        output_projection: value width rounded up to a multiple of the heads, then a linear layer to the site's vector:
            exactly the asked number of heads. The readout is added after it.
        source_norm: layer normalisation of each token that is attended to, without weights of its own: how fast a unit
            learns no longer depends on how large a source encoder's numbers are. A map's channels are left alone, as
            how active each is says what the map shows, and so are tokens of width 1, of which nothing would be left.
            False: for tokens that say something by their length.
        pooled_shift: adds a linear layer of the pooled source (its mean over tokens or pixels, layer-normalised) at
            every position, as `FiLM` does: what the source says as a whole, of full rank. Attention adds what positions
            or channels read of it each for themselves.

    Raises:
        UnitError: an option out of range.

    Source: paper, section 3.3, equations 1 and 2.

    Examples:
        >>> from mi2p_inject import MI2P, ViewSpec
        >>> unit = MI2P(num_heads=8).build(site=ViewSpec.map(256, 14, 14), source=ViewSpec.tokens(768))
        >>> unit.num_heads  # 14·14 = 196 has no divisor 8
        7
    """

    num_heads: int | None = None
    head_dim: int = 64
    kernel_size: int = 3
    zero_init: ZeroInit | None = "value_proj"
    channel_embedding_dim: int = 16
    readout: int = 16
    output_projection: bool = False
    source_norm: bool = later_option(True, before=False)
    pooled_shift: bool = later_option(True, before=False)

    def __post_init__(self) -> None:
        width, starts = self.channel_embedding_dim, (None, *get_args(ZeroInit))
        odd = is_positive(self.kernel_size) and self.kernel_size % 2 == 1
        check_option(
            "num_heads",
            self.num_heads,
            self.num_heads is None or is_positive(self.num_heads),
            "None or a positive integer",
        )
        check_option("head_dim", self.head_dim, is_positive(self.head_dim), "a positive integer")
        check_option("kernel_size", self.kernel_size, odd, "an odd positive integer")
        check_option("zero_init", self.zero_init, self.zero_init in starts, f"None or one of {get_args(ZeroInit)}")
        check_option("channel_embedding_dim", width, width == 0 or is_positive(width), "an integer, 0 or more")
        check_option("readout", self.readout, self.readout == 0 or is_positive(self.readout), "an integer, 0 or more")
        check_flag("output_projection", self.output_projection)
        check_flag("source_norm", self.source_norm)
        check_flag("pooled_shift", self.pooled_shift)

    @property
    def kind(self) -> str:
        return "mi2p"

    def build(self, site: ViewSpec, source: ViewSpec, default_heads: int = 8) -> MI2PUnit:
        return MI2PUnit(self, site, source, self.num_heads or default_heads)


@final
class MI2PUnit(Unit):
    """softmax(QKᵀ/√head_dim)V with the query from the site and key and value from the source, reshaped to the view.

    Args:
        config: its options.
        site: the view it adds to.
        source: the features it attends to.
        num_heads: asked number of heads.

    Shapes:
        view (B, C, H, W) or (B, L, D), source of the same B -> residual of the view's shape. A map of another grid
        than the site's gets the residual resized (bilinear).
    """

    def __init__(self, config: MI2P, site: ViewSpec, source: ViewSpec, num_heads: int) -> None:
        super().__init__(site, source)
        self.head_dim, self.asked_heads = config.head_dim, num_heads
        self.source_norm = config.source_norm and source.kind == "tokens" and source.width > 1
        self.num_heads = num_heads if config.output_projection else largest_divisor(site.vector, num_heads)
        self.d_v, self.readout = math.ceil(site.vector / self.num_heads), config.readout if site.kind == "map" else 0
        value_dim = self.d_v + self.readout
        shape = self.num_heads, config.head_dim, config.kernel_size, config.channel_embedding_dim
        self.site_embedding = query_for(site, *shape)
        self.source_key_embedding = key_for(source, *shape)
        self.source_value_embedding = value_for(
            source, self.num_heads, self.num_heads * value_dim, config.channel_embedding_dim
        )
        self.output_projection = (
            PlainLinear(self.num_heads * self.d_v, site.vector) if config.output_projection else None
        )
        of_channel = self.num_heads * self.readout
        self.channel_readout = (
            nn.Parameter(torch.randn(site.width, of_channel) * of_channel**-0.5) if of_channel else None
        )
        self.pooled_norm = source.width > 1
        self.source_to_shift = PlainLinear(source.width, site.width) if config.pooled_shift else None
        self.zero_gate = (
            ZeroGate(site, config.zero_init == "channel") if config.zero_init in ("scalar", "channel") else None
        )
        if config.zero_init == "value_proj":
            self._start_at_zero()
        self.order = cheapest(
            Sizes(
                batch=TYPICAL_BATCH,
                queries=site.width if site.kind == "map" else TYPICAL_LENGTH,
                keys=source.width if source.kind == "map" else TYPICAL_LENGTH,
                query_width=self.site_embedding.width + 1,
                key_width=self.source_key_embedding.width,
                value_width=self.source_value_embedding.width,
                num_heads=self.num_heads,
                head_dim=config.head_dim,
                value_dim=value_dim,
            )
        )

    @torch.no_grad()
    def _start_at_zero(self) -> None:
        first = 0 if self.output_projection is None else self.d_v  # the projection makes zeros of a head's d_v values
        for layer in (self.output_projection, self.source_to_shift):
            for parameter in () if layer is None else layer.parameters():
                parameter.zero_()
        for rows in (self.source_value_embedding.weight, self.source_value_embedding.bias):
            if rows is not None:
                rows.unflatten(0, (self.num_heads, -1))[:, first:] = 0

    def forward(self, view: Tensor, source: PreparedSource) -> Tensor:
        self.check_width(view)
        dtype = view.dtype
        with full_range(view):
            residual = self._residual(*self.widened(view, source))
        return saturated(residual, dtype) if dtype == torch.float16 else residual

    def _residual(self, view: Tensor, source: PreparedSource) -> Tensor:
        query, key, value = self.site_embedding, self.source_key_embedding, self.source_value_embedding
        read_from = source.normalised() if self.source_norm else source
        factors = query.factors(view), key.factors(read_from), value.factors(read_from)
        read = attend(self.order, query, key, value, factors, source.mask, self.head_dim**-0.5)
        residual, shift = self._split(read)
        if self.output_projection is not None:
            residual = self.output_projection(residual)
        if self.source_to_shift is not None:
            pooled = self.source_to_shift(source.pooled(self.pooled_norm))
            shift = pooled if shift is None else shift + pooled
        if self.site.grid is not None:
            residual = residual.unflatten(2, self.site.grid)
            if tuple(view.shape[2:]) != self.site.grid:
                residual = F.interpolate(residual, tuple(view.shape[2:]), mode="bilinear", align_corners=False)
        if shift is not None:
            shift = shift[..., None, None] if self.site.kind == "map" else shift.unsqueeze(1)
            # fresh memory for a map would take longer than the sum
            residual = residual + shift if self.channel_readout is None else residual.add_(shift)
        if self.zero_gate is not None:
            residual = self.zero_gate(residual)
        return self.zero_missing(residual, source)

    def describe(self) -> dict[str, str]:
        heads = str(self.num_heads)
        if self.num_heads != self.asked_heads:
            heads += f" (asked {self.asked_heads}, {self.site.vector} numbers)"
        return {"heads": heads}

    def attention_axes(self) -> tuple[Axis, Axis]:
        return self.axes(of_map="channels")

    def _split(self, read: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, heads, N, d_v + r) -> (B, N, heads·d_v), and the number that each channel gets at every pixel (B, N).

        The first has memory of its own: the second is added in place.
        """
        if self.channel_readout is None:
            return read.transpose(1, 2).flatten(2), None
        maps, numbers = read.split([self.d_v, self.readout], -1)
        maps = maps.transpose(1, 2).clone(memory_format=torch.contiguous_format)
        return maps.flatten(2), (numbers.transpose(1, 2).flatten(2) * self.channel_readout).sum(2)

    def extra_repr(self) -> str:
        return f"site={self.site}, source={self.source}, num_heads={self.num_heads}, head_dim={self.head_dim}"
