"""What shrinking by field names gets wrong: fields of a configuration, by class or model type, in the rule's place."""

from __future__ import annotations

from typing import Any

__all__ = ["EXCEPTIONS"]

HEAD_DIM = {"head_dim": 8}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 8}
ZAMBA = {"layers_block_type": ["linear_attention", "hybrid", "hybrid"], "num_hidden_layers": 3}
HYBRID = {"layer_types": ["linear_attention", "linear_attention", "full_attention"]}
LINEAR = {"linear_head_dim": 8, "linear_num_heads": 4}
INDEX = {"index_head_dim": 8, "index_n_heads": 4, "index_topk": 8, "index_kpool": 4}
INDEXER = {
    "indexer_n_heads": 4,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 8,
    "indexer_budget": 8,
    "indexer_compress_ratio": 4,
}
DBRX_FFN = {"ffn_config": {"ffn_hidden_size": 32}}
SWIN = {"window_size": 4, "image_size": 128}  # the last stage is as large as a window
MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}}
HGNET = {
    "stem_channels": [3, 8, 16],
    "stage_in_channels": [16, 16, 32, 64],
    "stage_mid_channels": [8, 8, 16, 32],
    "stage_out_channels": [16, 32, 64, 128],
    "hidden_sizes": [16, 32, 64, 128],
}

RESNET = {"backbone": "resnet10t", "features_only": True, "model_type": "timm_backbone", "out_indices": [1, 2, 3, 4]}
DETECTOR = {"backbone_config": RESNET, "num_queries": 8}
RT_DETR = {
    "backbone_config": {**RESNET, "out_indices": [2, 3, 4]},
    "encoder_in_channels": [128, 256, 512],
    "encoder_hidden_dim": 32,
    "decoder_in_channels": [32, 32, 32],
    "num_queries": 8,
}

EXCEPTIONS: dict[str, dict[str, Any]] = {
    "detr": DETECTOR,
    "conditional_detr": DETECTOR,
    "dab-detr": DETECTOR,
    "deformable_detr": {**DETECTOR, "backbone_config": {**RESNET, "out_indices": [2, 3, 4]}},
    "table-transformer": DETECTOR,
    "timm_backbone": {"backbone": "resnet10t"},
    "mobilevit": {"hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 16, 16, 24, 24, 32, 64]},
    "vjepa2": {"pred_num_attention_heads": 4, "pred_num_hidden_layers": 2, "crop_size": 32, "frames_per_clip": 4},
    "pocket_tts_audio_tokenizer": {"hidden_size": 64, "num_filters": 8, "upsample_groups": 64},
    "mimi_decoder": {"hidden_size": 64, "num_filters": 8, "upsample_groups": 64},
    "pocket_tts_audio_tokenizer_decoder": {"hidden_size": 64, "num_filters": 8, "upsample_groups": 64},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
    "codegen": {"rotary_dim": 4},
    "gptj": {"rotary_dim": 4},
    "cvt": {"embed_dim": [16, 32, 64], "num_heads": [1, 2, 2], "depth": [1, 2, 3]},
    "gemma4_text": {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 99, "num_kv_shared_layers": 0},
    "longcat_flash": {"q_lora_rank": 16, "kv_lora_rank": 16, "expert_ffn_hidden_size": 16, "zero_expert_num": 2},
    "bamba": {**MAMBA, "attn_layer_indices": [1]},
    "granitemoehybrid": {**MAMBA, **HYBRID},
    "falcon_h1": {**MAMBA, "mamba_d_ssm": 64},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 2, "state_size": 8, "chunk_size": 8},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 32},
    },
    "dots1": {"n_shared_experts": 1, "n_routed_experts": 4, "num_experts_per_tok": 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"], "num_dense_layers": 1},
    "esm": {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32},
    "deepseek_v2": {"num_experts_per_tok": 2, "n_routed_experts": 4, "topk_method": "greedy"},
    "donut-swin": SWIN,
    "maskformer-swin": SWIN,
    "swin": SWIN,
    "swinv2": {"window_size": 4},
    "esmc": {"num_key_value_heads": 4},
    "glm5_next_text": {"num_key_value_heads": 4, **HYBRID, **LINEAR, **INDEX},
    "dots3_note_text": {"num_key_value_heads": 4},
    "gemma3n_text": {"intermediate_size": 64, "num_kv_shared_layers": 0, "vocab_size_per_layer_input": 99},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_layers": 2},
    "hunyuan_v1_dense": HEAD_DIM,
    "hunyuan_v1_moe": HEAD_DIM,
    "hunyuan_vl_text": {**HEAD_DIM, "rope_parameters": {**MROPE["rope_parameters"], "mrope_section": [1, 1, 1, 1]}},
    "ministral": HEAD_DIM,
    "nemotron": {"num_key_value_heads": 2},
    "reformer": {"axial_pos_embds": False, "attn_layers": ["local", "lsh", "local"], "num_buckets": 4},
    "zamba": {**ZAMBA, "attention_hidden_size": 64, "attention_head_dim": 16, "mamba_dt_rank": 4},
    "zamba2": {**ZAMBA, "n_mamba_heads": 8, "mamba_headdim": 8, "mamba_d_state": 8, "chunk_size": 8},
    "perceiver": {"num_latents": 8, "num_self_attends_per_block": 2, "num_cross_attention_heads": 1, "d_model": 32},
    "speech_to_text": {"conv_channels": 32},
    "timm_wrapper": {"architecture": "resnet10t"},
    "bit": {"embedding_size": 32, "num_groups": 4},
    "efficientnet": {"image_size": 64, "width_coefficient": 0.5, "depth_coefficient": 0.5, "hidden_dim": 640},
    "jamba": {"attn_layer_period": 3, "attn_layer_offset": 2},
    "qwen3_next": HYBRID,
    "qwen3_5_text": HYBRID,
    "qwen3_5_moe_text": HYBRID,
    "qwen4_exp_text": {**HYBRID, **INDEXER, "hc_lowrank": 8},
    "kimi_linear": {"num_experts_per_token": 2, **HYBRID},
    "bailing_hybrid": {"num_experts_per_token": 2, "num_expert_group": 1, **HYBRID},
    "glm4v_text": MROPE,
    "glm_image_text": MROPE,
    "glm_ocr_text": MROPE,
    "qwen2_vl_text": MROPE,
    "cosmos3_edge_text": MROPE,
    "qwen2_5_vl_text": MROPE,
    "lilt": {"hidden_size": 48},  # a sixth of it for each coordinate of a box
    "mistral4": {"head_dim": 16},  # the parts with and without position together
    "glm4v_moe_text": {"head_dim": 16, "rope_parameters": {**MROPE["rope_parameters"], "partial_rotary_factor": 0.5}},
    "textnet": {"stem_out_channels": 16},
    "hgnet_v2": HGNET,
    "rt_detr": RT_DETR,
    "rt_detr_v2": RT_DETR,
    "sam2_hiera_det_model": {"hidden_size": 16, "embed_dim_per_stage": [16, 32, 64, 128]},
    "sam2_vision_model": {"backbone_channel_list": [128, 64, 32, 16]},
    "sew": {"conv_dim": [8] * 13},
    "sew-d": {"conv_dim": [8] * 13},
    "xmod": {"default_language": "en_XX"},
    "rwkv": {"use_cache": False},  # in eval mode the model writes its state in place, and has no backward of its own
    "mimi": {"hidden_size": 64, "num_filters": 8, "upsample_groups": 64, "codebook_size": 32},
}
