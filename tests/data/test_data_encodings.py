"""Files that are no UTF-8, no text, or no files: read by their mark, or refused with advice that helps."""

from __future__ import annotations

import codecs
import csv
import os
from pathlib import Path

import pytest
from data_files import Load, draw, load

from mi2p_inject.recipes.data.tables.read import table_rows
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["load"]

TEXT = "image,text,label\n" + "".join(f"{i}.png,crème {i},{'ab'[i % 2]}\n" for i in range(20))
JSON = "".join(f'{{"text": "crème {i}", "label": "{"ab"[i % 2]}"}}\n' for i in range(20))


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
@pytest.mark.fault("tables", "UTF-8, UTF-16, UTF-32 with a byte-order mark", "read")
def test_a_byte_order_mark_decides(mark: bytes, encoding: str, ending: str, tmp_path: Path) -> None:
    text = {"csv": TEXT, "tsv": TEXT.replace(",", "\t"), "jsonl": JSON}[ending]
    (tmp_path / f"a.{ending}").write_bytes(mark + text.encode(encoding))
    assert [row["text"] for _, row, _ in table_rows(tmp_path / f"a.{ending}")] == [f"crème {i}" for i in range(20)]


def captions(folder: Path, name: str, encoding: str) -> Path:
    """Two labels of pictures, each with the text beside it."""
    for i in range(20):
        path = draw(folder / "ab"[i % 2] / f"{i}.jpg", i)
        path.with_name(name.format(i)).write_text(f"crème {i}", encoding=encoding)
    return folder


@pytest.mark.parametrize("name", ["{}.txt", "{}.jpg.txt", "{}.TXT"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_texts_beside_pictures(encoding: str, name: str, tmp_path: Path, load: Load) -> None:
    samples = load(captions(tmp_path, name, encoding))
    found = {row["id"]: row["text"] for split in samples.splits.values() for row in split}
    assert found == {f"{'ab'[i % 2]}/{i}.jpg": f"crème {i}" for i in range(20)}


@pytest.mark.parametrize(("encoding", "named"), [("cp1252", "cp1252"), ("utf-16-le", "utf-16le")])
def test_texts_beside_pictures_in_another_encoding(encoding: str, named: str, tmp_path: Path, load: Load) -> None:
    words = rf"a/0\.txt[\s\S]*iconv -f {named} -t utf-8 0\.txt > utf8-0\.txt && mv utf8-0\.txt 0\.txt"
    with pytest.raises(RecipeError, match=words):
        load(captions(tmp_path, "{}.txt", encoding))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (TEXT.encode("cp1252"), r"not UTF-8, near line 2: [\s\S]*cr\\xe8me[\s\S]*iconv -f cp1252"),
        ((TEXT[:16] + "\n" * 50 + TEXT[17:]).encode("cp1252"), r"not UTF-8, near line 51[\s\S]*iconv -f cp1252"),
        (TEXT.encode("utf-16-le"), r"UTF-16 without a byte-order mark[\s\S]*iconv -f utf-16le -t utf-8"),
        (TEXT.encode("utf-16-be"), r"UTF-16 without a byte-order mark[\s\S]*iconv -f utf-16be -t utf-8"),
        (TEXT.encode("utf-32-le"), r"UTF-32 without a byte-order mark[\s\S]*iconv -f utf-32le -t utf-8"),
        (TEXT.encode("utf-32-be"), r"UTF-32 without a byte-order mark[\s\S]*iconv -f utf-32be -t utf-8"),
        (TEXT.encode("utf-16").decode("cp1252", "replace").encode(), r"was UTF-16[\s\S]*iconv -f utf-16 -t utf-8"),
        (TEXT.encode("utf-16").decode("latin-1").encode(), r"was UTF-16[\s\S]*iconv -f utf-16 -t utf-8"),
        (TEXT.encode("utf-16")[:-1], r"near line \d+"),
        (b"PK\x03\x04" + bytes(100), "spreadsheet"),
        (b"\xd0\xcf\x11\xe0" + bytes(100), "Excel"),
        (b"\x1f\x8b" + bytes(100), "gunzip"),
        (b"PAR1" + bytes(100), r"name it \.parquet"),
        (b"SQLite format 3\0", "export the table"),
    ],
)
@pytest.mark.fault(
    "tables", "another encoding, an archive, a spreadsheet, a database", "RecipeError with the command that converts it"
)
def test_advice(content: bytes, words: str, tmp_path: Path, load: Load) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(RecipeError, match=words) as caught:
        load(tmp_path / "a.csv")
    assert ("cp1252" in str(caught.value)) == ("cp1252" in words or "converted as if" in str(caught.value))


def test_a_json_array(tmp_path: Path, load: Load) -> None:
    for content, words in (('[\n{"text": "x"},\n', "one object a line"), ('[{"text": "x"}]\n', "jq -c")):
        (tmp_path / "a.jsonl").write_text(content)
        with pytest.raises(RecipeError, match=words):
            load(tmp_path / "a.jsonl")


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet"])
class TestNoFiles:
    @pytest.mark.fault("files", "a named pipe or a device as a table", "RecipeError before it is read")
    def test_pipes_and_devices(self, name: str, tmp_path: Path, load: Load) -> None:
        os.mkfifo(tmp_path / name)
        with pytest.raises(RecipeError, match="no regular file"):
            load(tmp_path / name)
        (tmp_path / name).unlink()
        (tmp_path / name).symlink_to("/dev/zero")
        with pytest.raises(RecipeError, match="no regular file"):
            load(tmp_path / name)

    def test_a_pipe_for_a_split(self, name: str, tmp_path: Path, load: Load) -> None:
        os.mkfifo(tmp_path / f"train.{name[2:]}")
        with pytest.raises(RecipeError, match="no regular file"):
            load(tmp_path)

    def test_a_folder_of_that_name(self, name: str, tmp_path: Path, load: Load) -> None:
        (tmp_path / name).mkdir()
        with pytest.raises(RecipeError, match="is empty"):
            load(tmp_path / name)


def test_names_that_are_none(load: Load) -> None:
    for name in ("a\0b.csv", "x" * 5000, "~nobody-of-this-name/a.csv"):
        with pytest.raises(RecipeError, match=r"names no file|does not exist"):
            load(name)


@pytest.mark.fault("tables", "~ in paths of data", "the home folder")
def test_the_home_folder(tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for i in range(20):
        draw(tmp_path / "pictures" / f"{i}.png", i)
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label"), *((f"{i}.png", "ab"[i % 2]) for i in range(20))])
    samples = load("~/a.csv", image_root=Path("~/pictures"))
    assert not [one for one in samples.notes if "bad images" in one]
    for i in range(20):
        (tmp_path / "labels" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "pictures" / f"{i}.png").rename(tmp_path / "labels" / "ab"[i % 2] / f"{i}.png")
    assert load("~/labels").classes == ("a", "b")


def test_a_line_without_end(tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of 64 Mi characters, tried with a smaller one."""
    monkeypatch.setattr("mi2p_inject.recipes.data.tables.lines.MAX_LINE", 1000)
    for name in ("a.csv", "a.tsv", "a.jsonl"):
        (tmp_path / name).write_text("x" * 5000)
        with pytest.raises(RecipeError, match="line 1 is longer than 1,000 characters"):
            load(tmp_path / name)


def test_json_nested_without_end(tmp_path: Path, load: Load) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": ' + "[" * 200_000)
    with pytest.raises(RecipeError, match="line 1"):
        load(tmp_path / "a.jsonl")
