"""Texts and groups that look the same, written otherwise, are the same; those that do not, are not."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from data_files import Load, load, note, write

from mi2p_inject.recipes.data.duplicates import text_key

__all__ = ["load"]


@pytest.mark.parametrize("text", ["café crème", "가나다", "Tiếng Việt"])
def test_a_text_in_another_unicode_form_is_the_same_text(text: str) -> None:
    composed, decomposed = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    assert composed != decomposed
    assert text_key(composed) == text_key(decomposed)
    assert text_key(composed * 300) == text_key(decomposed * 300)  # web pages


@pytest.mark.parametrize(
    ("first", "second"), [("की", "का"), ("दिन", "दान"), ("ไม้", "ไม่"), ("மின்", "மான்")], ids=["ki", "din", "thai", "tamil"]
)
def test_vowel_signs_are_part_of_a_word(first: str, second: str) -> None:
    assert text_key(first) != text_key(second)
    assert text_key(f"{first}!") == text_key(first)


@pytest.mark.parametrize("text", ["\u2764\ufe0f", "\U0001f600", "1\ufe0f\u20e3"[1:], "\U0001f469\u200d\U0001f680"])
def test_emoji_alone_are_no_words(text: str) -> None:
    assert text_key(text) is None
    assert text_key(f"flood {text}") == text_key("flood")


def test_a_group_in_another_form_is_the_same_group(tmp_path: Path, load: Load) -> None:
    """Unseen characters, Unicode's other form, and floats that missing cells elsewhere have made of whole numbers."""
    pairs = [("Zoë", unicodedata.normalize("NFD", "Zoë")), ("ward b", "ward\u00a0b\u200b"), (7, 7.0), ("x", "x")]
    write(tmp_path / "validation.jsonl", '{"text": "v", "label": "a", "group": "v"}')
    for split, member in (("train", 0), ("test", 1)):
        rows = [{"text": f"{split} {i}", "label": "ab"[i % 2], "group": pairs[i % 4][member]} for i in range(40)]
        write(tmp_path / f"{split}.jsonl", "\n".join(json.dumps(one) for one in rows))
    shared = "groups: of 40 test samples, 40 are of a group that train has too"
    assert note(load(tmp_path), "groups: of 40 test").startswith(shared)
