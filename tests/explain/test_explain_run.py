"""`explain_run` and `mi2p explain`: arrays that add up, a figure, and one line with the fix for what is wrong."""

from __future__ import annotations

import errno
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import complains
from PIL import Image
from typer.testing import CliRunner

from mi2p_inject.recipes.cli.app import app
from mi2p_inject.recipes.encoders.tiny import tiny_encoder
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.evaluation.evaluate import predict_one
from mi2p_inject.recipes.explain.loaded import Loaded, load_expanded
from mi2p_inject.recipes.explain.pieces import blur
from mi2p_inject.recipes.explain.result import save_figure
from mi2p_inject.recipes.explain.run import explain_run
from mi2p_inject.recipes.explain.sample import Sample
from mi2p_inject.recipes.explain.words import Words, words_of
from mi2p_inject.recipes.saving.saved import load_run

TEXT = "crimson thingamajigs, unmistakably"
WORDS = ("crimson", "thingamajigs,", "unmistakably")


@pytest.mark.parametrize("kind", ["bert", "xlnet", "clip"])
def test_word_pieces_are_joined_to_words(kind: str) -> None:
    spec = tiny_encoder(kind, "text").spec
    words = words_of(f" {TEXT} ", spec)
    ids = spec([TEXT])["input_ids"][0].tolist()
    assert words.words == WORDS
    assert len(words.of_token) == len(ids)
    inner = [one for one in words.of_token if one >= 0]
    assert inner == sorted(inner)
    assert set(inner) == {0, 1, 2}
    assert words.of_token.count(1) > 1  # several pieces
    sums, rest = words.summed(np.ones(len(ids)))
    assert sums.sum() + rest == len(ids)


def test_words_that_are_cut_off_are_left_out_and_none_is_an_error() -> None:
    spec = tiny_encoder("bert", "text").spec
    words = words_of("a " * 1000, spec)
    assert len(words.words) == len(words.of_token) - 2 < 1000
    with complains(RecipeError, "no word"):
        words_of("  ", spec)


def test_means_over_the_pieces_of_a_word() -> None:
    words = Words(("a", "cat"), (-1, 0, 1, 1))
    np.testing.assert_array_equal(words.averaged(np.array([[9.0], [1.0], [2.0], [4.0]])), [[1.0], [3.0]])


def test_an_explanation_adds_up(loaded: Loaded, run: Path, picture: Path) -> None:
    found = explain_run(loaded, picture, TEXT)
    assert found.words == WORDS
    assert found.image.shape == (64, 64, 3)
    assert found.image.dtype == np.uint8
    answer = predict_one(load_run(run), picture, TEXT)
    assert found.probabilities == pytest.approx(answer["probabilities"], abs=1e-5)
    assert found.target == max(found.probabilities, key=lambda name: found.probabilities[name])
    alone = predict_one(load_run(run), picture, None)["probabilities"][found.target]
    assert found.without["text"] == pytest.approx(alone, abs=1e-5)
    image, text = sorted(found.branches, key=lambda branch: branch.modality)
    assert (image.modality, image.unit, text.modality) == ("image", "mi2p", "text")
    assert image.word_attention is not None
    assert image.word_attention.sum() + image.rest_attention == pytest.approx(1, abs=1e-5)
    assert 1 <= image.spread <= image.keys  # type: ignore[operator]
    assert image.groups
    for group in image.groups:
        assert group.words.sum() + group.rest == pytest.approx(1, abs=1e-5)
        assert group.map.sum() == pytest.approx(1, abs=1e-4) or group.map.sum() < 1  # channels that are nowhere
    for branch in (image, text):
        assert branch.word_maps is not None
        assert branch.word_maps.shape[0] == branch.word_evidence.shape[0] == 3  # type: ignore[union-attr]
        assert np.isfinite(branch.word_maps).all()
        assert np.abs(branch.evidence_map).sum() > 0  # type: ignore[arg-type]


def test_a_class_of_ones_own(loaded: Loaded, picture: Path) -> None:
    found = explain_run(loaded, Image.open(picture), TEXT, "green")
    assert found.target == "green"
    with complains(RecipeError, "no class 'gren'", "green"):
        explain_run(loaded, picture, TEXT, "gren")


def test_rounding_is_no_loss(film_loaded: Loaded) -> None:
    """A picture of one colour is the same with any window of it blurred: its map must not be one of rounding."""
    found = explain_run(film_loaded, Image.new("RGB", (64, 64), (37, 121, 203)), TEXT)
    text = next(branch for branch in found.branches if branch.modality == "text")
    assert text.place_loss is not None
    assert not text.place_loss.any()


def test_units_without_attention_are_explained_by_gradients(film_loaded: Loaded, picture: Path, tmp_path: Path) -> None:
    found = explain_run(film_loaded, picture, TEXT)
    image, text = sorted(found.branches, key=lambda branch: branch.modality)
    assert (image.site, image.word_attention, image.word_maps, text.word_evidence) == (None, None, None, None)
    assert np.abs(image.word_evidence).sum() > 0  # type: ignore[arg-type]
    assert np.abs(text.evidence_map).sum() > 0  # type: ignore[arg-type]
    assert image.evidence_map is not None  # what the units add, by place
    assert np.abs(image.evidence_map).sum() > 0
    found.save(tmp_path / "film.png")
    assert Image.open(tmp_path / "film.png").size[0] > 1000
    assert Image.open(io.BytesIO(found._repr_png_())) == Image.open(tmp_path / "film.png")  # what a notebook shows


@pytest.mark.parametrize("kind", ["loaded", "film_loaded"])
def test_losses_are_measured_one_piece_at_a_time(kind: str, picture: Path, request: pytest.FixtureRequest) -> None:
    """Against the model itself, given the text without a word or the picture with a window blurred."""
    loaded: Loaded = request.getfixturevalue(kind)
    found = explain_run(loaded, picture, TEXT)
    image, text = sorted(found.branches, key=lambda branch: branch.modality)
    number = loaded.run.task.classes.index(found.target)
    sample = Sample.of(loaded, Image.open(picture).convert("RGB"), TEXT)

    def logit(modality: Any, pixels: torch.Tensor, words: str) -> float:
        features = loaded.source_of(modality, loaded.batch([(pixels, words)]))
        with torch.no_grad():
            return float(loaded.logits_given(modality, sample.batch, features)[0, number])

    whole = logit("image", sample.pixels, TEXT)
    for place, word in enumerate(WORDS):
        less = " ".join(one for one in WORDS if one != word)
        assert image.word_loss is not None
        assert image.word_loss[place] == pytest.approx(whole - logit("image", sample.pixels, less), abs=1e-5)
    assert text.place_loss is not None
    assert text.place_loss.shape == (6, 6)  # the map has 2 × 2 places
    blurred = sample.pixels.clone()
    blurred[:, :11, 11:22] = blur(sample.pixels)[:, :11, 11:22]  # the second of six windows of 64 pixels
    whole = logit("text", sample.pixels, TEXT)
    assert text.place_loss[0, 1] == pytest.approx(whole - logit("text", blurred, TEXT), abs=1e-5)
    assert np.abs(text.place_loss).max() > 0


@pytest.mark.parametrize("ending", [".png", ".pdf", ".svg"])
def test_the_command_writes_a_figure_and_numbers(run: Path, picture: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"figure{ending}"
    given = ["explain", str(run), "--image", str(picture), "--text", TEXT, "--out", str(out), "--json"]
    answer = CliRunner().invoke(app, given)
    assert answer.exit_code == 0, answer.output
    numbers = json.loads(answer.stdout)
    assert numbers["words"] == list(WORDS)
    assert {branch["modality"] for branch in numbers["branches"]} == {"image", "text"}
    assert out.stat().st_size > 10_000
    if ending == ".png":
        drawn = np.asarray(Image.open(out).convert("RGB"))
        assert (drawn.std((0, 1)) > 10).all()


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no text": ({"--text": None}, "no --text"),
    "no image": ({"--image": None}, "no --image"),
    "an empty text": ({"--text": "  "}, "no text"),
    "no such image": ({"--image": "nothing.png"}, "missing file"),
    "no picture": ({"--image": __file__}, "bad image"),
    "nothing to write": ({"--out": None}, "--out or --json"),
    "another ending": ({"--out": "figure.txt"}, ".png or .pdf or .svg"),
    "no such folder": ({"--out": "nowhere/figure.png"}, "cannot be written"),
    "no such class": ({"--class": "rd"}, "there is no class 'rd'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_message(run: Path, picture: Path, tmp_path: Path, mistake: str) -> None:
    changed, words = MISTAKES[mistake]
    options = {"--image": str(picture), "--text": TEXT, "--out": str(tmp_path / "a.png"), **changed}
    given = [part for name, value in options.items() if value is not None for part in (name, value)]
    answer = CliRunner().invoke(app, ["explain", str(run), *given])
    assert answer.exit_code == 1
    assert answer.stderr.startswith("error: ")
    assert words in answer.stderr
    assert not (tmp_path / "a.png").exists()


@pytest.mark.fault("folders", "explain --out that names the picture", "an error of ours; the picture stays")
def test_the_explained_picture_is_not_written_over(run: Path, picture: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.png"
    own.write_bytes(picture.read_bytes())
    (tmp_path / "link.png").symlink_to(own)
    for out in (own, tmp_path / "link.png"):
        answer = CliRunner().invoke(app, ["explain", str(run), "--image", str(own), "--text", TEXT, "--out", str(out)])
        assert (answer.exit_code, "is what is read" in answer.stderr) == (1, True)
    assert own.read_bytes() == picture.read_bytes()


def test_a_figure_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    class Full:
        """A figure for which the disk has no room."""

        def savefig(self, file: Path, format: str) -> None:
            Path(file).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    for name, before in (("old.png", b"an earlier one"), ("new.png", None)):
        if before is not None:
            (tmp_path / name).write_bytes(before)
        with complains(RecipeError, "No space left on device"):
            save_figure(Full(), tmp_path / name)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"old.png": b"an earlier one"}


def test_a_run_of_one_modality_says_so(unimodal: Path, picture: Path) -> None:
    with complains(RecipeError, "model 'vision' has no expanded model"):
        load_expanded(load_run(unimodal))
