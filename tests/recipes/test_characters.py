"""Characters and paths as they come from terminals, files and macOS."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from forked import run_forked

from mi2p_inject.core.human import printable
from mi2p_inject.recipes.characters import composed, decodable, in_markdown, print_anything
from mi2p_inject.recipes.data.values import visible
from mi2p_inject.recipes.encoders.load import load_encoder
from mi2p_inject.recipes.paths import home_path


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "cp437", "utf-8"])
@pytest.mark.fault("terminal", "characters that the terminal cannot show", "printed as escapes")
def test_whatever_is_printed_is_printed(encoding: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    print_anything(stream)
    text = 'é ☃ 😀 \ud83d "caf\udce9"'
    stream.write(json.dumps(text, ensure_ascii=False))
    stream.flush()
    written = stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert json.loads(written) == text  # JSON stays JSON


@pytest.mark.fault("terminal", "a cp1252 terminal", "the command ends well")
def test_a_command_on_a_cp1252_terminal() -> None:
    command = ["-m", "mi2p_inject.recipes", "train", "--data", os.fsdecode(b"\xe2\x98\x83 caf\xe9.csv")]
    done = run_forked([*command, "--out", "nowhere"], env={**os.environ, "PYTHONIOENCODING": "cp1252"})
    assert done.returncode == 1
    assert "error: \\u2603 caf\\udce9.csv does not exist" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.fault("terminal", "control characters in a file's names, labels or errors", "printed as escapes")
def test_a_file_does_not_command_the_terminal(tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J"
    table = tmp_path / "t.csv"
    table.write_text(
        f"image,text,label\n{evil}.png,a {evil},x{evil}\n" + "".join(f"{n}.png,b {n},y\n" for n in range(9))
    )
    for more in ([], ["--image-col", f"{evil}x"]):
        done = run_forked(["-m", "mi2p_inject.recipes", "train", "--data", str(table), "--out", "nowhere", *more])
        assert done.returncode == 1
        assert "\\x1b" in done.stderr + done.stdout
        assert "\x1b]" not in done.stderr + done.stdout
    assert visible(f"x{evil}") == "x]0;owned[2J"
    assert in_markdown(f"x{evil}").isprintable()
    assert printable("line\n\ttab \x9b") == "line\n\ttab \\x9b"


def test_half_characters_and_whole_ones() -> None:
    assert decodable("a\ud83d\ude00b\udce9") == "a\N{GRINNING FACE}b\N{REPLACEMENT CHARACTER}"
    assert composed("e\N{COMBINING ACUTE ACCENT}") == "é"


@pytest.mark.fault("terminal", "an undecodable --text", "replaced")
def test_a_tokenizer_reads_half_characters() -> None:
    spec = load_encoder("tiny:bert", "text").spec
    assert spec(["caf\udce9 \ud83d"])["input_ids"].shape[0] == 1
    assert load_encoder("tiny:clip", "text").spec(["caf\udce9 \ud83d"])["input_ids"].shape == (1, 32)


@pytest.mark.fault("terminal", "~ in any path option", "the home folder")
def test_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home_path("~/run") == tmp_path / "run"
    assert home_path("~nobody-of-this-name/run") == Path("~nobody-of-this-name/run")
    (tmp_path / "a@b").mkdir()
    for name in ("~/a@b", "transformers:~/a@b", "open_clip:~/a@b", "timm:~/a@b"):
        with pytest.raises(Exception, match=str(tmp_path)):  # found, and empty
            load_encoder(name, "text")
