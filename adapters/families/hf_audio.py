"""transformers' audio encoders."""

from __future__ import annotations

from mi2p_inject.adapters import blocks, inputs
from mi2p_inject.adapters.adapter import Adapter, Readout
from mi2p_inject.adapters.families.hf_image import LAYERS
from mi2p_inject.core.layout import Axes, Layout

__all__ = ["ADAPTERS", "AST", "LAST_HIDDEN", "TOKENS", "WAV2VEC2"]

TOKENS = Layout(Axes.NLC)
LAST_HIDDEN = Layout(Axes.NLC, element="last_hidden_state")

# In train mode layer-drop (config.layerdrop, 0.1 by default) skips layers at random: a site may not fire then.
WAV2VEC2 = Adapter(
    name="wav2vec2",
    library="transformers",
    modality="audio",
    classes=(
        "transformers.models.wav2vec2.modeling_wav2vec2.Wav2Vec2Model",
        "transformers.models.hubert.modeling_hubert.HubertModel",
    ),
    sites=("encoder.layers.*",),
    layout=TOKENS,
    readout=Readout(LAST_HIDDEN, mask=inputs.downsampled_mask, pooled="mean"),
    inputs=inputs.hf_wave,
    num_heads=12,
    blocks=blocks.WAV2VEC2,
)

# Tokens, not patches: its grid is frequency x time (12 x 101 with two prefix tokens), two axes that do not mean the
# same, and their sizes follow from strides in the configuration, not from an image size.
AST = Adapter(
    name="ast",
    library="transformers",
    modality="audio",
    classes=("transformers.models.audio_spectrogram_transformer.modeling_audio_spectrogram_transformer.ASTModel",),
    sites=(LAYERS,),
    layout=TOKENS,
    readout=Readout(LAST_HIDDEN, pooled="cls"),
    inputs=inputs.hf_spectrogram,
    num_heads=12,
    blocks=blocks.HF_VIT,
)

ADAPTERS: tuple[Adapter, ...] = (WAV2VEC2, AST)
