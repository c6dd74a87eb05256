"""Opens any image file as an upright RGB picture on white, or says what is wrong with it."""

from __future__ import annotations

import os
import stat
import struct
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image, ImageOps, JpegImagePlugin, UnidentifiedImageError

from mi2p_inject.recipes.errors import RecipeError

__all__ = ["MAX_PIXELS", "ImageError", "image_problem", "looks_like_image", "open_image"]

#: An image with more pixels is refused, unless it is a baseline JPEG, which the decoder shrinks while it reads.
MAX_PIXELS = 2**25
_MAX_BYTES = 2**31  # of a file
_MIN_SIDE, _MAX_ASPECT = 4, 100
_WITH_ALPHA = frozenset({"RGBA", "RGBa", "LA", "La", "PA"})  # the A of LAB is a colour
_FORMATS = ("PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")  # no EPS: it would start Ghostscript


_FIXES = {
    "missing file": "check the path, and the folder that it starts from",
    "no regular file": "name one image file; many of them, or a folder, go into --data",
    "unreadable": "check that this user may read it",
    "too large": "save it smaller",
    "too small": "give a larger picture",
}


class ImageError(RecipeError):
    """A file is no usable image.

    Attributes:
        kind: for counting: ``"missing file"``, ``"no regular file"``, ``"unreadable"``, ``"empty file"``,
            ``"no image"``, ``"damaged"``, ``"too large"``, ``"too small"``.
    """

    def __init__(self, kind: str, path: str, detail: str = "") -> None:
        super().__init__(
            f"bad image {path}: {kind}{f' ({detail})' if detail else ''}",
            fix=_FIXES.get(kind, "give a JPEG, PNG, GIF, WebP, BMP or TIFF file that opens elsewhere"),
        )
        self.kind = kind


def open_image(
    image: str | os.PathLike[str] | Image.Image | None,
    on_bad: Literal["missing", "error"] = "missing",
    at_least: int | None = None,
) -> Image.Image | None:
    """An image as training wants it: first frame, rotated as its EXIF says, transparency on white, 8-bit RGB.

    Never decodes more than `MAX_PIXELS` pixels, whatever the file's header says.

    Args:
        image: a file; a picture that is open already; None for a missing one.
        on_bad: give None for a bad image (a missing modality), or raise.
        at_least: both sides of a JPEG may be reduced to this while decoding, by 2, 4 or 8: much faster for photos.

    Returns:
        An RGB picture, or None where there is none.

    Raises:
        ImageError: with ``on_bad="error"``.

    Examples:
        >>> open_image(Image.new("RGBA", (8, 8), (0, 0, 0, 0))).getpixel((0, 0))
        (255, 255, 255)
    """
    if image is None:
        return None
    try:
        if isinstance(image, Image.Image):
            return _upright_rgb(image)
        return _read(os.fspath(image), at_least)
    except ImageError:
        if on_bad == "error":
            raise
        return None


def image_problem(path: str | os.PathLike[str]) -> str | None:
    """The kind of `ImageError` that a file is, found by decoding it; None for a good one."""
    try:
        open_image(path, on_bad="error", at_least=_MIN_SIDE)
    except ImageError as error:
        return error.kind
    return None


#: endings that an image file has by custom; whether it is one is found when it is opened
_ENDINGS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".ppm",
     ".pgm", ".pbm", ".pnm", ".avif", ".avifs", ".jp2", ".j2k", ".jpx", ".heic", ".heif"}
)  # fmt: skip


def looks_like_image(path: str | os.PathLike[str]) -> bool:
    """Whether a file is meant as an image: by the ending of its name, else by its first bytes."""
    if os.path.splitext(path)[1].lower() in _ENDINGS:
        return True
    try:
        with _open(os.fspath(path)) as file:
            start = file.read(16)
    except ImageError:
        return False
    Image.init()
    accepts = [Image.OPEN[name][1] for name in ("JPEG", *_FORMATS) if name in Image.OPEN]
    return any(accept is not None and accept(start) is True for accept in accepts)


def _read(path: str, at_least: int | None) -> Image.Image:
    with _open(path) as file:
        try:
            return _upright_rgb(_decode(file, path, at_least))
        except ImageError:
            raise
        except UnidentifiedImageError:
            raise ImageError("no image", path, "read are JPEG, " + ", ".join(_FORMATS)) from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
            raise ImageError("too large", path, str(error)) from error
        except Exception as error:  # a damaged file makes decoders raise almost anything
            raise ImageError("damaged", path, str(error)) from error


def _open(path: str) -> BinaryIO:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # a pipe would block for ever
            raise ImageError("no regular file", path, "a folder" if stat.S_ISDIR(status.st_mode) else "")
        if status.st_size == 0:
            raise ImageError("empty file", path)
        if status.st_size > _MAX_BYTES:
            raise ImageError("too large", path, f"{status.st_size:,} bytes")
        return Path(path).open("rb")
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError("missing file", path) from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise ImageError("unreadable", path, str(error)) from error


def _decode(file: BinaryIO, path: str, at_least: int | None) -> Image.Image:
    picture = _identify(file, path)
    width, height = picture.size
    if min(width, height) < _MIN_SIDE or max(width, height) > _MAX_ASPECT * min(width, height):
        raise ImageError("too small", path, f"{width} x {height}")
    if isinstance(picture, JpegImagePlugin.JpegImageFile):
        if "progressive" in picture.info and width * height > MAX_PIXELS:  # its decoder holds all, shrunk or not
            raise ImageError("too large", path, f"{width} x {height}, progressive")
        shrinks = [s for s in (1, 2, 4, 8) if at_least is not None and min(width, height) >= s * at_least]
        shrink = max([1, *shrinks])
        while shrink < 8 and (width // shrink) * (height // shrink) > MAX_PIXELS:
            shrink *= 2
        picture.draft(None, (width // shrink, height // shrink))
    if picture.width * picture.height > MAX_PIXELS:
        raise ImageError("too large", path, f"{width} x {height}")
    picture.load()
    return picture


def _identify(file: BinaryIO, path: str) -> Image.Image:
    """The header, read. `Image.open` warns of and refuses large images before they can be asked to shrink."""
    start = file.read(16)
    Image.init()
    for name in ("JPEG", *(one for one in _FORMATS if one in Image.OPEN)):
        factory, accept = Image.OPEN[name]
        if accept is not None and accept(start) is not True:
            continue
        file.seek(0)
        with suppress(SyntaxError, IndexError, TypeError, struct.error):  # how a plug-in says: not mine
            return JpegImagePlugin.JpegImageFile(file, path) if name == "JPEG" else factory(file, path)
    raise UnidentifiedImageError


def _upright_rgb(picture: Image.Image) -> Image.Image:
    with suppress(Exception):  # damaged EXIF says nothing about the pixels
        picture = ImageOps.exif_transpose(picture)
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        picture = _eight_bits(picture)
    if picture.mode in _WITH_ALPHA or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        picture = Image.new("RGB", picture.size, "white")
        picture.paste(layered, mask=layered.getchannel("A"))
        return picture
    return picture.convert("RGB")


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Grey levels of 16 or 32 bits or floats -> 8 bits; Pillow alone would cut everything above 255 to white."""
    levels = np.asarray(picture, dtype=np.float64)
    seen = np.isfinite(levels)  # NaN stands for "nothing measured here"
    low = levels[seen].min() if seen.any() else 0.0
    levels = np.nan_to_num(np.where(seen | np.isposinf(levels), levels, low), posinf=levels[seen].max(initial=low))
    if picture.mode.startswith("I;16") or (picture.mode == "I" and 255 < levels.max() <= 65535 and levels.min() >= 0):
        levels = levels / 257
    elif levels.min() < 0 or levels.max() > 255 or (picture.mode == "F" and levels.max() <= 1):
        levels = (levels - levels.min()) / max(float(np.ptp(levels)), 1e-12) * 255
    return Image.fromarray(levels.round().astype(np.uint8), "L")
