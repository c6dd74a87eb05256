"""What shrinking by field names gets wrong: fields of a configuration, by class or model type, in the rule's place."""

from __future__ import annotations

from typing import Any

HEAD_DIM = {"head_dim": 8}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 8}
ZAMBA = {"layers_block_type": ["linear_attention", "hybrid", "hybrid"], "num_hidden_layers": 3}

EXCEPTIONS: dict[str, dict[str, Any]] = {
    "bamba": MAMBA,
    "granitemoehybrid": MAMBA,
    "falcon_h1": {**MAMBA, "mamba_d_ssm": 64},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 2, "state_size": 8, "chunk_size": 8},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0}, "ffn_config": {"ffn_hidden_size": 32}},
    "dots1": {"n_shared_experts": 1, "n_routed_experts": 4, "num_experts_per_tok": 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"], "num_dense_layers": 1},
    "esm": {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32},
    "esmc": {"num_key_value_heads": 4},
    "glm5_next_text": {"num_key_value_heads": 4},
    "dots3_note_text": {"num_key_value_heads": 4},
    "gemma3n_text": {"intermediate_size": 64, "num_kv_shared_layers": 0, "vocab_size_per_layer_input": 99},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_layers": 2},
    "hunyuan_v1_dense": HEAD_DIM,
    "hunyuan_v1_moe": HEAD_DIM,
    "hunyuan_vl_text": HEAD_DIM,
    "ministral": HEAD_DIM,
    "nemotron": {"num_key_value_heads": 2},
    "reformer": {"axial_pos_embds": False, "attn_layers": ["local", "lsh", "local"], "num_buckets": 4},
    "zamba": {**ZAMBA, "attention_hidden_size": 64, "attention_head_dim": 16, "mamba_dt_rank": 4},
    "zamba2": {**ZAMBA, "n_mamba_heads": 8, "mamba_headdim": 8, "mamba_d_state": 8, "chunk_size": 8},
    "perceiver": {"num_latents": 8, "num_self_attends_per_block": 2, "num_cross_attention_heads": 1, "d_model": 32},
    "timm_wrapper": {"architecture": "resnet10t"},
    "bit": {"embedding_size": 32, "num_groups": 4},
    "efficientnet": {"image_size": 64, "width_coefficient": 0.5, "depth_coefficient": 0.5, "hidden_dim": 64},
    "mimi": {"hidden_size": 64, "num_filters": 8, "upsample_groups": 64, "codebook_size": 32},
}
