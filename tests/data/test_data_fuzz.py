"""Any bytes as a table or an image: read, or refused by an error of our own; never another, and little memory."""

from __future__ import annotations

import contextlib
import io
import os
import random
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mi2p_inject.recipes.data import ImageError, open_image
from mi2p_inject.recipes.data.images import MAX_PIXELS, image_problem, looks_like_image
from mi2p_inject.recipes.data.source_table import store
from mi2p_inject.recipes.data.tables.load import Columns, load_table
from mi2p_inject.recipes.data.tables.read import table_columns, table_rows
from mi2p_inject.recipes.errors import RecipeError

TABLES = {
    "csv": 'image,text,label\na.png,"crème, ""x""\ny",c\nb.png,plain,d\nc.png,\u2603,c\n'.encode(),
    "tsv": b'image\ttext\tlabel\na.png\twords\tc\nb.png\t"x\td\n',
    "jsonl": b'{"image": "a.png", "text": "x\\ud83d", "label": ["c", "d"]}\n{"text": NaN, "label": null}\n',
}
NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
INSERTS = [b'"', b"\n", b"\r", b"\0", b",", b"\t", b"\xff\xfe", b"\xef\xbb\xbf", b"{", b"[", b"\\u", b"1e999", b"\x80"]
FEW = settings(
    max_examples=2000 if NIGHTLY else 150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def mutated(data: bytes, seed: int) -> bytes:
    """A few changes: bytes flipped, cut out, doubled, put in."""
    rng = random.Random(seed)
    found = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        at = rng.randint(0, len(found))
        kind = rng.randint(0, 4)
        if kind == 0 and found:
            found[at % len(found)] = rng.randint(0, 255)
        elif kind == 1:
            del found[at : at + rng.randint(1, 20)]
        elif kind == 2:
            found[at:at] = found[at : at + rng.randint(1, 200)]
        elif kind == 3:
            found[at:at] = rng.choice(INSERTS) * rng.choice([1, 1, 2, 1000])
        else:
            found = found[:at]
    return bytes(found)


def read_all(path: Path) -> None:
    """As a training reads a table, all the way into the stored rows."""
    with contextlib.suppress(RecipeError):
        table_columns(path)
        for _ in table_rows(path):
            pass
        rows = list(load_table(path, Columns(), multi_label=None).rows())
        assert all(isinstance(row.id, str) for row in rows)


@pytest.mark.fuzz
@pytest.mark.parametrize("ending", TABLES)
class TestTables:
    @FEW
    @given(data=st.binary(max_size=300))
    @pytest.mark.fault("fuzz", "any bytes as CSV, TSV or JSON Lines", "RecipeError, or rows")
    def test_any_bytes(self, ending: str, data: bytes, tmp_path: Path) -> None:
        (tmp_path / f"a.{ending}").write_bytes(data)
        read_all(tmp_path / f"a.{ending}")

    @FEW
    @given(seed=st.integers(0, 2**32))
    @pytest.mark.fault("fuzz", "bytes of a table changed", "RecipeError, or rows")
    def test_changed_tables(self, ending: str, seed: int, tmp_path: Path) -> None:
        (tmp_path / f"a.{ending}").write_bytes(mutated(TABLES[ending], seed))
        read_all(tmp_path / f"a.{ending}")

    @settings(
        max_examples=100 if NIGHTLY else 8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(seed=st.integers(0, 2**32))
    def test_what_is_read_can_be_stored(self, ending: str, seed: int, tmp_path: Path) -> None:
        (tmp_path / f"a.{ending}").write_bytes(mutated(TABLES[ending], seed))
        with contextlib.suppress(RecipeError):
            store(load_table(tmp_path / f"a.{ending}", Columns(), multi_label=None), cache_dir=tmp_path / "cache")


def images() -> dict[str, bytes]:
    picture = Image.effect_noise((40, 30), 60).convert("RGB")
    found = {}
    for kind, options in {
        "PNG": {}, "JPEG": {}, "GIF": {}, "WEBP": {}, "BMP": {}, "TIFF": {"compression": "tiff_lzw"}, "PPM": {},
        "AVIF": {}, "JPEG2000": {},
    }.items():  # fmt: skip
        memory = io.BytesIO()
        picture.save(memory, kind, **options)  # type: ignore[arg-type]
        found[kind] = memory.getvalue()
    memory = io.BytesIO()
    picture.save(memory, "JPEG", progressive=True, exif=Image.Exif().tobytes())
    return {**found, "progressive": memory.getvalue()}


IMAGES = images()


def opened(data: bytes, path: Path) -> Any:
    path.write_bytes(data)
    looks_like_image(path.with_suffix(""))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = open_image(path, on_bad="error", at_least=16)
    except ImageError:
        assert image_problem(path)
        return None
    assert found is not None
    assert found.mode == "RGB"
    assert found.width * found.height <= MAX_PIXELS
    return found


@pytest.mark.fuzz
class TestImages:
    @FEW
    @given(data=st.binary(max_size=300), start=st.sampled_from([b"", *[one[:24] for one in IMAGES.values()]]))
    @pytest.mark.fault("fuzz", "any bytes as an image", "a bad image of a named kind, or a picture")
    def test_any_bytes(self, data: bytes, start: bytes, tmp_path: Path) -> None:
        opened(start + data, tmp_path / "a.png")

    @pytest.mark.parametrize("kind", IMAGES)
    @settings(
        max_examples=500 if NIGHTLY else 60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(seed=st.integers(0, 2**32))
    @pytest.mark.fault("fuzz", "bytes of an image changed, nine formats", "a bad image of a named kind, or a picture")
    def test_changed_images(self, kind: str, seed: int, tmp_path: Path) -> None:
        opened(mutated(IMAGES[kind], seed), tmp_path / "a.png")

    @pytest.mark.parametrize("kind", IMAGES)
    def test_the_images_are_good(self, kind: str, tmp_path: Path) -> None:
        assert opened(IMAGES[kind], tmp_path / "a.png").size == (40, 30)


def test_memory_is_what_the_table_holds(tmp_path: Path) -> None:
    """A column of one giant cell, a million quotes, a line of a million separators: no more than some copies of it."""
    size = 2**20
    for content in (b"text,label\n" + b"x" * size, b"text,label\n" + b'"' * size, b"text,label\n" + b"," * size):
        (tmp_path / "a.csv").write_bytes(content)
        tracemalloc.start()
        read_all(tmp_path / "a.csv")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 120 * size  # a million empty fields are a million objects
