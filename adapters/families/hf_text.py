"""transformers' text encoders.

ALBERT has no adapter on purpose: one layer, shared, fires many times in a forward, so there is no middle layer to name.
"""

from __future__ import annotations

from mi2p_inject.adapters import blocks, inputs
from mi2p_inject.adapters.adapter import Adapter, MaskReader, Pooling, Readout
from mi2p_inject.adapters.blocks import BERT as BERT_BLOCKS
from mi2p_inject.adapters.blocks import Blocks
from mi2p_inject.core.layout import Axes, Layout

__all__ = [
    "ADAPTERS",
    "BERT",
    "DEBERTA_V2",
    "DISTILBERT",
    "IN_TUPLE",
    "LAST_HIDDEN",
    "MODERNBERT",
    "MPNET",
    "ROBERTA",
    "TOKENS",
    "XLNET",
    "text",
]

TOKENS = Layout(Axes.NLC)
IN_TUPLE = Layout(Axes.NLC, element=0)
LAST_HIDDEN = Layout(Axes.NLC, element="last_hidden_state")


def text(
    name: str,
    classes: tuple[str, ...],
    sites: str,
    layout: Layout = TOKENS,
    pooled: Pooling = "bert",
    mask: MaskReader = inputs.attention_mask,
    linears: Blocks | None = BERT_BLOCKS,
) -> Adapter:
    """A text encoder: layers that give tokens, the last hidden state as features, the tokenizer's mask."""
    return Adapter(
        name=name,
        library="transformers",
        modality="text",
        classes=classes,
        sites=(sites,),
        layout=layout,
        readout=Readout(LAST_HIDDEN, mask=mask, pooled=pooled),
        inputs=inputs.hf_text,
        num_heads=12,
        blocks=linears,
    )


# MiniLM and most sentence encoders are BertModels.
BERT = text("bert", ("transformers.models.bert.modeling_bert.BertModel",), "encoder.layer.*")

ROBERTA = text(
    "roberta",
    (
        "transformers.models.roberta.modeling_roberta.RobertaModel",
        "transformers.models.xlm_roberta.modeling_xlm_roberta.XLMRobertaModel",
        "transformers.models.camembert.modeling_camembert.CamembertModel",
    ),
    "encoder.layer.*",
)

DISTILBERT = text(
    "distilbert",
    ("transformers.models.distilbert.modeling_distilbert.DistilBertModel",),
    "transformer.layer.*",
    pooled="cls",
    linears=blocks.DISTILBERT,
)

# A tuple of one or two: attentions join when they are asked for.
MPNET = text(
    "mpnet",
    ("transformers.models.mpnet.modeling_mpnet.MPNetModel",),
    "encoder.layer.*",
    IN_TUPLE,
    linears=blocks.MPNET,
)

# A tuple of two, always. A convolution after the first layer (v2-xlarge) runs after the hook, so it reads the residual.
DEBERTA_V2 = text(
    "deberta_v2",
    ("transformers.models.deberta_v2.modeling_deberta_v2.DebertaV2Model",),
    "encoder.layer.*",
    IN_TUPLE,
    pooled="cls",
    linears=blocks.DEBERTA,
)

MODERNBERT = text(
    "modernbert",
    ("transformers.models.modernbert.modeling_modernbert.ModernBertModel",),
    "layers.*",
    pooled="cls",
    linears=None,  # its MLP is gated, and both halves are one layer
)

# The one encoder that computes length first; its output is batch first again. Padding stands on the left.
XLNET = text(
    "xlnet",
    ("transformers.models.xlnet.modeling_xlnet.XLNetModel",),
    "layer.*",
    Layout(Axes.LNC, element=0),
    pooled="last",
    mask=inputs.xlnet_mask,
    linears=None,  # its projections are tensors of three axes
)

ADAPTERS: tuple[Adapter, ...] = (BERT, ROBERTA, DISTILBERT, MPNET, DEBERTA_V2, MODERNBERT, XLNET)
