"""PEFT over expanded models whose weights transformers renames or puts together as it reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import map_features, token_features
from models import PATCHES, hugging
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from mi2p_inject import SourceFeatures, inject
from mi2p_inject.testing.randomize import randomize_zero_parameters

MIXTRAL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
MIXTRAL |= {"num_key_value_heads": 1, "num_local_experts": 2, "vocab_size": 60}
GENERATOR = torch.Generator().manual_seed(0)
CASES = {
    "vit": (
        hugging("ViTForImageClassification", {**PATCHES, "num_labels": 3}),
        token_features(2),
        {"pixel_values": torch.randn(2, 3, PATCHES["image_size"], PATCHES["image_size"], generator=GENERATOR)},
    ),
    "mixtral": (
        hugging("MixtralForCausalLM", MIXTRAL),
        map_features(2),
        {"input_ids": torch.randint(0, 60, (2, 5), generator=GENERATOR)},
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.fault(
    "S2",
    "LoRA over an expanded model whose weights transformers converts at loading (ViT, mixtures of experts)",
    "trained, saved, loaded as on the backbone",
)
def test_weights_that_are_converted(name: str, tmp_path: Path) -> None:
    build, source, inputs = CASES[name]
    expanded = expander(build, source)
    assert getattr(expanded(), expanded().base_model_prefix) is not None
    peft = get_peft_model(expanded(), LoraConfig(target_modules="all-linear", init_lora_weights=False))

    def logits(model: nn.Module) -> Tensor:
        return model(**inputs, source=source).logits  # type: ignore[no-any-return]

    after = logits(peft)
    assert not torch.allclose(after, logits(expanded()), atol=1e-4)
    peft.save_pretrained(tmp_path)
    torch.testing.assert_close(logits(PeftModel.from_pretrained(expanded(), str(tmp_path))), after)


def expander(build: Callable[[], nn.Module], source: SourceFeatures) -> Callable[[], nn.Module]:
    def expanded() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            me = inject(build(), source_spec=source.spec)
            randomize_zero_parameters(me.units)
        return me

    return expanded
