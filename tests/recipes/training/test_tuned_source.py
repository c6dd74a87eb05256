"""A source that was trained on the task: here and now, or by an earlier run."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import Forked
from recipes_data import write_table
from torch import Tensor
from training_runs import command, losses, settings, train, wait_for

from mi2p_inject.recipes.config import make_config
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.saving.saved import SavedRun, load_run
from mi2p_inject.recipes.training.sources.out_of_fold import folds_of
from mi2p_inject.recipes.training.train import load_samples
from mi2p_inject.sources.cache import SourceCache

SHORT: dict[str, Any] = {"epochs": 1, "max_steps": 3}


@pytest.fixture(scope="module")
def text_run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "text"
    train(table, out, model="text", **SHORT)
    return out


def source_weights(run: SavedRun, modality: Any = "text") -> dict[str, Tensor]:
    model, _ = run.model()
    return dict(model.sources()[modality].encoder.model.state_dict())


def own_weights(run: SavedRun, modality: Any = "text") -> dict[str, Tensor]:
    _, encoders = run.model()
    return dict(encoders[modality].model.state_dict())


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(map(torch.equal, first.values(), second.values()))


def test_the_source_is_what_the_task_made_of_it(table: Path, text_run: Path, tmp_path: Path) -> None:
    train(table, tmp_path / "plain", model="me-vision", **SHORT)
    train(table, tmp_path / "tuned", model="me-vision", source="tuned", **SHORT)
    train(table, tmp_path / "given", model="me-vision", source_run=[str(text_run)], **SHORT)
    plain, tuned, given = (load_run(tmp_path / name) for name in ("plain", "tuned", "given"))
    inside = load_run(tmp_path / "tuned" / "sources" / "text")
    assert inside.config.model.model == "text"
    assert same(source_weights(tuned), own_weights(inside))
    assert same(own_weights(inside), own_weights(load_run(text_run)))  # the same seed, schedule and data
    assert same(source_weights(given), own_weights(load_run(text_run)))
    assert not same(source_weights(plain), source_weights(tuned))
    first, second = (run.predictions()["test_logits"] for run in (tuned, given))
    assert (first == second).all()
    assert (plain.predictions()["test_logits"] != first).any()
    assert "tuned source" in tuned.config.model.system.describe(tuned.config.model)


def test_what_is_expanded_and_a_source_too_starts_pretrained(table: Path, tmp_path: Path) -> None:
    """Only the frozen copy is tuned."""
    train(table, tmp_path / "run", model="me-vision+text", fusion="concat", source="tuned", **SHORT)
    run = load_run(tmp_path / "run")
    inside = load_run(tmp_path / "run" / "sources" / "text")
    assert same(source_weights(run), own_weights(inside))
    assert not same(own_weights(run), own_weights(inside))


def test_it_is_tuned_even_where_only_units_train(table: Path, tmp_path: Path) -> None:
    train(table, tmp_path / "plain", model="me-vision", trainable="units", **SHORT)
    train(table, tmp_path / "tuned", model="me-vision", trainable="units", source="tuned", **SHORT)
    plain, tuned = (load_run(tmp_path / name) for name in ("plain", "tuned"))
    assert not same(source_weights(plain), source_weights(tuned))


def test_features_in_a_cache_are_those_of_the_tuned_source(table: Path, text_run: Path, tmp_path: Path) -> None:
    given = {"model": "me-vision", "source_run": [str(text_run)], **SHORT}
    train(table, tmp_path / "plain", model="me-vision", source_cache=str(tmp_path / "cache"), **SHORT)  # fills it
    train(table, tmp_path / "cached", source_cache=str(tmp_path / "cache"), **given)
    train(table, tmp_path / "uncached", **given)
    cached, uncached = (load_run(tmp_path / name).predictions()["test_logits"] for name in ("cached", "uncached"))
    assert cached == pytest.approx(uncached, abs=1e-4)


def test_a_run_killed_twice_goes_on_where_it_was(table: Path, text_run: Path, tmp_path: Path) -> None:
    more = {"model": "me-vision", "source": "tuned", **SHORT, "save_steps": 1}
    out = tmp_path / "killed"
    for place in (out / "sources" / "text", out):  # while the source trains, while the model trains
        with Forked(command(table, out, **more), stderr=subprocess.STDOUT) as process:
            state = place / "checkpoints" / "checkpoint-1" / "trainer_state.json"
            wait_for(state.is_file, process)
            process.send_signal(signal.SIGKILL)
        assert not (out / "metrics.json").exists()
    train(table, out, **more)
    train(table, tmp_path / "given", model="me-vision", source_run=[str(text_run)], **SHORT)
    first, second = (load_run(folder).predictions()["test_logits"] for folder in (out, tmp_path / "given"))
    assert first == pytest.approx(second, abs=1e-4)
    assert not list(out.rglob("checkpoint-*"))


class TestRefusals:
    def refused(self, table: Path, out: Path, words: str, **more: Any) -> None:
        with pytest.raises(RecipeError, match=words):
            train(table, out, **{"model": "me-vision", **SHORT, **more})
        assert not out.exists()  # nothing half-written

    def test_no_run(self, table: Path, tmp_path: Path) -> None:
        self.refused(table, tmp_path / "out", "no run folder", source_run=[str(tmp_path)])

    def test_another_modality(self, table: Path, text_run: Path, tmp_path: Path) -> None:
        self.refused(table, tmp_path / "out", "--model vision", model="me-text", source_run=[str(text_run)])

    def test_one_of_two(self, table: Path, text_run: Path, tmp_path: Path) -> None:
        self.refused(table, tmp_path / "out", "one run for each", model="me-fusion", source_run=[str(text_run)])
        both = [str(text_run), str(text_run)]
        self.refused(table, tmp_path / "out", "reads text too", model="me-fusion", source_run=both)

    def test_a_run_of_two_modalities(self, table: Path, tmp_path: Path, trained: Path) -> None:
        self.refused(table, tmp_path / "out", "one modality alone", source_run=[str(trained)])

    def test_a_model_without_source(self, table: Path, text_run: Path, tmp_path: Path) -> None:
        self.refused(table, tmp_path / "out", "no source to tune", model="vision", source="tuned")
        self.refused(table, tmp_path / "out", "no source to tune", model="vision", source_run=[str(text_run)])

    def test_another_encoder(self, table: Path, text_run: Path, tmp_path: Path) -> None:
        self.refused(table, tmp_path / "out", "the text encoder", text="tiny:bert", source_run=[str(text_run)])
        self.refused(table, tmp_path / "out", "max_length", max_length=7, source_run=[str(text_run)])

    def test_another_split(self, table: Path, text_run: Path, tmp_path: Path) -> None:
        """It may have seen what is tested here."""
        rows = table.read_text().splitlines()
        other = table.with_name("other.csv")
        other.write_text("\n".join(rows[:-6]) + "\n")
        self.refused(other, tmp_path / "out", "same samples in the same splits", source_run=[str(text_run)])

    def test_other_classes(self, table: Path, text_run: Path, tmp_path: Path) -> None:
        other = table.with_name("renamed.csv")
        other.write_text(table.read_text().replace("red", "crimson"))
        self.refused(other, tmp_path / "out", "classes", source_run=[str(text_run)])

    def test_a_run_without_weights(self, table: Path, tmp_path: Path) -> None:
        train(table, tmp_path / "text", model="text", keep_weights=False, **SHORT)
        self.refused(table, tmp_path / "out", "kept no weights", source_run=[str(tmp_path / "text")])

    def test_an_exchanged_source_is_no_continuation(self, table: Path, text_run: Path, tmp_path: Path) -> None:
        """An unfinished run goes on with the very source that it began with."""
        out = tmp_path / "out"
        train(table, out, model="me-vision", source_run=[str(text_run)], **SHORT)
        (out / "metrics.json").unlink()
        identity = json.loads((out / "run.json").read_text())
        identity["source_runs"]["text"] = "0" * 64
        (out / "run.json").write_text(json.dumps(identity))
        with pytest.raises(RecipeError, match="text differ"):
            train(table, out, model="me-vision", source_run=[str(text_run)], **SHORT)


def test_multi_label(tmp_path: Path) -> None:
    table = write_table(tmp_path, several=True)
    train(table, tmp_path / "run", model="me-text", source="tuned", **SHORT)
    run = load_run(tmp_path / "run")
    assert same(source_weights(run, "image"), own_weights(load_run(tmp_path / "run" / "sources" / "image"), "image"))


class TestFolds:
    """Each training sample is encoded by a source that was trained without it."""

    @pytest.fixture(scope="class")
    def folded(self, table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("folded")
        cache = str(folder / "cache")
        train(table, folder / "run", model="me-vision", source="tuned", source_folds=2, source_cache=cache, **SHORT)
        return folder

    def test_folds_are_a_partition_of_whole_groups(self, table: Path) -> None:
        samples = load_samples(make_config(settings(table)))
        group_of = dict(zip(samples.splits["train"]["id"][:], samples.splits["train"]["group"][:], strict=True))
        folds = folds_of(samples, 3, seed=5)
        held_out = [ids for _, ids in folds]
        assert sorted(one for ids in held_out for one in ids) == sorted(group_of)
        for rest, ids in folds:
            assert sorted({*rest.splits["train"]["id"][:]} | ids) == sorted(group_of)
            assert not {group_of[one] for one in ids} & {*rest.splits["train"]["group"][:]}
            assert "test" not in rest.splits
        assert len({rest.fingerprint for rest, _ in folds} | {samples.fingerprint}) == 4
        assert [ids for _, ids in folds_of(samples, 3, seed=5)] == held_out
        assert [ids for _, ids in folds_of(samples, 3, seed=6)] != held_out

    def test_features_are_of_the_source_trained_without_them(self, table: Path, folded: Path) -> None:
        config = make_config(settings(table))
        samples = load_samples(config)
        caches = [SourceCache(one) for one in (folded / "cache").iterdir() if one.is_dir()]
        whole = max(caches, key=len)
        parts = [cache for cache in caches if cache is not whole]
        with_text = {one for rows in samples.splits.values() for one in rows["id"][:] if one in whole}
        held_out = [ids & with_text for _, ids in folds_of(samples, 2, config.data.split_seed)]
        assert sorted(len(part) for part in parts) == sorted(len(ids) for ids in held_out)
        for ids in held_out:
            part = next(part for part in parts if all(one in part for one in ids))
            for one in sorted(ids):
                assert not torch.equal(part[[one]].data, whole[[one]].data)
                assert torch.equal(whole.overlaid(part, ids)[[one]].data, part[[one]].data)
        test = [one for one in samples.splits["test"]["id"][:] if one in with_text]
        assert torch.equal(whole.overlaid(parts[0], held_out[0])[test].data, whole[test].data)

    def test_they_are_what_the_model_learns_from(self, table: Path, folded: Path, tmp_path: Path) -> None:
        cache = str(tmp_path / "cache")
        train(table, tmp_path / "run", model="me-vision", source="tuned", source_cache=cache, **SHORT)
        plain, other = load_run(tmp_path / "run"), load_run(folded / "run")
        assert same(source_weights(plain), source_weights(other))  # the source that is kept was trained on all
        assert losses(folded / "run") != losses(tmp_path / "run")
        assert (plain.predictions()["test_logits"] != other.predictions()["test_logits"]).any()
        assert [one.name for one in (folded / "run" / "sources").iterdir()] == ["text"]  # folds are not kept

    def test_killed_it_goes_on(self, table: Path, folded: Path, tmp_path: Path) -> None:
        more = {"model": "me-vision", "source": "tuned", "source_folds": 2, "source_cache": str(tmp_path / "cache")}
        out = tmp_path / "killed"
        argv = command(table, out, **more, **SHORT, save_steps=1)
        place = out / "sources" / "text-without-fold-2"
        with Forked(argv, stderr=subprocess.STDOUT) as process:
            wait_for(lambda: (place / "checkpoints" / "checkpoint-1" / "trainer_state.json").is_file(), process)
            process.send_signal(signal.SIGKILL)
        train(table, out, **more, **SHORT, save_steps=1)
        first, second = (load_run(one).predictions()["test_logits"] for one in (out, folded / "run"))
        assert first == pytest.approx(second, abs=1e-4)
        assert not list(out.rglob("*without-fold*"))

    @pytest.mark.parametrize(
        ("more", "words"),
        [
            ({"source_folds": 2, "source_cache": "cache"}, "needs a tuned source"),
            ({"source_folds": 2, "source": "tuned"}, "needs a source cache"),
            ({"source_folds": 20, "source": "tuned", "source_cache": "cache"}, "independent groups"),
            ({"source_folds": 1, "source": "tuned"}, "0, or 2 to 20"),
        ],
    )
    def test_refused_before_anything_is_written(
        self, more: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        table = write_table(tmp_path / "data")
        rows = table.read_text().splitlines()
        train_rows = [one for one in rows if one.endswith(",train")]
        table.write_text("\n".join(one for one in rows if one not in train_rows[12:]) + "\n")
        with pytest.raises(RecipeError, match=words):
            train(table, tmp_path / "out", model="me-vision", **SHORT, **more)
        assert not (tmp_path / "out").exists()
        assert not (tmp_path / "cache").exists()
