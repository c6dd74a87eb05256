"""The linear layers of transformer blocks, by role: what re-parameterisation pairs between two architectures."""

from __future__ import annotations

from dataclasses import dataclass, fields

from torch import nn

__all__ = ["BERT", "CLIP", "DEBERTA", "DISTILBERT", "HF_CLIP", "HF_VIT", "MPNET", "TIMM", "WAV2VEC2", "Blocks"]

Names = tuple[str, ...]


@dataclass(frozen=True)
class Blocks:
    """The weights of one block, each by its path inside the block; where releases differ, the first that exists counts.

    Attention has either `query`, `key` and `value` apart or `qkv`, the three stacked along the first axis.

    Attributes:
        query, key, value, qkv: the projections into attention.
        attention_output: the projection out of attention.
        mlp_in, mlp_out: the two layers of the MLP.
        mlp_gate: the gate of a gated MLP.
    """

    query: Names = ()
    key: Names = ()
    value: Names = ()
    qkv: Names = ()
    attention_output: Names = ()
    mlp_in: Names = ()
    mlp_out: Names = ()
    mlp_gate: Names = ()

    def weights(self, block: nn.Module) -> dict[str, str]:
        """Role -> path of its weight in this block; a role that the block does not have is left out."""
        there = {name for name, _ in block.named_parameters(remove_duplicate=False)}
        found = ((one.name, next((n for n in getattr(self, one.name) if n in there), "")) for one in fields(self))
        return {role: name for role, name in found if name}

    def without_weight(self, block: nn.Module) -> dict[str, str]:
        """Role -> path of its layer, for layers of this block without a weight of their own: something wraps them."""
        plain, layers = self.weights(block), {name for name, _ in block.named_modules()}
        found = {}
        for one in fields(self):
            names = [name.rpartition(".")[0] for name in getattr(self, one.name)]
            if one.name not in plain and (there := [name for name in names if name in layers]):
                found[one.name] = there[0]
        return found


def _apart(query: str, key: str, value: str, output: str, mlp_in: str, mlp_out: str) -> Blocks:
    names = (f"{name}.weight" for name in (query, key, value))
    query, key, value = names
    return Blocks(
        query=(query,),
        key=(key,),
        value=(value,),
        attention_output=(f"{output}.weight",),
        mlp_in=(f"{mlp_in}.weight",),
        mlp_out=(f"{mlp_out}.weight",),
    )


TIMM = Blocks(
    query=("attn.q_proj.weight",),
    key=("attn.k_proj.weight",),
    value=("attn.v_proj.weight",),
    qkv=("attn.qkv.weight",),
    attention_output=("attn.proj.weight",),
    mlp_in=("mlp.fc1.weight", "mlp.fc1_x.weight"),
    mlp_out=("mlp.fc2.weight",),
    mlp_gate=("mlp.fc1_g.weight",),
)

# transformers renamed the layers of its vision transformers within release 5.
HF_VIT = Blocks(
    query=("attention.q_proj.weight", "attention.attention.query.weight"),
    key=("attention.k_proj.weight", "attention.attention.key.weight"),
    value=("attention.v_proj.weight", "attention.attention.value.weight"),
    attention_output=("attention.o_proj.weight", "attention.output.dense.weight"),
    mlp_in=("mlp.fc1.weight", "intermediate.dense.weight"),
    mlp_out=("mlp.fc2.weight", "output.dense.weight"),
)

BERT = _apart(
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
DEBERTA = _apart(
    "attention.self.query_proj",
    "attention.self.key_proj",
    "attention.self.value_proj",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
DISTILBERT = _apart(
    "attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "ffn.lin1", "ffn.lin2"
)
MPNET = _apart(
    "attention.attn.q",
    "attention.attn.k",
    "attention.attn.v",
    "attention.attn.o",
    "intermediate.dense",
    "output.dense",
)
HF_CLIP = _apart("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")
WAV2VEC2 = _apart(
    "attention.q_proj",
    "attention.k_proj",
    "attention.v_proj",
    "attention.out_proj",
    "feed_forward.intermediate_dense",
    "feed_forward.output_dense",
)

# open_clip's towers: torch's MultiheadAttention holds the three projections as one parameter.
CLIP = Blocks(
    qkv=("attn.in_proj_weight",),
    attention_output=("attn.out_proj.weight",),
    mlp_in=("mlp.c_fc.weight",),
    mlp_out=("mlp.c_proj.weight",),
)
