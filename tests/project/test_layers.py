"""Models by name, what they offer as sites, and `mi2p layers`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers as hf
from helpers import complains
from models import BERT, PATCHES, SPEECH, TINY
from torch import Tensor, nn
from typer.testing import CliRunner

from mi2p_inject import Mi2pError, ViewSpec, inject
from mi2p_inject.core.errors import AdapterError, ProbeError, UnitError, ZooError
from mi2p_inject.core.zoo import build
from mi2p_inject.recipes.cli.app import app
from mi2p_inject.recipes.cli.layers import read_source
from mi2p_inject.report.survey import Candidate, survey

WORDS = ViewSpec.tokens(12)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Local folders of all three libraries, as their own tools write them."""
    root = tmp_path_factory.mktemp("models")
    TINY["bert"].build().save_pretrained(root / "bert")  # type: ignore[operator]
    timm.models.save_for_hf(timm.create_model("resnet10t", num_classes=3), root / "timm")
    vision = {"image_size": 32, "layers": 2, "width": 16, "patch_size": 16, "head_width": 8}
    text = {"context_length": 8, "vocab_size": 60, "width": 16, "heads": 2, "layers": 2}
    config = {"model_cfg": {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}, "preprocess_cfg": {}}
    (root / "clip").mkdir()
    (root / "clip" / "open_clip_config.json").write_text(json.dumps(config))
    (root / "empty").mkdir()
    (root / "broken").mkdir()
    (root / "broken" / "config.json").write_text("{")
    (root / "foreign").mkdir()
    code = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}}
    (root / "foreign" / "config.json").write_text(json.dumps(code))
    (root / "foreign" / "mine.py").write_text("raise SystemExit('executed')")
    return root


@pytest.mark.parametrize(
    ("name", "cls"),
    [("resnet18", "ResNet"), ("resnet18.a1_in1k", "ResNet"), ("timm:convnext_atto", "ConvNeXt"), ("bert", "BertModel"),
     ("BertForSequenceClassification", "BertForSequenceClassification"), ("transformers:vit", "ViTModel"),
     ("ViT-B-32/visual", "VisionTransformer"), ("ViT-B-32/text", "TextTransformer"),
     ("open_clip:convnext_base/visual", "TimmModel"), ("convnext_base", "ConvNeXt"), ("llama", "LlamaModel")],
)  # fmt: skip
def test_names(name: str, cls: str) -> None:
    model = build(name)
    assert type(model).__name__ == cls
    assert all(parameter.is_meta for parameter in model.parameters())
    assert not model.training


@pytest.mark.parametrize(
    ("name", "cls"),
    [("bert", "BertModel"), ("timm", "ResNet"), ("clip/visual", "VisionTransformer"), ("clip/text", "TextTransformer")],
)
@pytest.mark.parametrize("meta", [True, False])
def test_folders(folders: Path, name: str, cls: str, meta: bool) -> None:
    model = build(str(folders / name), meta)
    assert type(model).__name__ == cls
    assert {parameter.is_meta for parameter in model.parameters()} == {meta}


@pytest.mark.parametrize(
    ("name", "words"),
    [("desnenet121", "densenet121"), ("vit-b-32/text", "ViT-B-32/text"), ("timm:nope50", "timm:nope50"),
     ("", "no model is called"),
     ("open_clip:ViT-B-33/text", "ViT-B-32/text"), ("ViT-B-32", "ViT-B-32/visual"), ("open_clip:ViT-B-32", "/visual"),
     ("transformers:brt", "bert"), ("rag", "does not build"), ("./nowhere", "no model")],
)  # fmt: skip
def test_bad_names(name: str, words: str) -> None:
    with complains(ZooError, words):
        build(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [("empty", "no model's configuration"), ("broken", "no model's conf"), ("clip", "two modalities")],
)
def test_bad_folders(folders: Path, name: str, words: str) -> None:
    with complains(ZooError, words):
        build(str(folders / name))


def test_code_of_a_folder_is_never_run(folders: Path) -> None:
    with complains(ZooError, "foreign"):
        build(str(folders / "foreign"))


def test_a_hub_out_of_reach_is_our_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("somebody/some-bert", "timm/resnet50.nothing", "open_clip:somebody/some-clip/text"):
        with complains(ZooError, "does not build"):
            build(name)


def by_path(model: nn.Module, **options: Any) -> dict[str, Candidate]:
    return {one.path: one for one in survey(model, WORDS, **options).candidates}


@pytest.mark.parametrize("name", ["resnet", "swin", "vit", "bert", "xlnet", "hf_vit", "clip_text", "wav2vec2", "ast"])
def test_the_default_listing_is_what_inject_uses(name: str) -> None:
    model, (args, kwargs) = TINY[name].build(), TINY[name].inputs(2, 0)
    me = inject(model, layers="paper", source_spec=WORDS, example_inputs=kwargs or args)
    found = by_path(model, example_inputs=kwargs or args)
    assert all(one.default for one in found.values())
    usable = {path: one for path, one in found.items() if not one.reason}
    assert set(usable) == {site.path for site in me.sites}
    assert set(found) - set(usable) == set(me.expansion_config.left_out)
    for site in me.sites:
        one = usable[site.path]
        assert (one.layout, one.view) == (str(site.layout), site.spec)
        unit = me.unit(site.path)
        assert (one.unit, one.parameters) == (unit.describe(), sum(p.numel() for p in unit.parameters()))
        assert one.flops > 0


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.good, self.ignored, self.shared = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)
        self.unused, self.head = nn.Conv2d(3, 3, 1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.ignored(x)
        return self.head(self.shared(self.shared(self.good(x))).mean((2, 3)))


def test_all_modules_with_the_reasons() -> None:
    found = by_path(Odd(), every=True, example_inputs=torch.zeros(2, 3, 8, 9))
    assert "unused" not in found  # it does not run
    assert str(found["good"].view) == "map (B, 4, 6, 7)"
    for path, reason in (("ignored", "ignores"), ("shared", "2 times"), ("head", "neither a map nor tokens")):
        assert reason in found[path].reason
        assert not found[path].parameters


def test_all_modules_of_a_real_model_hold_the_default_ones() -> None:
    model = TINY["resnet"].build()
    every, default = by_path(model, every=True), by_path(model)
    assert default.items() <= every.items()
    assert not every["layer1.0.conv1"].default
    assert not every["layer1.0.conv1"].reason


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_a_class_token_head_is_found_out(device: str) -> None:
    fields = {**PATCHES, "num_labels": 3}
    with torch.device(device):
        model = hf.ViTForImageClassification(hf.ViTConfig(**fields)).eval()
    found = survey(model, WORDS)
    assert "patch tokens" in found.candidates[-1].reason
    assert not any(one.reason for one in found.candidates[:-1])


@pytest.mark.parametrize(("model", "error"), [(nn.Linear(2, 2), ProbeError), ("clip", AdapterError)])
def test_what_cannot_be_surveyed(model: Any, error: type[Mi2pError]) -> None:
    with complains(error):
        survey(build(model) if isinstance(model, str) else model, WORDS)


def test_seven_billion_parameters_allocate_nothing() -> None:
    model = build("llama")
    assert sum(parameter.numel() for parameter in model.parameters()) > 6e9
    me = inject(model, layers="paper", source_spec=ViewSpec.map(1024, 7, 7))
    assert len(me.sites) == 32
    assert all(tensor.is_meta for tensor in (*me.parameters(), *me.buffers()))


@pytest.mark.parametrize("bad", ["", "tokens", "tokens:", "tokens:x", "tokens:0", "map:3x4", "map:1x2x3x4", "tokens:²"])
def test_bad_source(bad: str) -> None:
    with complains(UnitError):
        read_source(bad)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["layers", *arguments])


def test_command(folders: Path) -> None:
    result = run("resnet18")
    assert result.exit_code == 0, result.output
    for words in ("ResNet", "layer4 *", "map (B, 512, 7, 7)", "FLOP", "adapter resnet"):
        assert words in result.stdout
    result = run(str(folders / "bert"), "--source", "map:8x3x3", "--all", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["source"] == {"kind": "map", "width": 8, "grid": [3, 3]}
    layers = [one for one in found["candidates"] if one["default"]]
    assert [one["path"] for one in layers] == [f"encoder.layer.{i}" for i in range(BERT["num_hidden_layers"])]
    assert len(found["candidates"]) > len(layers)
    pooler = next(one for one in found["candidates"] if one["path"] == "pooler")
    assert pooler["reason"]


@pytest.mark.parametrize(("name", "classes"), [("demo", ["EfficientNet", "BertModel"]), ("tiny:xlnet", ["XLNetModel"])])
def test_command_knows_the_encoders_of_trainings(name: str, classes: list[str]) -> None:
    shown = CliRunner().invoke(app, ["layers", name, "--json"])
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    assert [one["model"] for one in (found if isinstance(found, list) else [found])] == classes
    assert "no tiny text encoder" in CliRunner().invoke(app, ["layers", "tiny:nothing"]).output


@pytest.mark.parametrize("options", [(), ("--meta",)])
def test_command_checks_the_head(folders: Path, options: tuple[str, ...]) -> None:
    assert "patch tokens" in run(str(folders / "clip" / "visual"), *options).stdout


def test_command_on_a_model_that_looks_at_values(tmp_path: Path) -> None:
    fields = {**SPEECH, "vocab_size": 30, "hidden_size": 24, "flow_size": 24, "spectrogram_bins": 9}
    fields |= {"num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 32, "upsample_initial_channel": 32}
    config = hf.VitsConfig(**{k: v for k, v in fields.items() if k in vars(hf.VitsConfig())})
    config.save_pretrained(tmp_path)
    assert "VitsModel: 335,800 parameters" in run(str(tmp_path)).stdout
    quick = run(str(tmp_path), "--meta")
    assert quick.exit_code == 1
    assert "random ones do" in quick.output


@pytest.mark.parametrize("arguments", [("desnenet121",), ("resnet18", "--source", "words"), ("clip",)])
def test_command_with_bad_input(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert "fix:" in result.output
    assert "Traceback" not in result.output
