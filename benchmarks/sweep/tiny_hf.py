"""Tiny models of transformers: the default configuration of a class, its sizes shrunk by the names of its fields."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from benchmarks.sweep.tiny_fields import EXCEPTIONS
from mi2p_inject.core.errors import SweepError

__all__ = ["build", "class_names", "shrunk"]

HEADS = (
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES",
)
MODALITIES = ("text", "image", "audio", "video")
"""Models that read one of these are swept; dual models are not backbones but pairs of them."""
MOST_PARAMETERS = 40_000_000

LAYERS, WIDTH, VOCABULARY, POSITIONS, IMAGE, PATCH = 3, 32, 99, 64, 64, 8
SIZES: tuple[tuple[str, Any], ...] = (
    (r"num_hidden_layers|n_layers?|num_layers|(en|de)coder_layers|num_(en|de)coder_layers|depths?", LAYERS),
    (r"hidden_size|d_model|n_embd|dim|embed_dim|embedding_size|emb_dim|encoder_hidden_size|width|n_embed", WIDTH),
    (
        r"d_embed|hidden_dim|decoder_hidden_size|word_embed_proj_dim|inner_dim|output_dim|projection_dim|embed_dims"
        r"|out_hidden_size|(neck_)?hidden_sizes|d_latents|pred_hidden_size",
        WIDTH,
    ),
    (
        r"intermediate_size|(en|de)coder_ffn_dim|d_ff|n_inner|d_inner|ffn_dim|mlp_dim|dff|feed_forward_size|ffn_hidden_size",
        2 * WIDTH,
    ),
    (r"num_attention_heads|n_heads?|num_heads|(en|de)coder_attention_heads|attention_heads", 4),
    (r"head_dim|d_kv|kv_channels|attention_head_dim|qk_(nope|rope)_head_dim|v_head_dim", 8),
    (r"q_lora_rank|kv_lora_rank", 16),
    (r"vocab_size|n_positions_vocab|entity_vocab_size", VOCABULARY),
    (r"num_(local_)?experts|n_routed_experts|moe_num_experts|num_routed_experts", 4),
    (r"moe_intermediate_size|expert_ffn_dim|shared_expert_intermediate_size|moe_hidden_size", 16),
    (r"num_experts_per_tok|moe_topk|top_k_experts|moe_k|num_selected_experts", 2),
    (r"n_group|topk_group", 1),
    (r"image_size|img_size", IMAGE),
    (r"conv_dim|subsampling_conv_channels", 16),
)
SPECIAL = re.compile(
    r"(pad|bos|eos|cls|sep|unk|mask|decoder_start|image|audio|video|boi|eoi|boa|eoa)\w*_token_(id|index)"
)


def class_names() -> list[str]:
    """Base models of one modality and their classification heads, of all model types."""
    import transformers
    from transformers.models.auto import modeling_auto

    named = list(modeling_auto.MODEL_MAPPING_NAMES.values())
    for table in HEADS:
        named += list(getattr(modeling_auto, table).values())
    flat = dict.fromkeys(name for entry in named for name in ((entry,) if isinstance(entry, str) else entry))
    return [name for name in flat if _is_unimodal(transformers, name)]


def _is_unimodal(transformers: Any, name: str) -> bool:
    try:
        cls = getattr(transformers, name)
        modalities = cls.input_modalities
    except (AttributeError, ImportError):  # a class whose own requirements are not installed
        return False
    given = [modalities] if isinstance(modalities, str) else list(modalities)
    audio = getattr(cls, "main_input_name", "") in ("input_features", "input_values")
    return (len(given) == 1 and given[0] in MODALITIES) or (audio and set(given) == {"audio", "text"})


def build(name: str) -> nn.Module:
    """A class of transformers in a tiny configuration, random weights.

    Raises:
        SweepError: it stays large: a field that decides its size is not in the table.
    """
    import torch
    import transformers

    cls: Any = getattr(transformers, name)
    config = cls.config_class(**shrunk(cls.config_class, name))
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in cls(config).parameters())
    if size > MOST_PARAMETERS:
        raise SweepError(
            f"the tiny {name} is not tiny",
            expected=f"at most {MOST_PARAMETERS:,} parameters",
            given=f"{size:,}",
            fix="add its fields to EXCEPTIONS in benchmarks/sweep/tiny_fields.py",
        )
    model: nn.Module = cls(config)
    return model


def shrunk(config_class: Any, name: str = "") -> dict[str, Any]:
    """The fields of a configuration that make it tiny."""
    default = config_class()
    fields = _shrunk_fields(default)
    exceptions = next((EXCEPTIONS[key] for key in (name, default.model_type) if key in EXCEPTIONS), {})
    return {**fields, **exceptions}


def _shrunk_fields(config: Any) -> dict[str, Any]:
    from transformers import PreTrainedConfig

    fields: dict[str, Any] = {}
    aliases = set(type(config).attribute_map)
    if hasattr(config, "depths") and hasattr(config, "embed_dim"):  # stages: these two follow from them
        aliases |= {"hidden_size", "num_layers"}
    for name, value in vars(config).items():
        if name.startswith("_") or name in aliases:
            continue
        if isinstance(value, PreTrainedConfig):
            fields[name] = {
                "model_type": value.model_type,
                **_shrunk_fields(value),
                **EXCEPTIONS.get(value.model_type, {}),
            }
            continue
        if SPECIAL.fullmatch(name) and isinstance(value, int):
            fields[name] = value if 0 <= value < VOCABULARY else VOCABULARY - 1
            continue
        if name == "pad_token_id" and value is None:
            fields[name] = 0  # heads want to know which tokens are padding
            continue
        if re.fullmatch("num_key_value_heads|n_kv_heads|num_kv_heads", name) and isinstance(value, int):
            shared = value < (getattr(config, "num_attention_heads", None) or value)
            fields[name] = 2 if shared else 4
            continue
        small = next((small for pattern, small in SIZES if re.fullmatch(pattern, name)), None)
        if small is not None and isinstance(value, int) and not isinstance(value, bool):
            fields[name] = min(value, small) if value > 0 else value
        elif small is not None and isinstance(value, (list, tuple)) and value:
            fields[name] = _shrunk_list(name, list(value))
    return fields


def _shrunk_list(name: str, values: list[Any]) -> list[Any]:
    """Of stages: layers become one each, widths grow from 16 on, heads stay as their widths allow."""
    if not all(isinstance(value, int) for value in values):
        return values
    if "layers" in name or "depth" in name:
        return [1 for _ in values]
    if "head" in name:
        return [min(value, 2) for value in values]
    if "image" in name or "img" in name:
        return [IMAGE for _ in values]
    smallest = max(min(values), 1)
    return [max(value * 16 // smallest, 1) for value in values]
