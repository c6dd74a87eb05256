"""A run folder is whole, says what was measured, and comes back as it was."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from training_runs import edit, resealed, train

from mi2p_inject import Mi2pError
from mi2p_inject.adapters import recommended
from mi2p_inject.recipes.config import with_options
from mi2p_inject.recipes.config.sections import model
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.evaluation.evaluate import evaluate_run, predict_file, predict_one
from mi2p_inject.recipes.evaluation.run_report import run_markdown
from mi2p_inject.recipes.evaluation.sample_notes import notes_on_sample
from mi2p_inject.recipes.saving.saved import load_run
from mi2p_inject.recipes.training.train import load_samples

GOLDEN = Path(__file__).parents[2] / "golden" / "run-3" / "run"


def test_the_folder_holds_no_pickles_and_nothing_half_written(trained: Path) -> None:
    files = {str(path.relative_to(trained)) for path in trained.rglob("*") if path.is_file()}
    assert {"run.json", "metrics.json", "history.json", "predictions.safetensors"} < files
    assert {Path(name).suffix for name in files} <= {".json", ".safetensors", ".txt", ".jinja", ".md"}
    assert not [name for name in files if "unfinished" in name or "checkpoint-" in name]


def test_a_reloaded_model_gives_the_very_predictions(trained: Path) -> None:
    run = load_run(trained)
    numbers = evaluate_run(run, None, {})
    assert numbers["metrics"] == {name: value for name, value in run.numbers["test"].items() if name != "f1_of_classes"}
    answers = {answer["id"]: answer for answer in predict_file(run, run.config.data.data, {})}
    split = load_samples(run.config).splits["test"]
    temperature = run.decision["temperature"]
    logits = torch.from_numpy(run.predictions()["test_logits"]).double() / temperature
    for number, row in enumerate(split):
        expected = logits[number].softmax(-1).tolist()
        assert list(answers[row["id"]]["probabilities"].values()) == pytest.approx(expected, abs=1e-5)
        if number not in (0, 8, 9):  # whole, without a picture, without a text
            continue
        one = predict_one(run, Path(row["image"]) if row["image"] else None, row["text"])
        assert list(one["probabilities"].values()) == pytest.approx(expected, abs=1e-5)


def test_options_of_speed_hold_in_an_evaluation(trained: Path) -> None:
    run, steps = load_run(trained), list[tuple[int, ...]]()
    usual = evaluate_run(run, None, {"precision": "fp32"})
    given = {"precision": "bf16", "eval_batch_size": 5, "num_workers": 1}
    half = evaluate_run(run, None, given, on_step=lambda *step: steps.append(step[:2]))
    assert steps == [(1, 3), (2, 3), (3, 3)]
    found, exact = (one["metrics"]["log_loss"]["value"] for one in (half, usual))
    assert found != exact
    assert found == pytest.approx(exact, rel=0.05)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU answers in fp16")
def test_a_run_of_a_gpu_s_precision_answers_without_one(trained: Path) -> None:
    run = load_run(trained)
    half = replace(run, config=with_options(run.config, {"precision": "fp16"}))
    note = "precision=fp16 needs a GPU: these answers are in fp32"
    numbers = evaluate_run(half, None, {})
    assert note in numbers["notes"]
    assert numbers["metrics"] == evaluate_run(run, None, {"precision": "fp32"})["metrics"]
    answers = predict_file(half, run.config.data.data, {})
    assert len(list(answers)) == len(answers)
    assert note in answers.notes
    assert predict_one(half, None, "crimson") == predict_one(run, None, "crimson")
    assert note in notes_on_sample(half, None, "crimson")


def test_an_option_that_gives_other_samples_is_named(trained: Path) -> None:
    words = r"other samples with these options[\s\S]*missing=keep[\s\S]*missing=drop[\s\S]*leave missing out"
    with pytest.raises(RecipeError, match=words):
        evaluate_run(load_run(trained), None, {"missing": "drop"})


@pytest.mark.fault("S8", "a run whose options had other defaults when it was trained", "the model that was trained")
def test_a_run_does_not_depend_on_the_defaults_of_today(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "DEFAULT_UNIT", "mi2p-paper")
    monkeypatch.setitem(recommended.SHARES, "text", 1.0)
    run = load_run(shutil.copytree(GOLDEN, tmp_path / "run"))
    expected = json.loads((GOLDEN.parent / "answer.json").read_text())
    answer = predict_one(run, GOLDEN.parent / "picture.png", "crimson thing number 3")
    assert answer["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-4)


@pytest.mark.parametrize("own_losses", [True, False])
@pytest.mark.fault("golden", "a fusion whose losses were chosen by another default", "it loads, and answers as it did")
def test_a_fusion_that_was_trained_by_another_default(table: Path, tmp_path: Path, own_losses: bool) -> None:
    out = tmp_path / "run"
    train(table, out, model="late-fusion", fusion="concat", epochs=1, max_steps=1, branch_loss=own_losses)
    before = predict_one(load_run(out), None, "crimson thing")
    config = json.loads((out / "run.json").read_text())["config"]
    resealed(out, lambda folder: edit(folder / "run.json", config={**config, "branch_loss": None}))
    assert predict_one(load_run(out), None, "crimson thing") == before
    assert ("own_heads.0.weight" in load_run(out).model()[0].state_dict()) == own_losses


def test_the_report_says_it_all(trained: Path) -> None:
    text = run_markdown(load_run(trained))
    for words in ("me-fusion", "cross-attention", "test_vit (random weights)", "| test | 12 |", "| red |", "epochs=2"):
        assert words in text


def test_new_data(trained: Path, table: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    lines = table.read_text().splitlines()
    header, rows = lines[0].rsplit(",", 1)[0], [line.rsplit(",", 1)[0] for line in lines[60:70]]
    other.write_text("\n".join([header, *rows]) + "\n")
    numbers = evaluate_run(load_run(trained), str(other), {"image_root": str(table.parent), "split_col": None})
    assert numbers["samples"] == 10
    unknown = tmp_path / "unknown.csv"
    unknown.write_text("text,label\nsomething,purple\n")
    with pytest.raises(RecipeError, match="purple"):
        evaluate_run(load_run(trained), str(unknown), {})


def test_changed_data_are_not_taken_for_the_old_ones(trained: Path, table: Path, tmp_path: Path) -> None:
    run = load_run(trained)
    before = table.read_text()
    try:
        table.write_text(before.replace("crimson", "purple", 1))
        with pytest.raises(RecipeError, match="not what it was"):
            evaluate_run(run, None, {})
    finally:
        table.write_text(before)


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda run: (run / "run.json").unlink(), "no run folder"),
        (lambda run: edit(run / "run.json", format=1), "another version"),
        (lambda run: edit(run / "run.json", recipe="openmoji"), "run of 'openmoji'"),
        (lambda run: (run / "metrics.json").unlink(), "not finished"),
        (lambda run: (run / "metrics.json").write_text("{"), "damaged"),
        (lambda run: edit(run / "metrics.json", decision=None, problem_type="multi-label"), "damaged"),
        (lambda run: edit(run / "metrics.json", problem_type="multi-lable"), "did you mean 'multi-label'"),
        (lambda run: (run / "model" / "model.safetensors").write_bytes(b"x" * 100), "cannot be read"),
        (lambda run: (run / "model" / "sources.safetensors").unlink(), "cannot be read"),
    ],
)
def test_a_forged_run_is_named(copied: Path, change: Callable[[Path], object], words: str) -> None:
    resealed(copied, change)
    with pytest.raises(RecipeError, match=words):
        load_run(copied).model()


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda run: edit(run / "run.json", seed=1), "run.json"),
        (lambda run: edit(run / "metrics.json", seconds=0), "metrics.json"),
        (lambda run: (run / "checksums.json").unlink(), "checksums.json"),
        (lambda run: (run / "checksums.json").write_text("[]"), "checksums.json"),
        (lambda run: (run / "checksums.json").write_text("[" * 10_000), "checksums.json"),
        (lambda run: flipped(run / "model" / "model.safetensors"), "model/model.safetensors"),
        (lambda run: flipped(run / "model" / "sources.safetensors"), "model/sources.safetensors"),
        (lambda run: flipped(run / "predictions.safetensors"), "predictions.safetensors"),
        (
            lambda run: (run / "model" / "encoders" / "image" / "encoder.json").unlink(),
            "model/encoders/image/encoder.json",
        ),
        (
            lambda run: (run / "model" / "encoders" / "text" / "tokenizer_config.json").unlink(),  # none is needed
            "model/encoders/text/tokenizer_config.json",
        ),
        (lambda run: (run / "model" / "encoders" / "text" / "new.py").touch(), "model/encoders/text/new.py"),
        (lambda run: exchanged(run / "model" / "encoders" / "text" / "encoder.json", os.mkfifo), "named pipe"),
        (lambda run: exchanged(run / "metrics.json", lambda path: path.symlink_to("/dev/zero")), "not finished"),
        (lambda run: exchanged(run / "predictions.safetensors", Path.mkdir), "predictions.safetensors"),
    ],
)
@pytest.mark.fault("S8", "a changed, missing or added file of a run folder", "RecipeError names it")
def test_a_damaged_run_is_named(copied: Path, change: Callable[[Path], object], name: str) -> None:
    change(copied)
    with pytest.raises(RecipeError, match=re.escape(name)):
        (load_run(copied).predictions(), load_run(copied).model())


def exchanged(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def test_what_a_file_manager_adds_is_no_damage(copied: Path) -> None:
    (copied / "model" / ".DS_Store").touch()
    load_run(copied).model()


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found.pop("test_logits"),
        lambda found: found.update(test_logits=found["test_logits"][:, :1].contiguous()),
        lambda found: found.update(test_labels=found["test_labels"][1:].clone()),
        lambda found: found.update(test_groups=found["test_groups"].unsqueeze(1)),
        lambda found: found.update(test_logits=found["test_logits"].to(torch.bfloat16)),
    ],
)
def test_forged_predictions_are_named(copied: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    def forge(run: Path) -> None:
        found = load_file(run / "predictions.safetensors")
        change(found)
        save_file(found, run / "predictions.safetensors")

    resealed(copied, forge)
    with pytest.raises(RecipeError, match=r"damaged: predictions\.safetensors"):
        load_run(copied).predictions()


@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("model/encoders/image/encoder.json", {"head_dim": 10**8}),
        ("model/encoders/image/encoder.json", {"num_heads": 2**16, "head_dim": 10**4}),
        ("model/encoders/image/encoder.json", {"channel_embedding_dim": 10**9}),
        ("model/encoders/image/encoder.json", {"readout": 10**9}),
        ("run.json", {"fusion": "cross-attention", "fusion_options": {"width": 10**9}}),
        ("run.json", {"fusion": "gmu", "fusion_options": {"width": 10**9}}),
    ],
    ids=str,
)
@pytest.mark.fault("files", "a run folder that asks for a model of 100 GB", "RecipeError; no memory is taken")
def test_a_forged_run_takes_no_more_memory_than_its_weights(tmp_path: Path, file: str, options: dict[str, Any]) -> None:
    run = Path(shutil.copytree(GOLDEN, tmp_path / "run"))
    stored = json.loads((run / file).read_text())
    if file == "run.json":
        forged = {"config": {**stored["config"], **options}}
    else:
        expansion = stored["expansion"]
        forged = {"expansion": {**expansion, "options": {**expansion["options"], **options}}}
    resealed(run, lambda folder: edit(folder / file, **forged))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Mi2pError):
        load_run(run).model()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


@pytest.mark.parametrize(
    "expansion",
    [
        {"layers": ["layers.0"], "kind": "no-such-kind", "options": {}},
        {"layers": ["layers.0"], "kind": "film", "options": {"scale": [True]}},
        {"layers": ["layers.0"], "kind": "film", "options": {"no_such": 1}},
        {"layers": ["no.such.layer"], "kind": "film", "options": {}},
        {"layers": [], "kind": "film", "options": {}},
        {"layers": ["layers.0"]},
        ["layers.0"],
    ],
    ids=str,
)
@pytest.mark.fault("files", "an encoder.json with another expansion than its weights have", "RecipeError or UnitError")
def test_a_forged_expansion_is_refused(tmp_path: Path, expansion: object) -> None:
    run = Path(shutil.copytree(GOLDEN, tmp_path / "run"))
    resealed(run, lambda folder: edit(folder / "model/encoders/text/encoder.json", expansion=expansion))
    with pytest.raises(Mi2pError):
        load_run(run).model()
