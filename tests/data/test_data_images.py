"""Images as folders really hold them: every mode, upright, on white, and bad ones by their kind."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mi2p_inject.recipes.data.images import MAX_PIXELS, ImageError, image_problem, open_image

COLOURS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [40, 80, 120]]], dtype=np.uint8).repeat(8, 0).repeat(8, 1)


def picture() -> Image.Image:
    """16 x 16: red, green / blue, slate."""
    return Image.fromarray(COLOURS)


def pixels(image: Image.Image | None) -> np.ndarray:
    assert image is not None
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


class TestModes:
    @pytest.mark.parametrize("ending", ["png", "bmp", "tiff", "ppm", "gif", "webp", "avif", "jpg"])
    def test_formats(self, ending: str, tmp_path: Path) -> None:
        path = tmp_path / f"a.{ending}"
        picture().save(path, **({"lossless": True} if ending == "webp" else {"quality": 95}))
        tolerance = {"jpg": 60, "avif": 60}.get(ending, 0)  # chroma is stored at half the size
        assert np.abs(pixels(open_image(path, "error")) - COLOURS)[::15, ::15].max() <= tolerance

    @pytest.mark.parametrize(("level", "expected"), [(0, 0), (32768, 128), (65535, 255), (257, 1)])
    @pytest.mark.parametrize("ending", ["png", "tiff"])
    def test_sixteen_bits_are_scaled_not_cut(self, level: int, expected: int, ending: str, tmp_path: Path) -> None:
        Image.fromarray(np.full((8, 8), level, dtype=np.uint16)).save(tmp_path / f"a.{ending}")
        assert (pixels(open_image(tmp_path / f"a.{ending}", "error")) == expected).all()

    def test_floats(self, tmp_path: Path) -> None:
        Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)).save(tmp_path / "a.tiff")
        found = pixels(open_image(tmp_path / "a.tiff", "error"))
        assert (found.min(), found.max()) == (0, 255)

    @pytest.mark.parametrize("hole", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("most", [1, 5000])
    def test_floats_with_holes(self, hole: float, most: int, tmp_path: Path) -> None:
        levels = np.linspace(0, most, 64, dtype=np.float32).reshape(8, 8)
        Image.fromarray(levels).save(tmp_path / "whole.tiff")
        levels[3, 4] = hole
        Image.fromarray(levels).save(tmp_path / "a.tiff")
        whole, found = (pixels(open_image(tmp_path / name, "error")) for name in ("whole.tiff", "a.tiff"))
        seen = np.isfinite(levels)
        assert (found[seen] == whole[seen]).all()

    @pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "I"])
    def test_opaque_modes(self, mode: str) -> None:
        grey = picture().convert("L").point(lambda level: 255 * (level > 80))  # Pillow refuses RGB -> I
        given = picture().quantize() if mode == "P" else (grey if mode in "1LI" else picture()).convert(mode)
        expected = np.asarray(grey.convert("RGB")).astype(int) if mode in "1LI" else COLOURS
        assert np.abs(pixels(open_image(given)) - expected).max() <= 12

    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    def test_transparency_becomes_white(self, mode: str) -> None:
        assert (pixels(open_image(Image.new("RGBA", (8, 8), (9, 9, 9, 0)).convert(mode))) == 255).all()

    def test_half_transparent_black_is_grey(self) -> None:
        assert pixels(open_image(Image.new("RGBA", (8, 8), (0, 0, 0, 128))))[0, 0].tolist() == [127, 127, 127]

    def test_palette_and_key_colour_transparency(self, tmp_path: Path) -> None:
        palette = Image.new("P", (8, 8), 1)
        palette.putpalette([10, 10, 10, 200, 0, 0])
        palette.save(tmp_path / "p.png", transparency=1)
        Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "k.png", transparency=(1, 2, 3))
        Image.new("L", (8, 8), 7).save(tmp_path / "l.png", transparency=7)
        for name in "pkl":
            assert (pixels(open_image(tmp_path / f"{name}.png", "error")) == 255).all()

    def test_the_first_frame_of_an_animation(self, tmp_path: Path) -> None:
        frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
        for ending in ("gif", "webp", "png"):
            frames[0].save(tmp_path / f"a.{ending}", save_all=True, append_images=frames[1:], lossless=True)
            assert pixels(open_image(tmp_path / f"a.{ending}", "error"))[0, 0].tolist() == [255, 0, 0]

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_rotation(self, orientation: int, tmp_path: Path) -> None:
        # What a camera stores so that a viewer that heeds the tag shows the picture upright.
        undo = [None, 0, 3, 1, 5, 2, 6, 4][orientation - 1]  # Image.Transpose that maps upright -> stored
        upright = picture().crop((0, 0, 16, 12))
        stored = upright if undo is None else upright.transpose(Image.Transpose(undo))
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored.save(tmp_path / "a.png", exif=exif)
        assert (pixels(open_image(tmp_path / "a.png", "error")) == COLOURS[:12]).all()

    def test_damaged_exif_is_ignored(self, tmp_path: Path) -> None:
        picture().save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff garbage")
        assert (pixels(open_image(tmp_path / "a.png", "error")) == COLOURS).all()


class TestBad:
    def bad(self, folder: Path) -> dict[str, str]:
        """Name of a bad file -> kind."""
        picture().save(folder / "good.jpg")
        (folder / "empty.jpg").touch()
        (folder / "text.jpg").write_text("<html>404 not found</html>")
        (folder / "svg.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
        (folder / "script.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
        Image.effect_noise((200, 200), 90).save(folder / "whole.jpg")
        (folder / "cut.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:4000])
        Image.effect_noise((200, 200), 90).save(folder / "whole.png")
        (folder / "cut.png").write_bytes((folder / "whole.png").read_bytes()[:4000])
        Image.new("RGB", (1, 1)).save(folder / "dot.png")
        Image.new("RGB", (4000, 5)).save(folder / "line.png")
        (folder / "bomb.png").write_bytes(png_bomb())
        Image.new("L", (8000, 5000)).save(folder / "progressive.jpg", progressive=True)
        os.mkfifo(folder / "pipe.jpg")
        return {
            "none.jpg": "missing file", "empty.jpg": "empty file", "text.jpg": "no image", "svg.svg": "no image",
            "script.jpg": "no image", "cut.jpg": "damaged", "cut.png": "damaged", "dot.png": "too small",
            "line.png": "too small", "bomb.png": "too large", "progressive.jpg": "too large",
            "pipe.jpg": "no regular file", "": "no regular file", "zero\0byte": "unreadable",
        }  # fmt: skip

    @pytest.mark.fault(
        "files",
        "an image that is empty, torn, too large or none",
        "a missing image of a named kind, or an error on request",
    )
    def test_each_has_its_kind_and_never_raises_unasked(self, tmp_path: Path) -> None:
        expected = self.bad(tmp_path)
        assert {name: image_problem(f"{tmp_path}/{name}") for name in expected} == expected
        assert image_problem(tmp_path / "good.jpg") is None
        assert open_image(f"{tmp_path}/cut.jpg") is None
        with pytest.raises(ImageError, match=r"no regular file \(a folder\)\n  fix: name one image file"):
            open_image(tmp_path, on_bad="error")
        with pytest.raises(ImageError, match=r"cut\.jpg: damaged"):
            open_image(f"{tmp_path}/cut.jpg", "error")

    def test_none_is_none(self) -> None:
        assert open_image(None, "error") is None

    @settings(max_examples=60, deadline=None)
    @given(st.sampled_from(["jpg", "png", "gif", "webp", "bmp", "tiff"]), st.data())
    def test_damaged_bytes_give_a_picture_or_a_kind(
        self, tmp_path_factory: pytest.TempPathFactory, ending: str, data: st.DataObject
    ) -> None:
        path = tmp_path_factory.getbasetemp() / f"fuzz.{ending}"
        picture().save(path)
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 6))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
        kind = image_problem(path)
        found = open_image(path)
        assert (kind is None) == (found is not None)
        assert found is None or (found.mode == "RGB" and found.width * found.height <= MAX_PIXELS)


class TestLarge:
    def test_a_large_photo_is_shrunk_while_it_is_read(self, tmp_path: Path) -> None:
        Image.new("L", (8000, 6000), 77).save(tmp_path / "a.jpg")
        found = open_image(tmp_path / "a.jpg", "error")
        assert found is not None
        assert found.size == (4000, 3000)
        assert found.getpixel((5, 5)) == (77, 77, 77)

    def test_pillows_own_limit_does_not_warn(self, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
        (tmp_path / "a.png").write_bytes(png_bomb(10_000))
        assert image_problem(tmp_path / "a.png") == "too large"
        assert not recwarn.list

    def test_smaller_on_request(self, tmp_path: Path) -> None:
        picture().resize((640, 400)).save(tmp_path / "a.jpg")
        sizes = {side: open_image(tmp_path / "a.jpg", "error", at_least=side) for side in (50, 51, 200, 500)}
        assert {side: found.size for side, found in sizes.items() if found} == {
            50: (80, 50), 51: (160, 100), 200: (320, 200), 500: (640, 400),
        }  # fmt: skip


def png_bomb(side: int = 60_000) -> bytes:
    """A valid header of side x side and a little data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )
