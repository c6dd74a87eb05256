"""What `pathway` and `load_pathway` refuse, before anything changes, and what their summary says was left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import transformers as T
from helpers import complains
from pathway_models import HF, built, timm_vit
from torch import nn
from torch.nn.utils import prune

from mi2p_inject import load_pathway, pathway
from mi2p_inject.core.errors import CheckpointError, PathwayError


def pair(**options: Any) -> Any:
    return pathway(built("vit"), auxiliary=built("bert", seed=1), **options)


class TestBadInput:
    def test_other_widths(self) -> None:
        aux = T.BertModel(T.BertConfig(**{**HF, "intermediate_size": 48}, vocab_size=40))
        with complains(PathwayError, "different widths", r"\(64, 32\)", r"\(48, 32\)"):
            pathway(built("vit"), auxiliary=aux)

    def test_models_without_blocks(self) -> None:
        with complains(PathwayError, "not described", "vit"):
            pathway(timm.create_model("resnet10t"), auxiliary=built("bert"))

    @pytest.mark.parametrize(
        "blocks",
        [
            [],
            [2],
            [(0, 2)],
            [0, 0],
            [-3],
            0,
            "01",
            ["0"],
            [0.0],
            [True],
            [None],
            [(0,)],
            [(0, 0, 1)],
            [[0, "1"]],
            {0: 1},
        ],
    )
    def test_blocks_that_are_not_there(self, blocks: Any) -> None:
        model = built("vit")
        with complains(PathwayError, "blocks="):
            pathway(model, auxiliary=built("bert"), blocks=blocks)
        assert not any("parametrizations" in key for key in model.state_dict())

    def test_pairs_may_be_lists_and_numbers_numpy_s(self, tmp_path: Path) -> None:
        pw = pair(blocks=[[np.int64(0), -1], (1, 0)])
        assert pw.blocks == ((0, 1), (1, 0))
        pw.save_pretrained(tmp_path)
        assert load_pathway(tmp_path, model=built("vit"), auxiliary=built("bert")).blocks == pw.blocks
        assert pair(blocks=(number for number in range(2))).blocks == ((0, 0), (1, 1))

    def test_an_empty_name_of_a_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with complains(CheckpointError, "named by a string"):
            pair().save_pretrained("")
        assert not list(tmp_path.iterdir())

    def test_what_is_no_model_or_no_bool(self) -> None:
        with complains(PathwayError, "auxiliary is no model", "str"):
            pathway(built("vit"), auxiliary="bert-base-uncased")  # type: ignore[arg-type]
        with complains(PathwayError, "model is no model", "BertModel"):
            pathway(T.BertModel, auxiliary=built("vit"))  # type: ignore[arg-type]
        model = built("vit")
        with complains(PathwayError, "train_auxiliary", "'no'"):
            pathway(model, auxiliary=built("bert"), train_auxiliary="no")  # type: ignore[arg-type]
        assert not any("parametrizations" in key for key in model.state_dict())

    def test_twice_and_with_itself(self) -> None:
        model = built("vit")
        with complains(PathwayError, "share parameters"):
            pathway(model, auxiliary=model)
        pathway(model, auxiliary=built("bert"))
        with complains(PathwayError, "parametrized already"):
            pathway(model, auxiliary=built("bert"))

    def test_infinite_or_of_another_dtype(self) -> None:
        aux = built("bert")
        with torch.no_grad():
            aux.encoder.layer[1].output.dense.weight[0, 0] = torch.inf
        with complains(PathwayError, "not finite"):
            pathway(built("vit"), auxiliary=aux)
        with complains(PathwayError, "float16"):
            pathway(built("vit"), auxiliary=built("bert").half())


def wrapped_by_lora(model: nn.Module) -> None:
    peft = pytest.importorskip("peft")
    layer = "qkv" if hasattr(model, "blocks") else "query"
    peft.inject_adapter_in_model(peft.LoraConfig(target_modules=[layer], r=2), model)


def first_linear(model: nn.Module) -> nn.Module:
    return model.get_submodule("blocks.0.mlp.fc1" if hasattr(model, "blocks") else "encoder.layer.0.output.dense")


WRAPPED = {
    "lora": wrapped_by_lora,
    "weight norm": lambda model: nn.utils.weight_norm(first_linear(model)),
    "pruned": lambda model: prune.random_unstructured(first_linear(model), "weight", 0.5),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("how", WRAPPED)
def test_a_layer_that_something_wraps_is_not_left_out_in_silence(how: str) -> None:
    for which in (0, 1):
        models = [built("vit"), built("bert")]
        WRAPPED[how](models[which])
        before = list(models[0].state_dict())
        with complains(PathwayError, r"(fc1|qkv|query|output\.dense).*no weight of its own"):
            pathway(models[0], auxiliary=models[1])
        assert list(models[0].state_dict()) == before


def test_a_weight_that_is_no_plain_parameter() -> None:
    ao = pytest.importorskip("torchao.quantization")
    for which in (0, 1):
        models = [built("vit"), built("bert")]
        ao.quantize_(models[which], ao.Int8WeightOnlyConfig())
        with complains(PathwayError, "no plain parameter"):
            pathway(models[0], auxiliary=models[1])
    with complains(PathwayError, "meta device"):
        pathway(built("vit"), auxiliary=built("bert").to("meta"))


def test_layers_that_share_a_weight() -> None:
    """Folded, both would have the sum of the first and that of the second."""
    model = built("vit")
    model.blocks[1].mlp.fc1.weight = model.blocks[0].mlp.fc1.weight
    with complains(PathwayError, r"blocks\.0\.mlp\.fc1\.weight", "share a weight", r"blocks\.1\.mlp\.fc1\.weight"):
        pathway(model, auxiliary=built("bert"))
    auxiliary = built("bert")
    auxiliary.encoder.layer[1].output.dense.weight = auxiliary.encoder.layer[0].output.dense.weight
    pathway(built("vit"), auxiliary=auxiliary)


def test_the_summary_names_the_layers_of_a_block_that_were_left_out() -> None:
    gated = timm_vit("vit_tiny_patch16_224", mlp_layer=timm.layers.SwiGLU)
    text = pathway(gated, auxiliary=built("bert")).summary()
    assert "left out: blocks.0.mlp.fc1_g, blocks.1.mlp.fc1_g\n" in text
    assert "left out" not in pair().summary()


def test_models_of_a_narrower_dtype_round_nothing(tmp_path: Path) -> None:
    pair().save_pretrained(tmp_path)
    model = built("vit").bfloat16()
    with complains(CheckpointError, "rounded", "float32", "bfloat16"):
        load_pathway(tmp_path, model=model, auxiliary=built("bert").bfloat16())
    assert not any("parametrizations" in key for key in model.state_dict())
    assert load_pathway(tmp_path, model=built("vit").double(), auxiliary=built("bert").double()).blocks
