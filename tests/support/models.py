"""Tiny real models, random weights: one at least for every class of every adapter, and headed or wrapped ones.

from models import TINY
tiny = TINY["bert"]
model, (args, kwargs) = tiny.build(), tiny.inputs(2, seed=0)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import open_clip.modified_resnet as clip_resnet
import open_clip.transformer as clip_towers
import timm.models as tm
import torch
import transformers as hf
from model_inputs import (
    CLIP_TEXT,
    CLS,
    EOT,
    FRAMES,
    MELS,
    PAD,
    PIXELS,
    VOCABULARY,
    InputMaker,
    clip_text,
    hf_clip_text,
    ids,
    image,
    pixel_values,
    small_image,
    small_pixel_values,
    spectrogram,
    text,
    text_left,
    wave,
)
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn

from benchmarks.sweep import tiny_clip

# On models this small a second thread only costs, eight times the time where the cores are shared.
torch.set_num_threads(1)


@dataclass(frozen=True)
class TinyModel:
    """A model that some `adapter` matches: how to build it, its inputs, and where in it the encoder stands."""

    adapter: str
    build: Callable[[], nn.Module]
    inputs: InputMaker
    root: str = ""


def seeded(make: Callable[..., nn.Module], *args: Any, **kwargs: Any) -> Callable[[], nn.Module]:
    """A factory that gives the same weights each time, in eval mode, and leaves the random state alone."""

    def build() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            model = make(*args, **kwargs)
            # Some architectures start as the identity (zero-initialised last norms, layer scales of 1e-6): a test
            # that looks for a site's effect would find none.
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.abs().max() < 1e-3:
                        parameter.normal_(0, 0.1)
            return model.eval()

    return build


TRANSFORMER = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 32}
SPECIAL = {
    "vocab_size": VOCABULARY,
    "pad_token_id": PAD,
    "bos_token_id": CLS,
    "cls_token_id": CLS,
    "sep_token_id": EOT,
    "eos_token_id": EOT,
}
WORDS = {**SPECIAL, "max_position_embeddings": 40}
BERT = {**TRANSFORMER, **WORDS}
DISTILBERT = {**WORDS, "dim": 24, "n_layers": 3, "n_heads": 4, "hidden_dim": 32}
DEBERTA = {**BERT, "relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]}
XLNET = {**SPECIAL, "d_model": 24, "n_layer": 3, "n_head": 4, "d_inner": 32}
PATCHES = {**TRANSFORMER, "image_size": PIXELS // 2, "patch_size": 8}
YOLOS = {**PATCHES, "image_size": [PIXELS // 2] * 2, "num_detection_tokens": 5}
PVT_V2 = {
    "image_size": PIXELS,
    "depths": [1, 1, 2, 1],
    "hidden_sizes": [8, 16, 24, 32],
    "num_attention_heads": [1, 2, 2, 4],
}
SPECTROGRAM = {**TRANSFORMER, "patch_size": 8, "frequency_stride": 8, "time_stride": 8}
SPECTROGRAM |= {"max_length": FRAMES, "num_mel_bins": MELS}
SPEECH = {
    **TRANSFORMER,
    "vocab_size": VOCABULARY,
    "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    # Layer-drop and SpecAugment draw at random in train mode, the latter from numpy: off, but for LAYER_DROP below.
    "layerdrop": 0.0,
    "mask_time_prob": 0.0,
}
VIT = {"img_size": PIXELS // 2, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 4}
EVA = {**VIT, "num_heads": 3, "use_rot_pos_emb": True, "num_reg_tokens": 2}
SWIN = {"img_size": PIXELS, "window_size": 2, "embed_dim": 12, "depths": (1, 2, 1, 1), "num_heads": (2, 2, 4, 4)}
HF_SWIN = {"image_size": PIXELS, "window_size": 2, "embed_dim": 12, "depths": [1, 2, 1, 1], "num_heads": [2, 2, 4, 4]}
CONVNEXT = {"depths": (1, 1, 2, 1), "dims": (8, 12, 16, 24)}
HF_CONVNEXT = {"depths": [1, 1, 2, 1], "hidden_sizes": [8, 12, 16, 24], "image_size": PIXELS}
DENSENET = {"growth_rate": 8, "block_config": (2, 2, 2, 2)}
RESNET = {"layers": (1, 1, 2, 1), "channels": (8, 12, 16, 24)}
WINDOWS = {"stages": (1, 1, 2, 1), "embed_dim": 12, "mask_unit_size": (4, 4)}
HF_WINDOWS = {"image_size": [PIXELS] * 2, "depths": [1, 1, 2, 1], "embed_dim": 12, "mlp_ratio": 2.0}
COAT = {"embed_dims": (16, 16, 24, 24), "serial_depths": (1, 1, 2, 1), "num_heads": 8, "mlp_ratios": (2, 2, 2, 2)}
COAT |= {"patch_size": 4}
CROSSVIT = {"embed_dim": (16, 24), "num_heads": (2, 2), "depth": ((1, 2, 0),) * 3, "mlp_ratio": (2.0, 2.0, 1.0)}
CROSSVIT |= {"img_scale": (1.0, 1.0), "patch_size": (8, 16)}
HRNET: dict[str, Any] = {"stem_width": 8} | {
    f"stage{number}": {
        "num_modules": 1,
        "num_branches": number,
        "block_type": "BASIC",
        "num_blocks": (1,) * number,
        "num_channels": (8, 12, 16, 24)[:number],
        "fuse_method": "SUM",
    }
    for number in range(1, 5)
}
STAGES = ["ds_r1_k3_s1_e1_c8", "ir_r2_k3_s2_e2_c8", "ir_r1_k3_s2_e2_c12", "ir_r1_k3_s2_e2_c16", "ir_r1_k3_s1_e2_c16"]
CLIP_TOWER = {"width": 24, "layers": 3, "heads": 4, "mlp_ratio": 2.0, "output_dim": 16}
CLIP_IMAGE = {**CLIP_TOWER, "image_size": PIXELS // 2, "patch_size": 8}
CLIP_WORDS = {**CLIP_TOWER, "context_length": CLIP_TEXT, "vocab_size": VOCABULARY}


def hugging(cls: str, fields: dict[str, Any]) -> Callable[[], nn.Module]:
    """A factory of a transformers model from the fields of its configuration."""

    def make() -> nn.Module:
        chosen = getattr(hf, cls)
        model: nn.Module = chosen(chosen.config_class(**fields))
        return model

    return seeded(make)


def efficientnet(**options: Any) -> nn.Module:
    stages = decode_arch_def([[stage] for stage in STAGES])
    return tm.EfficientNet(stages, stem_size=8, num_features=24, **options)


def resnet(block: Any = BasicBlock, **options: Any) -> nn.Module:
    return tm.ResNet(block, **{**RESNET, **options})


class Wrapped(nn.Module):
    """A user's own model around an encoder, with a head."""

    def __init__(self, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(width, 5)

    def forward(self, pixels: Tensor) -> Tensor:
        out: Tensor = self.head(self.encoder(pixels))
        return out


def own(name: str, make: Callable[..., nn.Module], inputs: InputMaker, *args: Any, **options: Any) -> TinyModel:
    return TinyModel(name, seeded(make, *args, **options), inputs)


# Names are the adapter's, or adapter/variant for a second class or another form of the same one.
TIMM: dict[str, TinyModel] = {
    "densenet": own("densenet", tm.DenseNet, image, **DENSENET, num_classes=0),
    "resnet": own("resnet", resnet, image, num_classes=0),
    "resnet/bottleneck": own("resnet", resnet, image, Bottleneck, channels=(4, 4, 8, 8), num_classes=0),
    "convnext": own("convnext", tm.ConvNeXt, image, **CONVNEXT, num_classes=0),
    "efficientnet": own("efficientnet", efficientnet, image, num_classes=0),
    "vit": own("vit", tm.VisionTransformer, small_image, **VIT, num_classes=0),
    "vit/distilled": own("vit", tm.VisionTransformerDistilled, small_image, **VIT, num_classes=0),
    "vit/registers": own("vit", tm.VisionTransformer, small_image, **VIT, num_classes=0, reg_tokens=4),
    "eva": own("eva", tm.Eva, small_image, **EVA, num_classes=0),
    "swin": own("swin", tm.SwinTransformer, image, **SWIN, num_classes=0),
    "hiera": own("hiera", tm.Hiera, image, **WINDOWS, img_size=(PIXELS, PIXELS), num_classes=0),
    "hrnet": own("hrnet", tm.HighResolutionNet, image, HRNET, num_classes=0),
    "coat": own("coat", tm.CoaT, image, **COAT, img_size=PIXELS, num_classes=0),
    "coat/parallel": own(
        "coat", tm.CoaT, image, **{**COAT, "embed_dims": (16,) * 4}, parallel_depth=1, img_size=PIXELS
    ),
    "crossvit": own("crossvit", tm.CrossVit, image, **CROSSVIT, img_size=PIXELS, num_classes=0),
    "swin/v2": own("swin", tm.SwinTransformerV2, image, **SWIN, num_classes=0),
}
if hasattr(tm, "EfficientViM"):  # not in the oldest timm that is supported
    TIMM["efficientvim"] = own(
        "efficientvim", tm.EfficientViM, image, embed_dim=(16, 24, 32), depths=(1, 1, 1), num_classes=0
    )
OPEN_CLIP: dict[str, TinyModel] = {
    "clip_resnet": own("clip_resnet", clip_resnet.ModifiedResNet, image, (1, 1, 1, 1), 16, 4, PIXELS, 4),
    "clip_vit": own("clip_vit", clip_towers.VisionTransformer, small_image, **CLIP_IMAGE),
    "clip_hf_text": own("clip_hf_text", partial(tiny_clip.build, "roberta-ViT-B-32/text"), ids),
    "clip_text/coca": own("clip_text", clip_towers.TextTransformer, clip_text, **CLIP_WORDS, embed_cls=True),
    "clip_text": own("clip_text", clip_towers.TextTransformer, clip_text, **CLIP_WORDS),
}
HF: dict[str, tuple[str, dict[str, Any], InputMaker]] = {
    "bert": ("BertModel", BERT, text),
    "roberta": ("RobertaModel", BERT, text),
    "roberta/xlm": ("XLMRobertaModel", BERT, text),
    "roberta/camembert": ("CamembertModel", BERT, text),
    "distilbert": ("DistilBertModel", DISTILBERT, text),
    "mpnet": ("MPNetModel", BERT, text),
    "deberta_v2": ("DebertaV2Model", DEBERTA, text),
    "deberta_v2/convolution": ("DebertaV2Model", {**DEBERTA, "conv_kernel_size": 3, "conv_act": "gelu"}, text),
    "modernbert": ("ModernBertModel", BERT, text),
    "xlnet": ("XLNetModel", XLNET, text_left),
    "hf_vit": ("ViTModel", PATCHES, small_pixel_values),
    "hf_deit": ("DeiTModel", PATCHES, small_pixel_values),
    "hf_dinov2": ("Dinov2Model", PATCHES, small_pixel_values),
    "hf_dinov2_registers": ("Dinov2WithRegistersModel", {**PATCHES, "num_register_tokens": 4}, small_pixel_values),
    "hf_yolos": ("YolosModel", YOLOS, small_pixel_values),
    "hf_pvt_v2": ("PvtV2Model", PVT_V2, pixel_values),
    "hf_swin": ("SwinModel", HF_SWIN, pixel_values),
    "hf_hiera": ("HieraModel", HF_WINDOWS, pixel_values),
    "hf_convnext": ("ConvNextModel", HF_CONVNEXT, pixel_values),
    "hf_convnext/v2": ("ConvNextV2Model", HF_CONVNEXT, pixel_values),
    "wav2vec2": ("Wav2Vec2Model", SPEECH, wave),
    "wav2vec2/stable": ("Wav2Vec2Model", {**SPEECH, "do_stable_layer_norm": True}, wave),
    "wav2vec2/hubert": ("HubertModel", SPEECH, wave),
    "ast": ("ASTModel", SPECTROGRAM, spectrogram),
    "hf_clip_image": ("CLIPVisionModel", PATCHES, small_pixel_values),
    "hf_clip_text": ("CLIPTextModel", BERT, hf_clip_text),
}
HF_HEADS = {  # entry of HF -> where the encoder stands, and in what
    "bert": ("bert", "BertForSequenceClassification"),
    "roberta": ("roberta", "RobertaForSequenceClassification"),
    "roberta/xlm": ("roberta", "XLMRobertaForTokenClassification"),
    "distilbert": ("distilbert", "DistilBertForSequenceClassification"),
    "mpnet": ("mpnet", "MPNetForSequenceClassification"),
    "deberta_v2": ("deberta", "DebertaV2ForSequenceClassification"),
    "modernbert": ("model", "ModernBertForSequenceClassification"),
    "xlnet": ("transformer", "XLNetForSequenceClassification"),
    "hf_vit": ("vit", "ViTForImageClassification"),
    "hf_deit": ("deit", "DeiTForImageClassification"),
    "hf_dinov2": ("dinov2", "Dinov2ForImageClassification"),
    "hf_dinov2_registers": ("dinov2_with_registers", "Dinov2WithRegistersForImageClassification"),
    "hf_yolos": ("vit", "YolosForObjectDetection"),
    "hf_pvt_v2": ("pvt_v2", "PvtV2ForImageClassification"),
    "hf_swin": ("swin", "SwinForImageClassification"),
    "hf_convnext": ("convnext", "ConvNextForImageClassification"),
    "wav2vec2": ("wav2vec2", "Wav2Vec2ForCTC"),
    "wav2vec2/hubert": ("hubert", "HubertForSequenceClassification"),
    "ast": ("audio_spectrogram_transformer", "ASTForAudioClassification"),
    "hf_clip_image": ("vision_model", "CLIPVisionModelWithProjection"),
    "hf_clip_text": ("text_model", "CLIPTextModelWithProjection"),
}

TINY: dict[str, TinyModel] = {
    **TIMM,
    **{name: TinyModel(name.split("/")[0], hugging(cls, fields), inputs) for name, (cls, fields, inputs) in HF.items()},
    **OPEN_CLIP,
}
HEADED: dict[str, TinyModel] = {
    "densenet": own("densenet", tm.DenseNet, image, **DENSENET, num_classes=5),
    "resnet": own("resnet", resnet, image, num_classes=5),
    "convnext": own("convnext", tm.ConvNeXt, image, **CONVNEXT, num_classes=5),
    "efficientnet": own("efficientnet", efficientnet, image, num_classes=5),
    "vit": own("vit", tm.VisionTransformer, small_image, **VIT, num_classes=5),
    "swin": own("swin", tm.SwinTransformer, image, **SWIN, num_classes=5),
    "wrapped": TinyModel("resnet", seeded(lambda: Wrapped(resnet(num_classes=0), 24)), image, "encoder"),
    **{
        name: TinyModel(name.split("/")[0], hugging(cls, {**HF[name][1], "num_labels": 3}), HF[name][2], root)
        for name, (root, cls) in HF_HEADS.items()
    },
}
LAYER_DROP = TinyModel("wav2vec2", hugging("Wav2Vec2Model", {**SPEECH, "layerdrop": 0.5}), wave)
"""In train mode it skips about half of its layers, other ones each time."""
