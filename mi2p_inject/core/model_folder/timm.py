"""What of a timm folder's ``config.json`` may reach timm."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from mi2p_inject.core.errors import ZooError
from mi2p_inject.core.model_folder.values import checked_fields, is_word

__all__ = ["checked_architecture", "checked_kwargs", "timm_config"]

_MAX_SIDE, _MAX_COUNT, _MAX_WIDTH = 8192, 1024, 2**20


def _whole(most: int, least: int = 0) -> Callable[[Any], bool]:
    return lambda one: isinstance(one, int) and not isinstance(one, bool) and least <= one <= most


def _number(one: Any) -> bool:
    return isinstance(one, (int, float)) and not isinstance(one, bool) and math.isfinite(one) and abs(one) <= _MAX_WIDTH


def _rate(one: Any) -> bool:
    return _number(one) and 0 <= one <= 1


def _flag(one: Any) -> bool:
    return isinstance(one, bool)


def _one_or_list(check: Callable[[Any], bool], depth: int = 2) -> Callable[[Any], bool]:
    def right(value: Any, level: int = depth) -> bool:
        if isinstance(value, (list, tuple)):
            return level > 0 and 0 < len(value) <= _MAX_COUNT and all(right(one, level - 1) for one in value)
        return check(value)

    return right


def _optional(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda one: one is None or check(one)


_SIDE, _COUNT, _WIDTH = (
    _one_or_list(_whole(_MAX_SIDE, 1)),
    _one_or_list(_whole(_MAX_COUNT)),
    _one_or_list(_whole(_MAX_WIDTH)),
)
_KINDS: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (_SIDE, "img_size patch_size window_size input_size output_stride"),
    (
        _COUNT,
        "depth depths layers num_layers block_config num_heads num_groups cardinality reg_tokens stem_depth groups"
        " kernel_sizes patch_stride num_stages",
    ),
    (
        _WIDTH,
        "embed_dim embed_dims dims channels growth_rate bn_size base_width stem_width stem_chs hidden_dim num_features",
    ),
    (
        _rate,
        "drop_rate pos_drop_rate patch_drop_rate proj_drop_rate attn_drop_rate drop_path_rate drop_block_rate"
        " head_drop_rate",
    ),
    (_one_or_list(_number), "mlp_ratio mlp_ratios init_values ls_init_value head_init_scale rd_ratio expand_ratio"),
    (
        _flag,
        "class_token no_embed_class dynamic_img_size dynamic_img_pad strict_img_size always_partition qkv_bias qk_norm"
        " pre_norm final_norm fc_norm replace_stem_pool avg_down conv_mlp use_grn zero_init_last fix_init"
        " use_abs_pos_emb use_rot_pos_emb ape conv_bias no_pool head_norm_first",
    ),
    (is_word, "global_pool act_layer norm_layer aa_layer stem_type pool_type weight_init pos_embed down_sample"),
)
_KWARGS = {name: _optional(check) for check, names in _KINDS for name in names.split()}
_THREE = _one_or_list(_number, 1)
#: of ``pretrained_cfg``: preprocessing and the names of first and last layers; not where weights come from
_PRETRAINED: dict[str, Callable[[Any], bool]] = {
    "num_classes": _whole(_MAX_WIDTH),
    **dict.fromkeys(("input_size", "test_input_size", "min_input_size", "pool_size"), _optional(_SIDE)),
    **dict.fromkeys(("mean", "std"), _THREE),
    **dict.fromkeys(("crop_pct", "test_crop_pct"), _optional(lambda one: _number(one) and 0 < one <= 2)),
    **dict.fromkeys(("crop_mode", "test_crop_mode", "interpolation", "architecture"), _optional(is_word)),
    **dict.fromkeys(("first_conv", "classifier"), _optional(_one_or_list(is_word, 1))),
    "fixed_input_size": _flag,
    "label_offset": _optional(_whole(1)),
}


def checked_architecture(name: Any) -> str:
    """The name of an architecture that timm knows; not a path, an address or a repository.

    Raises:
        ZooError: it is none.
    """
    import timm

    if not is_word(name) or not timm.is_model(name.partition(".")[0]):
        raise ZooError(
            f"{str(name)[:80]!r} is no timm architecture",
            expected="a name of timm.list_models()",
            given=type(name).__name__,
            fix="install the timm that the folder was written with",
        )
    return str(name)


def checked_kwargs(kwargs: Any, where: str) -> dict[str, Any]:
    """Arguments of a timm architecture, all of them known.

    Raises:
        ZooError: one is unknown (``checkpoint_path``, ``pretrained_cfg``, ...), of a wrong type or out of range.
    """
    checked: dict[str, Any] = checked_fields(kwargs, _KWARGS, where)
    return checked


def timm_config(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """``config.json`` of a timm folder with what describes the model: architecture, arguments, preprocessing.

    Raises:
        ZooError: an unknown architecture or argument; a wrong value.
    """
    nested = config.get("pretrained_cfg")
    pretrained = dict(nested) if isinstance(nested, dict) else dict(config)  # older folders have one level
    pretrained.setdefault("num_classes", config.get("num_classes", 1000))
    kept = {name: one for name, one in pretrained.items() if name in _PRETRAINED and one is not None}
    model_args = {name: one for name, one in (config.get("model_args") or {}).items() if name != "num_classes"}
    if model_args.pop("in_chans", 3) != 3:
        raise ZooError(f"{where}: the model does not read three channels", expected="in_chans 3", fix="name another")
    return {
        "architecture": checked_architecture(config.get("architecture")),
        "num_classes": kept["num_classes"],
        "pretrained_cfg": checked_fields(kept, _PRETRAINED, f"{where}: pretrained_cfg"),
        "model_args": checked_kwargs(model_args, f"{where}: model_args"),
    }
