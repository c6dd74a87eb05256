"""Files that earlier releases wrote are read for ever, and give what they gave."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from golden_models import PICTURES, SOURCE, SOURCES, backbone
from safetensors.torch import load_file

from mi2p_inject import load
from mi2p_inject.checkpoint.schema import VERSION, VERSION_OF_NAMED
from mi2p_inject.recipes.evaluation.evaluate import predict_one
from mi2p_inject.recipes.saving.saved import FORMAT, load_run

HERE = Path(__file__).parent
CHECKPOINTS = sorted(HERE.glob("checkpoint-*"))
RUNS = sorted(HERE.glob("run-*"))


def test_the_formats_of_today_have_files_here() -> None:
    """Whoever changes a format makes files of the new one beside the old: see make.py."""
    of_today = {f"checkpoint-{VERSION}-all", f"checkpoint-{VERSION}-units", f"checkpoint-{VERSION_OF_NAMED}-named"}
    assert of_today <= {path.name for path in CHECKPOINTS}
    assert f"run-{FORMAT}" in {path.name for path in RUNS}


@pytest.mark.parametrize("folder", CHECKPOINTS, ids=lambda path: path.name)
@pytest.mark.fault("golden", "a checkpoint that an earlier release wrote", "it loads, and gives what it gave")
def test_a_checkpoint_is_read(folder: Path, tmp_path: Path) -> None:
    me = load(shutil.copytree(folder, tmp_path / "copy"), backbone=backbone()).eval()
    expected = load_file(folder / "expected.safetensors")["output"]
    source = SOURCES if me.expansion_config.named else SOURCE
    with torch.no_grad():
        torch.testing.assert_close(me(PICTURES, source=source), expected, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(me(PICTURES), expected, atol=1e-3)
    assert me.backbone.get_submodule("4").weight.requires_grad


@pytest.mark.parametrize("folder", RUNS, ids=lambda path: path.name)
@pytest.mark.fault("golden", "a run folder that an earlier release wrote", "it loads, and answers what it answered")
def test_a_run_is_read(folder: Path, tmp_path: Path) -> None:
    run = load_run(Path(shutil.copytree(folder / "run", tmp_path / "run")))
    answer = predict_one(run, folder / "picture.png", "crimson thing number 3")
    expected = json.loads((folder / "answer.json").read_text())
    assert answer["label"] == expected["label"]
    assert answer["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-4)
