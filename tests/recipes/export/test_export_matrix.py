"""Every system, kinds of encoders, and every form: `pytest -m slow`, half an hour on two cores."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import torch
from recipes_data import write_table
from training_runs import train

from mi2p_inject.recipes.export import onnx_file
from mi2p_inject.recipes.export.export_run import TOLERANCE, export_run
from mi2p_inject.recipes.export.formats import FORMATS
from mi2p_inject.recipes.export.graph import ExportableModel
from mi2p_inject.recipes.saving.saved import load_run
from mi2p_inject.recipes.systems import SYSTEMS

pytestmark = pytest.mark.slow
GOLDEN = Path(__file__).parents[2] / "golden" / "run-3" / "run"
ENCODERS = [("resnet", "bert"), ("densenet", "xlnet"), ("clip", "clip"), ("vit", "bert")]
FITTING = {"vilt": [("vit", "bert")], "centralnet": [("resnet", "bert"), ("densenet", "bert")]}
CASES = [
    (system, vision, text)
    for system in SYSTEMS
    for vision, text in (
        FITTING.get(system, [("resnet", "bert")])
        if system in ("centralnet", "mmbt", "visualbert", "pixelbert", "interbert", "vilt")
        else ENCODERS
    )
]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(("system", "vision", "text"), CASES)
def test_every_system_as_onnx(system: str, vision: str, text: str, table: Path, tmp_path: Path) -> None:
    train(
        table, tmp_path / "run", model=system, vision=f"tiny:{vision}", text=f"tiny:{text}", image_size=64,
        max_length=32, max_steps=2, fusion="concat" if text == "clip" else "score",
    )  # fmt: skip
    made = export_run(tmp_path / "run", tmp_path / "a.onnx", "onnx")
    assert made.difference <= TOLERANCE
    assert {rows for rows, _ in made.checked} == {1, 3}
    print(f"EXPORTED {system} {vision} {text}: {made.difference:.1e} {made.checked} {made.inputs}")


@pytest.mark.parametrize("fusion", ["cross-attention", "gmu", "compact-bilinear", "gated-bilinear"])
def test_every_fusion_as_onnx(fusion: str, table: Path, tmp_path: Path) -> None:
    train(
        table, tmp_path / "run", model="late-fusion", vision="tiny:resnet", text="tiny:clip", image_size=64,
        max_length=32, max_steps=2, fusion=fusion,
    )  # fmt: skip
    made = export_run(tmp_path / "run", tmp_path / "a.onnx", "onnx")
    assert made.difference <= TOLERANCE
    print(f"EXPORTED late-fusion {fusion}: {made.difference:.1e} {made.checked}")


@pytest.mark.parametrize("form", FORMATS)
def test_every_form(form: str, tmp_path: Path) -> None:
    made = export_run(GOLDEN, tmp_path / f"a{FORMATS[form].suffix}", form)
    assert made.difference <= TOLERANCE
    print(f"EXPORTED golden {form}: {made.difference:.1e} {made.checked}")


def test_weights_too_large_for_one_file_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "LARGEST_FILE", 0)
    made = export_run(GOLDEN, tmp_path / "a.onnx", "onnx")
    assert made.files == ("a.onnx", "a.onnx.data", "a.json", "a.tokenizer/")
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"))
    model = ExportableModel(load_run(GOLDEN)).eval()
    batch = model.batch_of(2, 4)
    with torch.no_grad():
        wanted = model(**batch).numpy()
    assert session.run(None, {name: one.numpy() for name, one in batch.items()})[0] == pytest.approx(wanted, abs=1e-5)
