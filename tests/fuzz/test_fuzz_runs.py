"""Run folders and --config files that somebody has tampered with: an error of ours, or what was trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import FEW, FUZZ, bounded, fuzz, mutated_bytes, mutated_json
from training_runs import resealed

from mi2p_inject import Mi2pError
from mi2p_inject.recipes.config import make_config, read_yaml
from mi2p_inject.recipes.config.read import parse_assignments
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.saving.saved import load_run

GOLDEN = Path(__file__).parents[1] / "golden" / "run-3" / "run"
READ_AT_ONCE = ["run.json", "metrics.json", "checksums.json", "predictions.safetensors"]
OF_THE_MODEL = [
    "model/encoders/text/encoder.json",
    "model/encoders/text/config.json",
    "model/encoders/text/tokenizer.json",
    "model/encoders/text/tokenizer_config.json",
    "model/encoders/image/encoder.json",
    "model/encoders/image/config.json",
    "model/model.safetensors",
]
YAML = b"""
data: my.csv
model: me-fusion
epochs: 5
learning_rate: 1e-4
unit_options: {num_heads: 2, zero_init: value_proj}
vision_layers: [0, -1]
text: &text "./bert"
task: *text
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(GOLDEN, tmp_path_factory.mktemp("runs") / "run"))


def read_or_refuse(run: Path, model: bool) -> bool:
    """Read a run as predict and table do; False where an error of ours refused it."""
    with bounded():
        try:
            found = load_run(run)
            found.predictions()
            if model:
                found.model()
        except Mi2pError as error:
            assert str(error)  # noqa: PT017  # of several kinds
            return False
    return True


@fuzz
@FUZZ
@given(data=st.data())
@pytest.mark.fault("fuzz", "bytes of a run folder's files changed", "RecipeError, or what was trained")
def test_bytes(run: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([*READ_AT_ONCE, *OF_THE_MODEL]))
    content = (GOLDEN / name).read_bytes()
    changed = data.draw(mutated_bytes(content))
    (run / name).write_bytes(changed)
    try:
        whole = read_or_refuse(run, model=name in OF_THE_MODEL)
        assert not whole or changed == content or name == "checksums.json"
    finally:
        (run / name).write_bytes(content)


def forged(run: Path, name: str, data: st.DataObject) -> None:
    content = (GOLDEN / name).read_bytes()
    if name.endswith(".json"):
        changed = json.dumps(data.draw(mutated_json(json.loads(content)))).encode()
    else:
        changed = data.draw(mutated_bytes(content))
    try:
        resealed(run, lambda folder: (folder / name).write_bytes(changed))
        read_or_refuse(run, model=name in OF_THE_MODEL)
    finally:
        (run / name).write_bytes(content)
        (run / "checksums.json").write_bytes((GOLDEN / "checksums.json").read_bytes())


@fuzz
@FUZZ
@given(data=st.data())
@pytest.mark.fault(
    "fuzz", "a forged run.json, metrics.json or predictions with right checksums", "RecipeError, or read"
)
def test_forged_numbers(run: Path, data: st.DataObject) -> None:
    forged(run, data.draw(st.sampled_from(["run.json", "metrics.json", "predictions.safetensors"])), data)


@fuzz
@FEW
@given(data=st.data())
@pytest.mark.fault(
    "X1", "a forged encoder.json, configuration or tokenizer with right checksums", "RecipeError, or a model"
)
def test_forged_models(run: Path, data: st.DataObject) -> None:
    forged(run, data.draw(st.sampled_from(OF_THE_MODEL)), data)


@fuzz
@FEW
@given(data=st.data())
@pytest.mark.fault(
    "fuzz", "a forged run.json from which the model is built", "RecipeError, or a model of those weights"
)
def test_forged_settings(run: Path, data: st.DataObject) -> None:
    content = (GOLDEN / "run.json").read_bytes()
    settings = json.loads(content)
    settings["config"] = data.draw(mutated_json(settings["config"]))
    try:
        resealed(run, lambda folder: (folder / "run.json").write_text(json.dumps(settings)))
        read_or_refuse(run, model=True)
    finally:
        (run / "run.json").write_bytes(content)
        (run / "checksums.json").write_bytes((GOLDEN / "checksums.json").read_bytes())


def configured(path: Path, content: bytes) -> dict[str, Any] | None:
    """The options of a --config file; None where an error of ours refused them."""
    path.write_bytes(content)
    with bounded():
        try:
            options = read_yaml(path)
            make_config(options)
        except Mi2pError:
            return None
    return options


@fuzz
@FUZZ
@given(data=st.data())
@pytest.mark.fault("fuzz", "bytes of a --config file changed", "RecipeError, or options in their ranges")
def test_yaml(tmp_path: Path, data: st.DataObject) -> None:
    configured(tmp_path / "my.yaml", data.draw(st.one_of(mutated_bytes(YAML), st.binary(max_size=200))))


LAUGHS = b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (after, after, b", ".join([b"*%c" % before] * 9))
    for before, after in zip(b"abcdefgh", b"bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "content",
    [
        LAUGHS,
        LAUGHS.replace(b"i: &i", b"unit_options: &i"),
        LAUGHS.replace(b"i: &i", b"data: &i"),
        b"data: &a [*a]",
        b"data: &a {b: *a}",
        b"? &a [*a]\n: 1",
        b"{[1, 2]: 3}",
        b"data: 2001-99-99",
        b"data: !!binary x",
        b"data: !!python/object/apply:os.system [ls]",
        b"data: !!set {a, b}",
        b"<<: [1, 2]\ndata: x",
        b"<<: &a {<<: *a}\ndata: x",
        b"epochs: .inf",
        b"epochs: 1" + b"0" * 5000,
        b"[" * 20_000,
        b"a: " * 20_000,
        b"data: \xff",
        b"\x00",
        b"data: x\n---\ndata: y",
    ],
)
@pytest.mark.fault(
    "fuzz", "a --config file that grows without bounds, refers to itself or names a class", "RecipeError"
)
def test_hostile_yaml(tmp_path: Path, content: bytes) -> None:
    assert configured(tmp_path / "my.yaml", content) is None


@pytest.mark.parametrize("value", ["2001-99-99", "1" * 5000, "[" * 20_000, "&a [*a", "{a: 1, a: 2}"])
def test_hostile_values_of_set(value: str) -> None:
    with bounded(), pytest.raises(RecipeError, match="data"):
        parse_assignments([f"data={value}"])


def test_a_yaml_that_is_no_regular_file(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").symlink_to("/dev/zero")
    with bounded(), pytest.raises(RecipeError, match=r"my\.yaml"):
        read_yaml(tmp_path / "my.yaml")
