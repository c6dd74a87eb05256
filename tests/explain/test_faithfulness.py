"""Deletion and insertion curves: against literal loops, at their ends against the model, and said as they are."""

from __future__ import annotations

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

from mi2p_inject.recipes import load_run as open_run
from mi2p_inject.recipes.api import Run
from mi2p_inject.recipes.cli.app import app
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.evaluation.faithfulness.measure import measure_faithfulness
from mi2p_inject.recipes.evaluation.faithfulness.orders import sample_curves
from mi2p_inject.recipes.evaluation.faithfulness.result import Curve, Faithfulness, PieceCurves
from mi2p_inject.recipes.explain.loaded import Loaded
from mi2p_inject.recipes.explain.pieces import pieces_of
from mi2p_inject.recipes.explain.sample import Sample
from mi2p_inject.recipes.metrics.resampling import Interval


def worth_of(kept: np.ndarray) -> np.ndarray:
    """Two numbers of sets of pieces that are no sums over pieces."""
    weights = np.arange(1.0, kept.shape[1] + 1)
    total = kept @ weights
    return np.stack([total**2, kept[:, 0] * total], axis=1)


@pytest.mark.parametrize("count", [2, 3, 7, 10, 25])
def test_the_curves_are_those_of_literal_loops(count: int) -> None:
    evidence = np.random.default_rng(count).normal(size=count).round(1)  # with ties
    calls = []

    def measure(kept: np.ndarray) -> np.ndarray:
        calls.append(len(kept))
        assert len(np.unique(kept, axis=0)) == len(kept)  # no set twice
        return worth_of(kept)

    found = sample_curves(evidence, measure, draws=3, random=np.random.default_rng(5))
    order = sorted(range(count), key=lambda piece: (-evidence[piece], piece))
    everything = np.ones((1, count), dtype=bool)
    alone = [worth_of(everything & ~np.eye(count, dtype=bool)[piece])[0, 0] for piece in range(count)]
    lost = sorted(range(count), key=lambda piece: (alone[piece], piece))
    random = np.random.default_rng(5)
    orders = [random.permutation(count) for _ in range(3)]
    assert len(calls) == 2  # one piece less, and the curves
    assert (found.shares[0], found.shares[-1]) == (0, 1)
    assert len(found.shares) <= 13
    for place, share in enumerate(found.shares):
        gone = round(share * count)
        deleted = np.array([[piece not in order[:gone] for piece in range(count)]])
        np.testing.assert_allclose(found.deletion["evidence"][place], worth_of(deleted)[0])
        np.testing.assert_allclose(found.insertion["evidence"][place], worth_of(~deleted)[0])
        without = np.array([[piece not in lost[:gone] for piece in range(count)]])
        np.testing.assert_allclose(found.deletion["lost"][place], worth_of(without)[0])
        np.testing.assert_allclose(found.insertion["lost"][place], worth_of(~without)[0])
        at_random = [worth_of(np.array([[piece in one[gone:] for piece in range(count)]]))[0] for one in orders]
        np.testing.assert_allclose(found.deletion["random"][place], np.mean(at_random, axis=0))
        from_the_back = [
            worth_of(np.array([[piece in one[count - gone :] for piece in range(count)]]))[0] for one in orders
        ]
        np.testing.assert_allclose(found.insertion["random"][place], np.mean(from_the_back, axis=0))
    area = np.zeros(2)
    for a, b in zip(range(len(found.shares) - 1), range(1, len(found.shares)), strict=True):
        height = (found.deletion["random"] - found.deletion["evidence"])[[a, b]].mean(axis=0)
        area += height * (found.shares[b] - found.shares[a])
    np.testing.assert_allclose(found.gains("evidence")[0], area)


@pytest.fixture(scope="module")
def opened(run: Path) -> Run:
    return open_run(run)


@pytest.fixture(scope="module")
def measured(opened: Run) -> Faithfulness:
    return measure_faithfulness(opened.saved, limit=4, draws=2)


def test_every_kind_of_pieces_is_measured(measured: Faithfulness, film_loaded: Loaded) -> None:
    kinds = {(one.modality, one.kind): one for one in measured.pieces}
    assert set(kinds) == {("image", "words"), ("text", "places"), ("text", "channels")}
    assert [kinds[key].order.split()[-1] for key in sorted(kinds)] == ["attention", "attention", "features"]
    assert (measured.drawn, measured.draws) == (4, 2)
    for one in measured.pieces:
        assert one.samples + one.too_few <= 4
        for curve in (*one.probability.values(), *one.accuracy.values()):
            assert set(curve.lines) == {*curve.gains, "random"}
            assert ("lost" in curve.gains) == (one.pieces <= 64)
            for order, gain in curve.gains.items():
                assert curve.lines[order].shape == curve.lines["random"].shape == measured.shares.shape
                assert gain.low <= gain.value <= gain.high
                assert curve.lines[order][[0, -1]] == pytest.approx(curve.lines["random"][[0, -1]])
        deletion, insertion = (one.probability[name] for name in ("deletion", "insertion"))
        deletes, inserts = deletion.lines["evidence"], insertion.lines["evidence"]
        assert deletes[0] == pytest.approx(inserts[-1], abs=1e-5)
        assert deletes[-1] == pytest.approx(inserts[0], abs=1e-5)
    film = measure_faithfulness(film_loaded.run, limit=2, draws=1)
    assert {(one.kind, one.order) for one in film.pieces} == {
        ("words", "gradient times features"),
        ("places", "gradient times features"),
    }


def test_nothing_taken_away_is_the_models_answer_and_everything_is_that_without_the_source(
    loaded: Loaded, picture: Path
) -> None:
    sample = Sample.of(loaded, Image.open(picture).convert("RGB"), "crimson thing number")
    with torch.no_grad():
        whole = loaded.model(**sample.batch)["logits"][0].numpy()
    for modality in loaded.expanded:
        for pieces in pieces_of(sample, sample.evidence(modality, 0)):
            ends = pieces.logits(np.array([[True] * len(pieces), [False] * len(pieces)]))
            np.testing.assert_allclose(ends[0], whole, atol=1e-5)
            if pieces.kind == "words":
                with torch.no_grad(), loaded.expanded[modality].disabled():
                    alone = loaded.model(**sample.batch)["logits"][0].numpy()
                np.testing.assert_allclose(ends[1], alone, atol=1e-5)
            else:
                assert np.abs(ends[1] - whole).max() > 0


def test_a_random_order_is_not_called_better() -> None:
    flat = np.full(3, 0.5)

    def pieces(low: float, high: float) -> PieceCurves:
        curve = Curve({"evidence": flat, "random": flat}, {"evidence": Interval((low + high) / 2, low, high)})
        both: Any = {"deletion": curve, "insertion": curve}
        return PieceCurves("image", "words", "gradient times attention", 3, 0, 2.0, both, both)

    assert (pieces(-0.1, 0.2).better(), pieces(0.1, 0.2).better()) == (False, True)
    assert pieces(-0.1, 0.2).verdict("lost") == ""
    assert "NOT better than random" in pieces(-0.1, 0.2).verdict()
    assert "NOT better than random (+0.150 [+0.000," in pieces(0.0004, 0.3).verdict()  # as it is shown
    assert "WORSE than random" in pieces(-0.2, -0.1).verdict()
    assert "deletion better than random (+0.150 [+0.100, +0.200])" in pieces(0.1, 0.2).verdict()


def test_the_command_writes_a_figure_and_its_numbers(run: Path, tmp_path: Path, measured: Faithfulness) -> None:
    out = tmp_path / "faithful.png"
    given = ["explain", str(run), "--faithfulness", "--limit", "4", "--draws", "2", "--out", str(out)]
    answer = CliRunner().invoke(app, given)
    assert answer.exit_code == 0, answer.output
    assert "than random" in answer.stderr
    numbers = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert numbers == measured.to_json()
    drawn = np.asarray(Image.open(out).convert("RGB"))
    assert drawn.shape[1] > 1000
    assert (drawn.std((0, 1)) > 10).all()
    assert Image.open(io.BytesIO(measured._repr_png_())) == Image.open(out)  # what a notebook shows


def test_python_gives_the_same_and_new_data_are_taken(opened: Run, table: Path, measured: Faithfulness) -> None:
    assert opened.faithfulness(limit=4, draws=2).to_json() == measured.to_json()
    rows = [{"image": str(table.parent / "img/test0.png"), "text": "crimson thing", "label": "blue"}] * 2
    found = opened.faithfulness(rows, limit=1, draws=1)
    assert (found.drawn, found.of) == (1, 2)


MISTAKES: dict[str, tuple[list[str], str]] = {
    "nothing to write": (["--faithfulness"], "--out or --json"),
    "a sample with it": (["--faithfulness", "--text", "a", "--json"], "--faithfulness is of a split"),
    "data without it": (["--data", "a.csv", "--json"], "--data and --set need --faithfulness"),
    "no such split": (["--faithfulness", "--split", "tst", "--json"], "there is no split 'tst'"),
    "no samples": (["--faithfulness", "--limit", "0", "--json"], "limit is a number of 1 or more"),
    "no draws": (["--faithfulness", "--draws", "0", "--json"], "draws is a number of 1 or more"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_message(run: Path, mistake: str) -> None:
    given, words = MISTAKES[mistake]
    answer = CliRunner().invoke(app, ["explain", str(run), *given])
    assert answer.exit_code == 1
    assert answer.stderr.startswith("error: ")
    assert words in answer.stderr


def test_samples_of_one_word_have_no_order(opened: Run, table: Path) -> None:
    rows = [{"image": str(table.parent / "img/test0.png"), "text": "crimson", "label": "blue"}]
    found = opened.faithfulness(rows, draws=1)
    assert "words" not in [one.kind for one in found.pieces]
    blind = [{"image": None, "text": "crimson thing", "label": "blue"}, {**rows[0], "text": None}]
    with complains(RecipeError, "no sample of test has pieces in an order"):
        opened.faithfulness(blind, draws=1)
