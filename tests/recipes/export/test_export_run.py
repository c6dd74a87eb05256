"""`mi2p export`: a file that somebody without mi2p_inject can use, or one clear line."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from recipes_data import write_table
from tokenizers import Tokenizer
from torch import Tensor, nn
from training_runs import train
from typer.testing import CliRunner, Result

from mi2p_inject.recipes.api import load_run as opened
from mi2p_inject.recipes.cli.app import app
from mi2p_inject.recipes.encoders.preprocess import TextSpec
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.export import export_run as module
from mi2p_inject.recipes.export.formats import FORMATS
from mi2p_inject.recipes.export.graph import ExportableModel, blamed
from mi2p_inject.recipes.export.notes import notes_of
from mi2p_inject.recipes.saving.saved import load_run
from mi2p_inject.recipes.tasks import MultiLabel

GOLDEN = Path(__file__).parents[2] / "golden" / "run-3"
RUN = GOLDEN / "run"
TEXT = "crimson thing number 3"


def mi2p(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200", "NO_COLOR": "1"})


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The run of both expanded models, in a folder of its own."""
    target = tmp_path_factory.mktemp("export") / "first.onnx"
    return target, mi2p("export", RUN, "--onnx", target)


def test_the_command_says_what_it_compared_and_what_it_wrote(exported: tuple[Path, Result]) -> None:
    target, result = exported
    assert result.exit_code == 0, result.output
    for words in ("largest difference", "1 x 2 tokens", "3 x 16 tokens", "output: probabilities", f"written: {target}"):
        assert words in result.output
    assert sorted(path.name for path in target.parent.iterdir()) == ["first.json", "first.onnx", "first.tokenizer"]
    model = onnx.load(target)
    onnx.checker.check_model(model)
    assert {one.domain for one in model.opset_import if one.domain} == set()
    assert [one.name for one in model.graph.input] == [
        "pixel_values", "image_present", "input_ids", "attention_mask", "text_present",
    ]  # fmt: skip
    notes = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
    assert {one.key: json.loads(one.value) for one in model.metadata_props if one.key == "mi2p_inject"} == {
        "mi2p_inject": notes
    }


def test_a_stranger_gets_the_answer_of_predict_from_the_notes(exported: tuple[Path, Result]) -> None:
    """With numpy, Pillow, tokenizers and onnxruntime alone."""
    target, _ = exported
    session = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    notes = json.loads(session.get_modelmeta().custom_metadata_map["mi2p_inject"])
    image, text = notes["image"], notes["text"]
    assert (image["crop_mode"], image["interpolation"], image["crop_pct"]) == ("squash", "bilinear", 1.0)
    picture = Image.open(GOLDEN / "picture.png").convert("RGB").resize(image["size"][::-1], Image.Resampling.BILINEAR)
    pixels = (np.asarray(picture, np.float32) / 255 - image["mean"]) / image["std"]
    tokenizer = Tokenizer.from_file(str(target.parent / text["tokenizer_files"]["tokenizer.json"]))
    tokenizer.enable_truncation(text["max_length"])
    ids = np.array([tokenizer.encode(TEXT).ids], np.int64)
    inputs = {
        "pixel_values": pixels.transpose(2, 0, 1)[None].astype(np.float32),
        "image_present": np.array([True]),
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "text_present": np.array([True]),
    }
    (found,) = session.run([notes["output"]["name"]], inputs)
    wanted = json.loads((GOLDEN / "answer.json").read_text())
    assert notes["classes"][int(found[0].argmax())] == wanted["label"]
    assert dict(zip(notes["classes"], found[0], strict=True)) == pytest.approx(wanted["probabilities"], abs=1e-4)
    absent = {**inputs, "image_present": np.array([False])}
    blank = {**absent, "pixel_values": np.zeros_like(inputs["pixel_values"])}
    np.testing.assert_array_equal(session.run(None, absent)[0], session.run(None, blank)[0])
    assert np.abs(session.run(None, absent)[0] - found).max() > 1e-3


def test_a_trace_answers_as_the_run(tmp_path: Path) -> None:
    result = mi2p("export", RUN, "--torchscript", tmp_path / "a.pt", "--logits")
    assert result.exit_code == 0, result.output
    assert "output: logits" in result.output
    assert "3 x 16 tokens" in result.output


def test_what_does_not_answer_as_the_run_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOLERANCE", -1.0)
    with pytest.raises(RecipeError, match="does not answer as the run does"):
        module.export_run(RUN, tmp_path / "a.pt", "torchscript")
    assert list(tmp_path.iterdir()) == []


def test_probabilities_are_those_of_predict() -> None:
    """Softmax or sigmoid, after the temperature that the validation split chose."""
    run = load_run(RUN)
    for task, decision in (
        (run.task, {"temperature": 2.5}),
        (MultiLabel(run.task.classes), {"temperature": 0.5, "thresholds": [0.1, 0.2, 0.3], "common_threshold": 0.2}),
    ):
        changed = replace(run, task=task, decision=decision)
        model, logits = ExportableModel(changed).eval(), ExportableModel(changed, logits=True).eval()
        batch = model.batch_of(4, 3)
        with torch.no_grad():
            found, raw = model(**batch), logits(**batch)
        scaled = raw.double() / decision["temperature"]
        wanted = scaled.sigmoid() if task.independent else scaled.softmax(-1)
        torch.testing.assert_close(found.double(), wanted, atol=1e-6, rtol=1e-5)
        np.testing.assert_allclose(found, changed.probabilities(raw.numpy()), atol=1e-6)
        notes = notes_of(model, 1, {})
        assert notes["decision"] == decision
        assert ("sigmoid" if task.independent else "softmax") in notes["output"]["how"]
        assert f"{decision['temperature']:g}" in notes["output"]["how"]


@pytest.mark.parametrize("rest", [(), ("--logits",)], ids=["last", "an option behind it"])
def test_a_form_without_a_path_is_named_after_the_run(
    rest: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = mi2p("export", RUN, "--torchscript", *rest)
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == {"run.pt", "run.json", "run.tokenizer"}
    assert (json.loads(Path("run.json").read_text())["output"]["name"] == "logits") is bool(rest)


REFUSED = {
    "no form": ((), "an export writes one file"),
    "two forms": (("--onnx", "a.onnx", "--program", "a.pt2"), "an export writes one file"),
    "another ending": (("--onnx", "a.bin"), "expected: a name in .onnx"),
    "no folder": (("--onnx", "not/there/a.onnx"), "cannot write"),
    "a folder": (("--onnx", "folder.onnx"), "is a folder"),
    "target exists": (("--onnx", "there.onnx"), "there.onnx is there already"),
    "notes exist": (("--onnx", "noted.onnx"), "noted.json is there already"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_targets_are_refused(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options, words = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    Path("folder.onnx").mkdir()
    for name in ("there.onnx", "noted.json"):
        Path(name).write_text("precious")
    result = mi2p("export", RUN, *options)
    assert result.exit_code == 1
    assert words in result.output
    assert "Traceback" not in result.output
    assert {path.name for path in tmp_path.iterdir()} == {"folder.onnx", "there.onnx", "noted.json"}
    assert Path("there.onnx").read_text() == Path("noted.json").read_text() == "precious"


def test_bad_runs_are_refused(tmp_path: Path) -> None:
    empty, unfinished, weightless = (tmp_path / name for name in ("empty", "unfinished", "weightless"))
    empty.mkdir()
    shutil.copytree(RUN, unfinished)
    (unfinished / "metrics.json").unlink()
    shutil.copytree(RUN, weightless)
    (weightless / "model" / "model.safetensors").unlink()
    for run, words in ((empty, "is no run folder"), (unfinished, "not finished"), (weightless, "kept no weights")):
        result = mi2p("export", run, "--onnx", tmp_path / "a.onnx")
        assert result.exit_code == 1
        assert words in result.output, result.output
        assert not list(tmp_path.glob("a.*"))


def test_a_missing_library_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # as if it were not installed
    result = mi2p("export", RUN, "--onnx", tmp_path / "a.onnx")
    assert result.exit_code == 1
    assert "onnxscript" in result.output
    assert "pip install 'mi2p-inject[export]'" in result.output


def test_a_missing_compiler_is_named() -> None:
    with (
        torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler")}),
        pytest.raises(RecipeError, match="no compiler") as caught,
    ):
        FORMATS["aoti"].check()
    assert "no-such-compiler" in str(caught.value)


class _Looks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_what_cannot_be_exported_is_named() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), _Looks()))
    with pytest.raises(RecipeError, match=r"it ended in 1\.1 \(_Looks\)"), blamed(model, "torch.export"):
        torch.export.export(model, (torch.randn(3, 2),), strict=False)
    model(torch.randn(3, 2))  # the hooks are gone
    assert not nn.modules.module._global_forward_pre_hooks


def test_a_model_that_is_not_recorded_for_every_length_takes_texts_of_one(tmp_path: Path) -> None:
    """XLNet counts its positions in floats."""
    run, target = tmp_path / "run", tmp_path / "a.onnx"
    train(write_table(tmp_path), run, model="text", text="tiny:xlnet", max_length=9, max_steps=2)
    result = mi2p("export", run, "--onnx", target)
    assert result.exit_code == 0, result.output
    for words in ("texts are padded to 9 tokens", "1 x 9 tokens", "3 x 9 tokens"):
        assert words in result.output
    notes = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
    assert notes["inputs"]["input_ids"]["shape"] == ["batch", 9]
    assert {"min_length": 9, "max_length": 9, "padding": "to max_length"}.items() <= notes["text"].items()
    spec = load_run(run).encoders()["text"].spec
    assert isinstance(spec, TextSpec)
    ids = replace(spec, padded=True)(["red"])
    session = onnxruntime.InferenceSession(str(target))
    answer = session.run(None, {name: ids[name].numpy() for name in ("input_ids", "attention_mask")})[0]
    alone = opened(run).predict_proba([{"text": "red"}])
    assert answer == pytest.approx(alone, abs=1e-5)
