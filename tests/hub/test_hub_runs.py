"""A run goes to a Hub, and is read from there: nothing private leaves, and it answers what it answered."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from small_hub import WRITER, SmallHub
from typer.testing import CliRunner

from mi2p_inject.core.errors import HubError, Mi2pError
from mi2p_inject.recipes import fit, load_run
from mi2p_inject.recipes.api import Run
from mi2p_inject.recipes.cli.app import app
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.saving.card import without_paths

ROWS = [{"text": f"a {colour} thing {number}", "label": colour} for colour in ("red", "blue") for number in range(20)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    place = tmp_path_factory.mktemp("private place")
    data = place / "my things.jsonl"
    data.write_text("\n".join(map(json.dumps, ROWS)))
    run = fit(data, "text", text="tiny:bert", epochs=1, out=place / "run", verbose=False)
    for leftover in ("report.html", "logs/wandb/secret", "checkpoints/checkpoint-1/rng.pth"):
        (run.path / leftover).parent.mkdir(parents=True, exist_ok=True)
        (run.path / leftover).write_text("private")
    return run


@pytest.fixture
def pushed(run: Run, hub: SmallHub) -> dict[str, bytes]:
    run.push_to_hub("me/first", token=WRITER, card={"license": "mit"})
    return hub.repositories["me/first"]["main"]


def test_it_answers_what_it_answered(run: Run, pushed: dict[str, bytes]) -> None:
    again = load_run("me/first")
    assert again.classes == run.classes
    assert np.array_equal(again.predict_proba(ROWS[:5]), run.predict_proba(ROWS[:5]))
    with pytest.raises(RecipeError, match="`mi2p push` leaves them out"):
        again.saved.predictions()
    with pytest.raises(RecipeError, match="does not exist"):
        again.evaluate()
    assert again.evaluate(ROWS, split="test")["metrics"].keys() == run.evaluate()["metrics"].keys()


def test_what_leaves(run: Run, pushed: dict[str, bytes]) -> None:
    assert {name for name in pushed if "/" not in name} == {
        "README.md", "checksums.json", "history.json", "metrics.json", "run.json",
    }  # fmt: skip
    assert all(name.startswith("model/") for name in pushed if "/" in name)
    assert not any(name.endswith((".pth", ".bin", ".pkl", ".py", ".html", ".jsonl")) for name in pushed)
    for name, content in pushed.items():
        assert str(run.path.parent).encode() not in content, name
        assert b"private place" not in content, name
        assert b"thing 1" not in content, name  # a sample's text
        assert b"/home/" not in content, name
    assert json.loads(pushed["run.json"])["config"]["data"] == "my things.jsonl"
    assert json.loads(pushed["metrics.json"])["notes"] == []


def test_the_card(run: Run, pushed: dict[str, bytes]) -> None:
    card = ModelCard(pushed["README.md"].decode())
    metadata: dict[str, Any] = yaml.safe_load(card.data.to_yaml())
    assert (metadata["license"], metadata["library_name"], metadata["pipeline_tag"]) == (
        "mit", "mi2p_inject", "text-classification",
    )  # fmt: skip
    (index,) = metadata["model-index"]
    (result,) = index["results"]
    assert result["dataset"] == {"name": "my things", "type": "my things", "split": "test"}
    found = {one["type"]: one["value"] for one in result["metrics"]}
    test = {name: one["value"] for name, one in run.numbers["test"].items() if name != "f1_of_classes"}
    assert found == pytest.approx(test, abs=1e-4)
    for words in ('load_run("me/first")', "mi2p predict me/first", "## Limits", "blue, red", "always "):
        assert words in card.text
    in_folder = (run.path / "README.md").read_text()
    assert in_folder.replace("path/to/this/folder", "me/first").partition("\n#")[2] == card.text.partition("\n#")[2]


def test_commands(run: Run, hub: SmallHub, monkeypatch: pytest.MonkeyPatch) -> None:
    call = CliRunner().invoke
    dry = call(app, ["push", str(run.path), "me/second", "--dry-run", "--license", "mit"])
    assert dry.exit_code == 0, dry.output
    assert "model/model.safetensors" in dry.output
    assert "license: mit" in dry.output
    assert not hub.asked
    assert "not logged in" in call(app, ["push", str(run.path), "me/second"]).output
    monkeypatch.setenv("HF_TOKEN", WRITER)
    done = call(app, ["push", str(run.path), "me/second"])
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"pushed: {hub.url}/me/second/commit/")
    answer = call(app, ["predict", "me/second", "--text", "a red thing"])
    assert set(json.loads(answer.output)["probabilities"]) == {"red", "blue"}
    assert call(app, ["report", "me/second"]).exit_code == 0
    assert "is on the Hub" in call(app, ["report", "me/second", "--html"]).output
    absent = call(app, ["predict", "me/absent", "--text", "a red thing"])
    assert absent.exit_code == 1
    assert "no repository 'me/absent', or it is private" in absent.output


@pytest.mark.fault("hub", "a run on the Hub whose files were exchanged", "RecipeError names the file")
def test_exchanged_files(pushed: dict[str, bytes]) -> None:
    pushed["model/encoders/text/encoder.json"] = b"{}"
    with pytest.raises(RecipeError, match=r"model/encoders/text/encoder.json is not what the run wrote"):
        load_run("me/first").predict(ROWS[:1])
    pushed["model/encoders/text/more.py"] = b"raise SystemExit"
    with pytest.raises(RecipeError, match="is not what the run wrote"):
        load_run("me/first").predict(ROWS[:1])
    with pytest.raises(HubError, match="has no revision"):
        load_run("me/first", revision="old")


@pytest.mark.fault("hub", "a token or a path in the files of a run", "it is not pushed")
def test_a_secret_does_not_leave(run: Run, hub: SmallHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = load_run(shutil.copytree(run.path, tmp_path / "run"))
    copy.numbers["remarks"] = [f"see {tmp_path / 'run' / 'x'}", "the token is hf_not_to_be_seen"]
    monkeypatch.setenv("SOME_TOKEN", "hf_not_to_be_seen")
    with pytest.raises(RecipeError, match="holds a path or a secret") as found:
        copy.push_to_hub("me/first", token=WRITER)
    assert "hf_not" not in str(found.value)
    assert not hub.repositories
    assert without_paths(copy.numbers["remarks"])[0] == "see x"


def test_a_run_without_weights_is_not_pushed(run: Run, tmp_path: Path, hub: SmallHub) -> None:
    copy = load_run(shutil.copytree(run.path, tmp_path / "run"))
    shutil.rmtree(tmp_path / "run" / "model")
    with pytest.raises(RecipeError, match="kept no weights"):
        copy.push_to_hub("me/first", token=WRITER)
    with pytest.raises(Mi2pError, match="no revisions"):
        load_run(tmp_path / "run", revision="main")


def test_a_folder_is_no_repository(run: Run, tmp_path: Path) -> None:
    with pytest.raises(HubError, match="is no id of a repository"):
        run.push_to_hub(str(tmp_path / "there"))
    tried = CliRunner().invoke(app, ["push", str(run.path), "./there", "--dry-run"])
    assert tried.exit_code == 1
    assert "is no id of a repository" in tried.stderr
