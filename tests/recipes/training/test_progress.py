"""What a person sees while it trains: lines in a log, a bar in a terminal, history.json as it grows."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console
from training_runs import settings

from mi2p_inject.recipes.config import make_config
from mi2p_inject.recipes.training.progress import bars
from mi2p_inject.recipes.training.train import train_run

SMALL = {"model": "vision", "keep_weights": False, "epochs": 3}


def test_a_log_has_a_line_for_each_epoch(table: Path, tmp_path: Path) -> None:
    text = io.StringIO()
    train_run(make_config(settings(table, **SMALL)), tmp_path / "run", Console(file=text, width=200))
    lines = re.findall(r"^epoch (\d): loss (\d\.\d+), validation accuracy (\d\.\d+)$", text.getvalue(), re.MULTILINE)
    assert [number for number, _, _ in lines] == ["1", "2", "3"]
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    scores = [entry["eval_accuracy"] for entry in history if "eval_accuracy" in entry]
    assert [float(score) for _, _, score in lines] == pytest.approx(scores, abs=6e-4)
    of_epochs = [
        [entry["loss"] for entry in history if "loss" in entry][6 * epoch : 6 * epoch + 6] for epoch in range(3)
    ]
    assert [float(loss) for _, loss, _ in lines] == pytest.approx([sum(one) / 6 for one in of_epochs], abs=6e-4)


def test_a_terminal_has_a_bar_above_which_the_lines_stand(table: Path, tmp_path: Path) -> None:
    text = io.StringIO()
    console = Console(file=text, width=120, force_terminal=True)
    train_run(make_config(settings(table, **SMALL)), tmp_path / "run", console)
    assert "steps" in text.getvalue()
    assert "18/18" in text.getvalue()
    assert "epoch 3: " in text.getvalue()
    assert re.search(r"loss \d\.\d+, validation accuracy \d\.\d+", text.getvalue().rpartition("epoch 1: ")[2])
    assert "validating, batch 1 of 1" in text.getvalue()
    assert re.search(r"predicting.*1/1", text.getvalue())


def test_a_notebook_has_a_bar_without_widgets() -> None:
    pytest.importorskip("IPython")
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    InteractiveShell.instance()
    with (
        capture_output() as shown,
        bars.row_progress(Console(force_jupyter=True), "training") as on_step,
    ):
        for step in range(1, 11):
            on_step(step, 10, "loss 0.5")
    assert any("<progress value='10' max='10'" in output.data.get("text/html", "") for output in shown.outputs)
    assert any("loss 0.5" in output.data.get("text/html", "") for output in shown.outputs)


def test_once_a_minute_a_line_says_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(bars.time, "monotonic", lambda: now)
    text = io.StringIO()
    with bars.row_progress(Console(file=text, width=200), "training") as on_step:
        for step in range(101, 201):  # a resumed run begins at step 101 of 400
            now += 1.0
            on_step(step, 400)
    assert text.getvalue().splitlines() == ["training …", "training: step 160 of 400, about 240 s left"]
