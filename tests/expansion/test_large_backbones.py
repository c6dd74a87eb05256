"""Backbones too large for one place: quantised to 4 and 8 bits, offloaded, with units of a type of their own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
import transformers as hf
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from helpers import complains, same
from torch import Tensor, nn

from mi2p_inject import ExpandedModel, SourceFeatures, ViewSpec, inject, load
from mi2p_inject.core.errors import CheckpointError, LayoutError, SiteError
from mi2p_inject.core.weights.offload import computing_devices

IDS = torch.arange(12).view(2, 6) + 3
PICTURE = ViewSpec.map(8, 2, 2)


def decoder() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "vocab_size": 60, "num_hidden_layers": 2}
    config = hf.LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2)
    return hf.LlamaForCausalLM(config).to(torch.bfloat16).eval()


def torchao(config: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        quantization = pytest.importorskip("torchao.quantization")
        model = decoder()
        quantization.quantize_(model.model, getattr(quantization, config)(**options))
        return model

    return build


def bitsandbytes(layer: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        kinds = pytest.importorskip("bitsandbytes").nn
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        model = decoder()
        for path, module in list(model.model.named_modules()):  # type: ignore[union-attr, operator]
            if isinstance(module, nn.Linear):
                made = getattr(kinds, layer)(module.in_features, module.out_features, bias=False, **options)
                made.load_state_dict(module.state_dict())
                parent, _, name = path.rpartition(".")
                setattr(model.model.get_submodule(parent), name, made)  # type: ignore[union-attr, operator]
        return model.to("cpu").eval()  # where its layers quantise their weights

    return build


_NF4 = {"quant_type": "nf4", "compute_dtype": torch.bfloat16}
QUANTISED = {
    "torchao 8 bit": torchao("Int8WeightOnlyConfig"),
    "torchao 4 bit": torchao("IntxWeightOnlyConfig", weight_dtype=torch.int4),
    "bitsandbytes 8 bit": bitsandbytes("Linear8bitLt", has_fp16_weights=False),
    "bitsandbytes 4 bit": bitsandbytes("Linear4bit", **_NF4, compress_statistics=False),
    "bitsandbytes 4 bit, scales too": bitsandbytes("Linear4bit", **_NF4),
}


def source() -> SourceFeatures:
    return SourceFeatures(torch.randn(2, 8, 2, 2, generator=torch.Generator().manual_seed(1)))


def expanded(model: nn.Module, dtype: torch.dtype = torch.float32) -> ExpandedModel:
    torch.manual_seed(0)
    me = inject(model, layers="paper", source_spec=PICTURE, trainable="units")
    me.units.to(dtype)
    return me


def losses(me: ExpandedModel, steps: int = 3) -> list[float]:
    optimizer = torch.optim.AdamW(me.trainable_parameters(), lr=1e-2)
    found = []
    for _ in range(steps):
        loss: Tensor = me(IDS, source=source(), labels=IDS).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def logits(me: nn.Module, **given: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = me(IDS, **given).logits
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", QUANTISED)
@pytest.mark.fault("quantised", "units trained on a base of 4 or 8 bits", "trained, saved and loaded as they were")
def test_units_train_on_a_quantised_base(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = QUANTISED[kind]()
    alone = logits(model)
    me = expanded(model, dtype)
    same(logits(me, source=source()), alone)
    found = losses(me)
    assert found[-1] < found[0]
    same(logits(me), alone)
    me.state_dict()
    me.save_pretrained(tmp_path)
    same(logits(me), alone)
    again = load(tmp_path, backbone=QUANTISED[kind]())
    assert {one.dtype for one in again.units.parameters()} == {dtype}
    same(dict(again.units.state_dict()), dict(me.units.state_dict()))
    same(logits(again, source=source()), logits(me, source=source()))


@pytest.mark.parametrize("kind", [kind for kind in QUANTISED if kind.startswith("bitsandbytes 4")])
@pytest.mark.fault("quantised", "a base of 4 bits of which the rest is trained", "saved and loaded as it was")
def test_what_is_trained_beside_weights_in_four_bits(kind: str, tmp_path: Path) -> None:
    me = inject(QUANTISED[kind](), layers="paper", source_spec=PICTURE, trainable="all")
    found = losses(me)
    assert found[-1] < found[0]
    trained = logits(me, source=source())
    me.save_pretrained(tmp_path)
    same(logits(me, source=source()), trained)
    used = QUANTISED[kind]()
    logits(used)
    for backbone in (QUANTISED[kind](), used):
        same(logits(load(tmp_path, backbone=backbone), source=source()), trained)


def offload(model: nn.Module, how: str, folder: Path) -> nn.Module:
    if how == "memory":
        return accelerate.cpu_offload(model, execution_device="cpu")  # type: ignore[no-any-return]
    return accelerate.disk_offload(model, str(folder / "weights"), execution_device="cpu")  # type: ignore[no-any-return]


@pytest.mark.parametrize("how", ["memory", "disk"])
@pytest.mark.fault("calls", "units trained on a base that accelerate offloads", "trained, saved, verified at load")
def test_units_train_on_an_offloaded_base(how: str, tmp_path: Path) -> None:
    plain = expanded(decoder())
    me = expanded(offload(decoder(), how, tmp_path))
    assert losses(me) == losses(plain)
    me.save_pretrained(tmp_path / "units")
    for backbone in (decoder(), offload(decoder(), how, tmp_path)):  # the checksums are those of the weights themselves
        again = load(tmp_path / "units", backbone=backbone)
        same(logits(again, source=source()), logits(plain, source=source()))
    other = decoder()
    other.model.norm.weight.data.mul_(2)  # type: ignore[union-attr, operator]
    with complains(CheckpointError, "another backbone", "model.norm.weight"):
        load(tmp_path / "units", backbone=offload(other, how, tmp_path / "other"))


@pytest.mark.fault("calls", "an offloaded base, trainable='all'", "CheckpointError: what an offloaded base can do")
def test_an_offloaded_base_is_not_saved_whole(tmp_path: Path) -> None:
    me = inject(offload(decoder(), "memory", tmp_path), source_spec=PICTURE)
    with complains(CheckpointError, "offloaded", 'trainable="units"'):
        me.save_pretrained(tmp_path / "all")
    assert not list(tmp_path.iterdir())


@pytest.mark.fault(
    "calls", "a device map that spreads one site over devices", "SiteError: names the block to keep whole"
)
def test_a_device_map_through_a_site() -> None:
    model = decoder()
    layer = model.get_submodule("model.layers.1")
    for name, device in (("self_attn.q_proj", "cuda:0"), ("mlp.up_proj", "cuda:1")):  # as dispatch_model leaves it
        module = layer.get_submodule(name)
        hook = AlignDevicesHook(execution_device=device, offload=True, weights_map=module.state_dict())
        add_hook_to_module(module, hook)
    assert [str(one) for one in computing_devices(model, "model.layers.1")] == ["cuda:0", "cuda:1"]
    with complains(SiteError, "model.layers.1", "cuda:0, cuda:1", "no_split_module_classes", "LlamaDecoderLayer"):
        inject(model, layers=[1], source_spec=PICTURE)
    assert not computing_devices(model, "model.layers.0")


class StaticallyQuantised(nn.Module):
    """A convolution whose input and output are quantised numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = torch.ao.quantization.QuantStub(), torch.ao.quantization.DeQuantStub()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.dequant(self.conv(self.quant(x)))
        return found


@pytest.mark.filterwarnings("ignore")  # torch.ao is to move to torchao
@pytest.mark.fault("quantised", "a site whose output is a quantised tensor", "LayoutError: names a floating one")
def test_a_site_that_gives_quantised_numbers() -> None:
    torch.manual_seed(0)
    model, x = StaticallyQuantised().eval(), torch.randn(2, 3, 8, 8)
    torch.backends.quantized.engine = [one for one in torch.backends.quantized.supported_engines if one != "none"][-1]
    model.qconfig = torch.ao.quantization.get_default_qconfig(torch.backends.quantized.engine)
    torch.ao.quantization.prepare(model, inplace=True)
    model(x)
    torch.ao.quantization.convert(model, inplace=True)
    words = SourceFeatures(torch.randn(2, 5, 12))
    with complains(LayoutError, "conv", "quantised", "DeQuantStub"):
        inject(model, layers="conv", source_spec=words.spec, example_inputs=x)
    me = inject(model, layers="dequant", source_spec=words.spec, example_inputs=x)
    same(me(x, source=words), model(x))
