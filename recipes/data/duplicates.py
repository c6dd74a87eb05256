"""Which samples are the same text or the same picture."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.cluster.hierarchy import DisjointSet
from tqdm.auto import tqdm

from mi2p_inject.recipes.characters import composed
from mi2p_inject.recipes.data.images import open_image

__all__ = ["common_keys", "file_keys", "merge_groups", "near_duplicate_groups", "text_key"]

_NOISE = re.compile(r"https?://\S+|www\.\S+|@\w+|\brt\b|&\w+;")
_VARIANTS = range(0xFE00, 0xFE10)  # how an emoji is drawn
_POST = 1000  # characters
_END = 4096  # bytes at the middle and at the end of a file; equal ones are compared in full
_THREADS = 8
_BATCH = 256  # files
_ALIKE_BITS = 3


def text_key(text: str | None) -> str | None:
    """What near-duplicate texts share: words in small letters, without addresses, @names and marks; None for none.

    Of texts above 1,000 characters, web pages rather than posts, only case and white space are ignored. Of all of them
    Unicode's form is: macOS and Linux write an é otherwise.

    Examples:
        >>> text_key("RT @bbc: Flood in Kerala!! https://t.co/x") == text_key("flood in Kerala")
        True
    """
    words = composed(composed(text or "").casefold())
    if len(words) <= _POST:
        words = _no_word().sub(" ", _NOISE.sub(" ", words))
    words = " ".join(words.split())
    return hashlib.blake2b(words.encode(errors="replace"), digest_size=8).hexdigest() if words else None


@cache
def _no_word() -> re.Pattern[str]:
    """What stands between words; vowel signs, as Hindi and Thai have them, are marks to Unicode, not letters."""
    signs = [chr(one) for one in range(0x300, 0x20000) if one not in _VARIANTS]
    return re.compile(rf"([^\w{''.join(one for one in signs if unicodedata.category(one) in ('Mn', 'Mc'))}]|_)+")


def file_keys(paths: Iterable[str]) -> dict[str, str | None]:
    """A key for each file, equal for equal content only; None where there is no readable, non-empty file.

    Reads a few kilobytes of each file, and the whole only of those that agree in them.
    """
    unique = list(dict.fromkeys(paths))
    batches = [unique[start : start + _BATCH] for start in range(0, len(unique), _BATCH)]
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda batch: [_glance(path) for path in batch], batches)
        found = tqdm(found, "looking for images", len(batches), unit_scale=_BATCH, delay=2)
        keys = dict(zip(unique, (key for batch in found for key in batch), strict=True))
        shared = Counter(keys.values())
        same = [path for path, key in keys.items() if key is not None and shared[key] > 1]
        keys.update(zip(same, pool.map(_whole, same), strict=True))
    return keys


def near_duplicate_groups(paths: Sequence[str]) -> dict[str, int]:
    """A group number for each readable image; alike images share it (difference hash, at most 3 of 64 bits apart).

    Decodes every image. Source of the hash: hackerfactor.com/blog/?/archives/529-Kind-of-Like-That.html.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        found = tqdm(pool.map(_difference_hash, paths), "comparing images", len(paths), delay=2)
        hashes = {path: value for path, value in zip(paths, found, strict=True) if value is not None}
    values = sorted(set(hashes.values()))
    # Two hashes at most 3 bits apart agree in one of 4 quarters.
    sets = DisjointSet(range(len(values)))
    for quarter in range(4):
        buckets: dict[int, list[int]] = {}
        for i, value in enumerate(values):
            buckets.setdefault(value >> (16 * quarter) & 0xFFFF, []).append(i)
        for bucket in buckets.values():
            codes = np.array([values[i] for i in bucket], dtype=np.uint64)
            for k, i in enumerate(bucket[:-1]):
                apart = np.bitwise_count(codes[k + 1 :] ^ codes[k])
                for other in np.flatnonzero(apart <= _ALIKE_BITS):
                    sets.merge(i, bucket[k + 1 + int(other)])
    number = {value: int(sets[i]) for i, value in enumerate(values)}
    return {path: number[value] for path, value in hashes.items()}


def merge_groups(*keys: Sequence[Hashable | None]) -> list[int]:
    """Group numbers 0, 1, ... such that samples equal in any of the keys share one; None equals nothing.

    Args:
        keys: (N,) each.

    Examples:
        >>> merge_groups(["a", "b", "a", "c"], [None, 1, None, 1])
        [0, 1, 0, 1]
    """
    sets = DisjointSet(range(len(keys[0])))
    for column in keys:
        first: dict[Hashable, int] = {}
        for i, key in enumerate(column):
            if key is not None and first.setdefault(key, i) != i:
                sets.merge(first[key], i)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(sets[i], len(numbers)) for i in range(len(keys[0]))]


def common_keys(keys: Sequence[Hashable | None]) -> set[Hashable]:
    """Keys that more than 20 samples and more than 1 % of them share: boilerplate and placeholders, no duplicates."""
    counts = Counter(key for key in keys if key is not None)
    return {key for key, count in counts.items() if count > max(20, len(keys) / 100)}


def _glance(path: str) -> str | None:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would block for ever
            return None
        size = status.st_size
        digest = hashlib.blake2b(str(size).encode(), digest_size=16)
        with open(path, "rb", buffering=0) as file:
            for start in (max(size // 2 - _END // 2, 0), max(size - _END, 0)):
                file.seek(start)
                digest.update(file.read(_END))
    except (OSError, ValueError):
        return None
    return digest.hexdigest() if size else None


def _whole(path: str) -> str | None:
    try:
        with Path(path).open("rb") as file:
            digest = hashlib.blake2b(digest_size=16)
            while block := file.read(2**20):
                digest.update(block)
            return digest.hexdigest()
    except OSError:
        return None


def _difference_hash(path: str) -> int | None:
    picture = open_image(path, at_least=64)
    if picture is None:
        return None
    small = np.asarray(picture.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    bits = (small[:, 1:] > small[:, :-1]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big") or None  # 0: a plain area, like any other
